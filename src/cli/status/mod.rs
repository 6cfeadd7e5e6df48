//! `ckptfs status`

mod asking;
mod mount_status;
mod text;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use ckptfs::fuse::{mount_at, mounts};

use crate::cli::plan::to_stdout;

use asking::ask;
use mount_status::{MountStatus, State};

pub(crate) use asking::ask_for_figures;
pub(crate) use text::{bytes, duration, micros, percent, persist, prefetch};

pub(crate) const EXIT_CODES_HELP: &str = "\
Exit code:
  0  all given mounts answer; without MOUNTPOINT, all mounts that this user may read answer
  1  a mount is dead, does not answer or has no figures, or MOUNTPOINT is not a ckptfs mount
  2  the command line is wrong";

/// Which mounts to show.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Mountpoints of views [default: all ckptfs mounts]
    mountpoint: Vec<PathBuf>,

    /// Print everything as JSON
    #[arg(long)]
    json: bool,

    /// Seconds to wait for a mount to answer; a mount that surveys its sources may take longer
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = parse_seconds)]
    timeout: Duration,

    /// What `status` runs in a separate process, which it may abandon
    #[arg(long, hide = true, exclusive = true)]
    ask: bool,
}

pub(crate) fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| *seconds > 0.0);
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    duration.ok_or_else(|| format!("{text:?} is not a number of seconds"))
}

/// Prints the state of the mounts that `args` names.
pub(crate) fn run(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    if args.ask {
        return asking::answer().map(|()| ExitCode::SUCCESS);
    }
    let named = !args.mountpoint.is_empty();
    let asked = if named {
        let mountpoints = args.mountpoint.iter();
        mountpoints.map(|path| mount_at(path)).collect()
    } else {
        mounts()
    }?;
    let outcomes = ask(&asked, args.timeout);
    let statuses = asked.iter().zip(outcomes);
    let statuses = statuses.map(|(mount, outcome)| MountStatus::new(mount, outcome, args.timeout));
    let statuses: Vec<MountStatus> = statuses.collect();
    if args.json {
        to_stdout(&(serde_json::to_string_pretty(&statuses)? + "\n"))?
    } else {
        to_stdout(&text::render(&statuses))?
    }
    let is_well = |status: &MountStatus| match status.state {
        State::Serving => true,
        State::Dead | State::Silent => false,
        State::Unreadable | State::Covered => !named,
    };
    Ok(if statuses.iter().all(is_well) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
