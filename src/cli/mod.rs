//! The command line: arguments, terminal output, exit codes.
//!
//! Results go to standard output, errors to standard error. The exit code is 0 when the job is
//! done, 1 when it failed, 2 when the command line is wrong.

mod args;
//mod demo;
mod plan;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::cli::args::ViewArgs;

/// Mount the checkpoint that was never written: patched, FP8 and repacked views of safetensors
/// checkpoints.
#[derive(Debug, Parser)]
#[command(name = "ckptfs", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what a view would hold
    Plan {
        #[command(flatten)]
        view: ViewArgs,
        /// Print the whole plan as JSON
        #[arg(long)]
        json: bool,
    },
    /// Make small checkpoints, mount a patched FP8 view of them, read it and check it
    Demo,
}

/// Runs the program.
pub(crate) fn run() -> ExitCode {
    // Wrong usage ends here, with exit code 2.
    let cli = Cli::parse();
    match cli.command.run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ckptfs: {error:#}");
            ExitCode::FAILURE
        }
    }
}

impl Command {
    fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Command::Plan { view, json } => {
                let plan = view.request().plan()?;
                match json {
                    true => plan::print_json(&plan)?,
                    false => plan::print(&plan)?,
                }
                Ok(ExitCode::SUCCESS)
            }
            Command::Demo => todo!(),
        }
    }
}
