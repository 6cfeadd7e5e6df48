//! The command line: arguments, terminal output, exit codes.
//!
//! Results go to standard output, errors to standard error. The exit code is 0 when the job is
//! done, 1 when it failed, 2 when the command line is wrong.

mod args;
mod background;
mod check_values;
mod demo;
mod emit_recipe;
mod inspect;
mod logging;
mod man;
mod materialize;
mod mount;
mod mount_helper;
mod plan;
mod privileges;
mod progress;
mod unmount;
mod verify;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use rustix::process::{Resource, Rlimit};

use ckptfs::fast_paths::FastPath;

use crate::cli::args::ViewArgs;

/// The version, and what the program was built from.
const BUILD: &str = env!("CKPTFS_BUILD");

/// Mount the checkpoint that was never written: patched, FP8 and repacked views of safetensors
/// checkpoints.
#[derive(Debug, Parser)]
#[command(name = "ckptfs", version, long_version = BUILD, max_term_width = 100)]
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
        /// Read every tensor that is to be quantized, and tell where NaN and infinity are
        #[arg(long)]
        check_values: bool,
        #[command(flatten)]
        emit: emit_recipe::EmitArgs,
    },
    /// Measure what quantization costs, by layer and by kind of module
    #[command(after_help = inspect::COLUMNS_HELP)]
    Inspect {
        #[command(flatten)]
        view: ViewArgs,
        #[command(flatten)]
        inspect: inspect::InspectArgs,
    },
    /// Mount a view on an empty directory; returns once it is ready
    Mount {
        #[command(flatten)]
        view: ViewArgs,
        #[command(flatten)]
        mount: mount::MountArgs,
    },
    /// Write a view to disk
    Materialize {
        #[command(flatten)]
        view: ViewArgs,
        #[command(flatten)]
        materialize: materialize::MaterializeArgs,
    },
    /// Check the structure of a directory or a mount, or its bytes against a view
    Verify(verify::VerifyArgs),
    /// Take a mounted view away
    Unmount(unmount::UnmountArgs),
    /// Make small checkpoints, mount a patched FP8 view of them, read it and check it
    Demo,
    /// Print the completions for a shell
    Completions {
        /// Shell that they are for
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Write the man pages into a directory
    Man(man::ManArgs),
}

/// Shells that the program has completions for.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Fish,
    Zsh,
}

/// Runs the program.
pub(crate) fn run() -> ExitCode {
    if mount_helper::is_called() {
        return mount_helper::run();
    }
    // Wrong usage ends here, with exit code 2.
    let cli = Cli::parse();
    match start().and_then(|()| cli.command.run()) {
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
            Command::Plan {
                view,
                json,
                check_values,
                emit,
            } => {
                let request = view.request()?;
                let plan = request.plan()?;
                if emit.run(&request, json || check_values)? {
                    return Ok(ExitCode::SUCCESS);
                }
                if check_values {
                    return check_values::run(&plan, json);
                }
                match json {
                    true => plan::print_json(&plan, None)?,
                    false => plan::print(&plan)?,
                }
                Ok(ExitCode::SUCCESS)
            }
            Command::Inspect { view, inspect } => {
                let plan = view.request()?.plan()?;
                inspect::run(&plan, &inspect)?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Mount { view, mount } => {
                mount::run(&view, &mount)?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Materialize { view, materialize } => {
                let request = view.request()?;
                let plan = request.plan()?;
                plan::print_summary(&plan)?;
                materialize::run(&plan, &request.sources(), &materialize)?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Verify(args) => verify::run(&args),
            Command::Unmount(args) => {
                unmount::run(&args)?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Demo => demo::run().map(|()| ExitCode::SUCCESS),
            Command::Completions { shell } => {
                print_completions(shell)?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Man(args) => {
                man::run(Cli::command(), &args)?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

/// What comes before any job.
fn start() -> anyhow::Result<()> {
    raise_open_files_limit();
    Ok(FastPath::check_environment()?)
}

/// Every source file stays open once it was used, and a checkpoint can have many shards. Where
/// the limit cannot be raised, opening one shard too many says so.
fn raise_open_files_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    let _ = rustix::process::setrlimit(Resource::Nofile, raised);
}

fn print_completions(shell: Shell) -> anyhow::Result<()> {
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Fish => clap_complete::Shell::Fish,
        Shell::Zsh => clap_complete::Shell::Zsh,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "ckptfs", &mut script);
    std::io::stdout().write_all(&script)?;
    Ok(())
}
