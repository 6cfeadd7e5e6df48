//! Mounts of ours as others see them: which there are, and what each tells of itself.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result, in_words};
use crate::fuse::condition::{ServingProcess, serving_process};
use crate::fuse::holders::{self, Holder};
use crate::fuse::mount_table::{self, FILESYSTEM_TYPE, MountEntry};
use crate::fuse::resolve::resolve;
use crate::fuse::server::STATS;
use crate::shown::Show;
use crate::source::MOUNT_DIRECTORY;
use crate::stats::Snapshot;

/// A mount of ours in the mount table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OurMount {
    pub mountpoint: PathBuf,
    /// What the mount table names as its source: the base.
    pub source: String,
    /// Whether another mount lies over it, so that no path leads to it.
    pub covered: bool,
}

/// What became of asking a mount for its figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    Figures(Box<Snapshot>),
    /// The process that served it is gone.
    Dead,
    /// Why there are no figures although the mount may be well.
    Unreadable {
        code: Code,
        why: String,
    },
}

/// A process that holds a mount, and how: "open file", "mapped file", "working directory".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldingProcess {
    pub pid: u32,
    pub name: String,
    pub how: String,
    pub path: String,
}

/// All mounts of ours that this process can see, in the order of the mount table. Asks nothing of
/// them, so that one that does not answer is no hindrance.
///
/// # Errors
/// If there is no mount table.
pub fn mounts() -> Result<Vec<OurMount>> {
    let ours = mount_table::entries()?.into_iter();
    Ok(ours.filter(MountEntry::is_ours).map(describe).collect())
}

/// The mount of ours at `mountpoint`, likewise.
///
/// # Errors
/// If nothing of ours is mounted there.
pub fn mount_at(mountpoint: &Path) -> Result<OurMount> {
    let path = resolve(mountpoint)?;
    match mount_table::at(&path)? {
        Some(entry) if entry.is_ours() => Ok(describe(entry)),
        Some(entry) => {
            let other = entry.filesystem_type.shown();
            let problem = format!("the mount there is of type {other}, not {FILESYSTEM_TYPE}");
            Err(Error::of_file(Code::NotMounted, &path, problem))
        }
        None => Err(mount_table::nothing_mounted(&path)),
    }
}

fn describe(entry: MountEntry) -> OurMount {
    // A path that may not be followed may lead to it all the same.
    let leads_to = mount_table::at(&entry.mountpoint);
    OurMount {
        covered: leads_to.is_ok_and(|found| found.is_none_or(|found| found.id != entry.id)),
        source: entry.source.to_string_lossy().into_owned(),
        mountpoint: entry.mountpoint,
    }
}

/// The process that serves the mount of ours at `mountpoint`, as in the mount table, if this user can
/// see it. Asks nothing of the mount.
pub fn server_of(mountpoint: &Path) -> Option<ServingProcess> {
    let entry = mount_table::at(mountpoint).ok()??;
    serving_process(&entry)
}

/// Asks the mount at `mountpoint` for its figures. This waits for as long as the mount does not
/// answer, and may then not even be killed.
pub fn ask(mountpoint: &Path) -> Answer {
    let path = mountpoint.join(MOUNT_DIRECTORY).join(STATS);
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOTCONN | libc::ECONNABORTED)) => {
            return Answer::Dead;
        }
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            return Answer::Unreadable {
                code: Code::PermissionDenied,
                why: "it is another user's, and does not let this one in".into(),
            };
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Answer::Unreadable {
                code: Code::NoFigures,
                why: "it tells no figures: a version of ckptfs without them serves it, or only a \
                      directory of the view is mounted here"
                    .into(),
            };
        }
        Err(e) => {
            return Answer::Unreadable {
                code: Code::from(&e),
                why: in_words(&e),
            };
        }
    };
    match serde_json::from_slice(&text) {
        Ok(snapshot) => Answer::Figures(Box::new(snapshot)),
        Err(e) => Answer::Unreadable {
            code: Code::NoFigures,
            why: format!("its figures are those of another version of ckptfs: {e}"),
        },
    }
}

/// Processes other than this one that hold `mountpoint`, each once; of other users' only root sees
/// them.
///
/// # Errors
/// If there is no mount table.
pub fn holding_processes(mountpoint: &Path) -> Result<Vec<HoldingProcess>> {
    let processes = holders::holders(mountpoint)?.into_iter();
    let processes = processes.filter_map(|holder| match holder {
        Holder::Process {
            pid,
            name,
            how,
            path,
        } => Some(HoldingProcess {
            pid,
            name,
            how: how.to_owned(),
            path: path.to_string_lossy().into_owned(),
        }),
        Holder::Mount(_) => None,
    });
    Ok(processes
        .filter(|process| process.pid != std::process::id())
        .collect())
}
