//! `ckptfs status`

mod asking;
mod text;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use ckptfs::error::Code;
use ckptfs::fuse::{Answer, HoldingProcess, OurMount, mount_at, mounts, server_of};
use ckptfs::stats::Snapshot;

use crate::cli::plan::to_stdout;

use asking::{Outcome, ask};

pub(crate) use asking::ask_for_figures;
pub(crate) use text::{bytes, duration, micros, percent, persist};

pub(crate) const EXIT_CODES_HELP: &str = "\
Exit code:
  0  all given mounts answer; without MOUNTPOINT, all mounts that this user may read answer
  1  a mount is dead, does not answer or has no figures, or MOUNTPOINT is not a ckptfs mount
  2  the command line is wrong";

/// Which mounts to tell about.
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

    /// What `status` runs in a process of its own, which may be left behind
    #[arg(long, hide = true, exclusive = true)]
    ask: bool,
}

pub(crate) fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| *seconds > 0.0);
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    duration.ok_or_else(|| format!("{text:?} is not a number of seconds"))
}

/// What is known of a mount.
#[derive(Debug, Serialize)]
pub(crate) struct MountStatus {
    mountpoint: String,
    /// The base, as the mount table names it.
    source: String,
    state: State,
    /// The kind of what is wrong; null if it serves.
    code: Option<Code>,
    /// What is wrong and what to do; null if it serves.
    problem: Option<String>,
    /// Processes that hold it, as far as this user may see them; null if that is not known.
    readers: Option<Vec<HoldingProcess>>,
    stats: Option<Box<Snapshot>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Serving,
    Dead,
    Silent,
    Unreadable,
    Covered,
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

impl MountStatus {
    fn new(mount: &OurMount, outcome: Outcome, timeout: Duration) -> Self {
        let mountpoint = mount.mountpoint.display();
        let (state, wrong, stats) = match outcome.answer {
            _ if mount.covered => (
                State::Covered,
                Some((
                    Code::InUse,
                    "another filesystem is mounted over it; unmount that to reach it".to_owned(),
                )),
                None,
            ),
            Some(Answer::Figures(stats)) => (State::Serving, None, Some(stats)),
            Some(Answer::Dead) => (
                State::Dead,
                Some((
                    Code::DeadMount,
                    format!(
                        "the process that served it is gone; clear it with: ckptfs unmount {mountpoint}"
                    ),
                )),
                None,
            ),
            Some(Answer::Unreadable { code, why }) => (State::Unreadable, Some((code, why)), None),
            None => (
                State::Silent,
                Some((
                    Code::MountHangs,
                    format!(
                        "it did not answer within {} seconds: all of its threads are busy, its process \
                     is stopped, or its sources hang; its log may tell more, also by SIGUSR1; {}; \
                     ckptfs unmount --lazy {mountpoint} detaches it",
                        timeout.as_secs_f64(),
                        match server_of(&mount.mountpoint) {
                            Some(server) => format!("it is served by {server}"),
                            None => "this user cannot see the process that serves it".to_owned(),
                        }
                    ),
                )),
                None,
            ),
        };
        let (code, problem) = wrong.unzip();
        MountStatus {
            mountpoint: mountpoint.to_string(),
            source: mount.source.clone(),
            state,
            code,
            problem,
            readers: outcome.readers,
            stats,
        }
    }
}
