//! What is known of a mount.

use std::time::Duration;

use ckptfs::error::Code;
use ckptfs::fuse::{Answer, HoldingProcess, OurMount, server_of};
use ckptfs::stats::Snapshot;
use serde::Serialize;

use crate::cli::status::asking::Outcome;

/// What is known of a mount.
#[derive(Debug, Serialize)]
pub(crate) struct MountStatus {
    pub(super) mountpoint: String,
    /// The base, as the mount table names it.
    pub(super) source: String,
    pub(super) state: State,
    /// The kind of what is wrong; null if it serves.
    pub(super) code: Option<Code>,
    /// What is wrong and what to do; null if it serves.
    pub(super) problem: Option<String>,
    /// Processes that hold it, as far as this user may see them; null if that is not known.
    pub(super) readers: Option<Vec<HoldingProcess>>,
    pub(super) stats: Option<Box<Snapshot>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    Serving,
    Dead,
    Silent,
    Unreadable,
    Covered,
}

impl MountStatus {
    pub(super) fn new(mount: &OurMount, outcome: Outcome, timeout: Duration) -> Self {
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
