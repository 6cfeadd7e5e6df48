//! The command line: arguments, terminal output, exit codes.
//!
//! Results go to standard output, errors to standard error. The exit code is 0 when the job is
//! done, 1 when it failed, 75 when it failed and may work later, 2 when the command line is wrong, 128 and
//! its number when a signal stopped it. The mount helper has the exit codes of mount(8), `diff` has codes of
//! its own.

#[cfg(any(feature = "fuse", feature = "serve"))]
mod allocator;
mod args;
#[cfg(feature = "fuse")]
mod background;
mod check_values;
mod confirm;
mod demo;
mod diff;
#[cfg(feature = "fuse")]
mod doctor;
mod emit_recipe;
mod inspect;
#[cfg(any(feature = "fuse", feature = "serve"))]
mod logging;
mod man;
mod materialize;
mod messages;
#[cfg(feature = "fuse")]
mod mount;
#[cfg(feature = "fuse")]
mod mount_helper;
mod mounted;
#[cfg(feature = "remote")]
mod network;
// Tested in every build.
#[cfg(any(test, not(feature = "fuse")))]
mod no_mounts;
mod operations;
mod output_file;
mod pin;
mod plan;
#[cfg(feature = "fuse")]
mod privileges;
mod progress;
mod provenance;
mod purpose;
mod report;
#[cfg(feature = "serve")]
mod serve;
#[cfg(any(feature = "fuse", feature = "serve"))]
mod service;
mod signals;
mod start;
#[cfg(feature = "fuse")]
mod status;
mod ticker;
#[cfg(feature = "fuse")]
mod top;
#[cfg(feature = "fuse")]
mod unmount;
mod verify;
mod waiting;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use ckptfs::json::{Details, Writing};
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};

#[cfg(feature = "fuse")]
use crate::cli::args::ViewAndMountpoint;
use crate::cli::args::ViewOrDir;
use crate::cli::messages::print_error;
use crate::cli::progress::Stopped;
use crate::cli::start::{BUILD, start};

/// Mount the checkpoint that was never written: patched, FP8 and repacked views of safetensors
/// checkpoints.
#[derive(Debug, Parser)]
#[command(name = "ckptfs", version, long_version = BUILD, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// Print no progress and no plan summary
    #[arg(long, short, global = true)]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what a view would contain
    Plan {
        #[command(flatten)]
        view: ViewOrDir,
        /// Print the whole plan as JSON
        #[arg(long)]
        json: bool,
        /// With --json: add the sources and steps of every tensor
        #[arg(long, requires = "json")]
        provenance: bool,
        /// Print only the summary: sources, counts, bytes and warnings
        #[arg(long, conflicts_with = "json")]
        summary: bool,
        /// Read every tensor that would be quantized and report NaN and infinity
        #[arg(long)]
        check_values: bool,
        /// Also say what `materialize --out DIR` or `mount --persist DIR` would write to DIR, and how
        /// much space there is. DIR may be the URL of a prefix for `materialize`
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
        #[command(flatten)]
        emit: emit_recipe::EmitArgs,
        #[command(flatten)]
        pin: pin::PinArgs,
    },
    /// Measure the quantization error, by layer and by kind of module
    #[command(after_help = inspect::COLUMNS_HELP)]
    Inspect {
        #[command(flatten)]
        view: ViewOrDir,
        #[command(flatten)]
        inspect: inspect::InspectArgs,
    },
    /// Write a report of a view as one HTML file
    Report {
        #[command(flatten)]
        view: ViewOrDir,
        #[command(flatten)]
        report: report::ReportArgs,
    },
    #[cfg(feature = "fuse")]
    /// Mount a view on an empty directory; returns when the mount is ready
    #[command(override_usage = "ckptfs mount [OPTIONS] [DIR] <MOUNTPOINT>")]
    Mount {
        #[command(flatten)]
        view: ViewAndMountpoint,
        #[command(flatten)]
        mount: mount::MountArgs,
    },
    #[cfg(feature = "serve")]
    /// Serve a view over HTTP, as a repository of the Hugging Face Hub and as plain files
    Serve {
        #[command(flatten)]
        view: ViewOrDir,
        #[command(flatten)]
        serve: serve::ServeArgs,
    },
    /// Write a view to disk
    Materialize {
        #[command(flatten)]
        view: ViewOrDir,
        #[command(flatten)]
        materialize: materialize::MaterializeArgs,
    },
    /// Check the structure of a directory or mount, or compare a directory with a view
    Verify(verify::VerifyArgs),
    /// Compare two checkpoints, mounts or recipes
    #[command(
        after_help = "Exit code: 0 if there is no difference, 1 if there is one, 2 on an error."
    )]
    Diff(diff::DiffArgs),
    #[cfg(feature = "fuse")]
    /// Unmount a view
    Unmount(unmount::UnmountArgs),
    #[cfg(feature = "fuse")]
    /// Check whether this machine can mount, by mounting a tiny view
    Doctor(doctor::DoctorArgs),
    #[cfg(feature = "fuse")]
    /// Show the health and traffic of mounts
    #[command(after_help = status::EXIT_CODES_HELP)]
    Status(status::StatusArgs),
    #[cfg(feature = "fuse")]
    /// Show the traffic of a mount, live
    Top(top::TopArgs),
    #[cfg(not(feature = "fuse"))]
    #[command(flatten)]
    Mounts(no_mounts::MountCommand),
    /// Make small checkpoints, mount a patched FP8 view of them, and check what it shows
    Demo,
    /// Print shell completions
    Completions {
        /// Shell
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Write the man pages to a directory
    Man(man::ManArgs),
}

/// Shells that the program has completions for.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Fish,
    Zsh,
}

/// The exit code of what may work later: `EX_TEMPFAIL` of sysexits.h.
const TRY_AGAIN: u8 = 75;

/// Runs the program.
pub(crate) fn run() -> ExitCode {
    let code = run_command();
    #[cfg(feature = "remote")]
    network::finish();
    code
}

fn run_command() -> ExitCode {
    #[cfg(feature = "fuse")]
    if mount_helper::is_called() {
        return mount_helper::run();
    }
    // Wrong usage ends here, with exit code 2.
    let cli = Cli::parse();
    match start().and_then(|()| cli.command.run(cli.quiet)) {
        Ok(code) => code,
        Err(error) => {
            print_error("ckptfs", &error);
            match error.downcast_ref::<Stopped>() {
                Some(stopped) => ExitCode::from(stopped.exit_code()),
                None if messages::may_pass(&error) => ExitCode::from(TRY_AGAIN),
                None => ExitCode::FAILURE,
            }
        }
    }
}

impl Command {
    fn run(self, quiet: bool) -> anyhow::Result<ExitCode> {
        match self {
            Command::Plan {
                view,
                json,
                provenance,
                summary,
                check_values,
                out,
                emit,
                pin,
            } => {
                let request = view.into_view().request_for(pin.purpose())?;
                let plan = request.plan()?;
                pin.write(&request, &plan, emit.overwrite)?;
                if emit.run(&request, &plan, json || check_values)? {
                    return Ok(ExitCode::SUCCESS);
                }
                let writing = out.map(|out| Writing::new(&request, &plan, &out));
                let details = Details {
                    directories: request.directories(),
                    writing: writing.transpose()?,
                    first_load: plan::first_load(&plan),
                    provenance,
                    spelling: messages::flag,
                    ..Details::default()
                };
                if check_values {
                    if !json {
                        plan::print(&plan, &details, summary)?;
                    }
                    return check_values::run(&plan, details, json, quiet);
                }
                if json {
                    plan::print_json(&plan, &details)?
                } else {
                    plan::print(&plan, &details, summary)?
                }
                Ok(ExitCode::SUCCESS)
            }
            Command::Inspect { view, inspect } => {
                let request = view.into_view().request()?;
                if inspect.compares() {
                    inspect::compare(&request, &inspect, quiet)?;
                } else {
                    inspect::run(&request.plan()?, &inspect, quiet)?;
                }
                Ok(ExitCode::SUCCESS)
            }
            Command::Report { view, report } => {
                report::run(&view.into_view().request()?, &report, quiet)?;
                Ok(ExitCode::SUCCESS)
            }
            #[cfg(feature = "fuse")]
            Command::Mount { view, mut mount } => {
                mount.manner.quiet = quiet;
                let (view, mountpoint) = view.into_view().unwrap_or_else(|(kind, error)| {
                    let mut command = Cli::command();
                    command.build();
                    let mount = command.find_subcommand_mut("mount");
                    mount.expect("it is one").error(kind, error).exit()
                });
                mount.mountpoint = mountpoint;
                mount::run(&view, &mount)?;
                Ok(ExitCode::SUCCESS)
            }
            #[cfg(feature = "serve")]
            Command::Serve { view, serve } => {
                serve::run(&view.into_view(), &serve, quiet)?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Materialize { view, materialize } => {
                let request = view.into_view().request()?;
                let plan = request.plan()?;
                materialize::run(&plan, &request.inputs(), &materialize, quiet)?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Verify(args) => verify::run(&args, quiet),
            Command::Diff(args) => diff::run(&args, quiet),
            #[cfg(feature = "fuse")]
            Command::Unmount(args) => {
                unmount::run(&args)?;
                Ok(ExitCode::SUCCESS)
            }
            #[cfg(feature = "fuse")]
            Command::Doctor(args) => doctor::run(&args),
            #[cfg(feature = "fuse")]
            Command::Status(args) => status::run(&args),
            #[cfg(feature = "fuse")]
            Command::Top(args) => top::run(&args),
            #[cfg(not(feature = "fuse"))]
            Command::Mounts(_) => no_mounts::run(),
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
