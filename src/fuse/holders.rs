//! Who keeps a mount busy.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::fuse::mount_table;
use crate::shown::Show;

/// A use of a mount that keeps it from being unmounted.
#[derive(Debug)]
pub(super) enum Holder {
    Process {
        pid: u32,
        name: String,
        /// How it holds the mount: "open file", "working directory".
        how: &'static str,
        path: PathBuf,
    },
    /// Another filesystem is mounted inside.
    Mount(PathBuf),
}

impl Holder {
    /// The process, if all that was found of it is that it is in a directory of the mount.
    pub(super) fn is_in_directory(&self) -> Option<u32> {
        match self {
            Holder::Process { pid, how, .. } if *how == WORKING_DIRECTORY => Some(*pid),
            _ => None,
        }
    }

    /// What it holds, the first that was found.
    pub(super) fn path(&self) -> &Path {
        match self {
            Holder::Process { path, .. } | Holder::Mount(path) => path,
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Process {
                pid,
                name,
                how,
                path,
            } => write!(f, "process {pid} ({name}): {how} {}", path.shown()),
            Holder::Mount(path) => write!(f, "a mount at {}", path.shown()),
        }
    }
}

const WORKING_DIRECTORY: &str = "working directory";

/// What holds `mountpoint`: each process once. Processes of other users are seen by root only.
pub(super) fn holders(mountpoint: &Path) -> Result<Vec<Holder>> {
    let mounts = mount_table::entries()?
        .into_iter()
        .map(|entry| entry.mountpoint)
        .filter(|path| path != mountpoint && path.starts_with(mountpoint))
        .map(Holder::Mount);
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = processes.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let (how, path) = hold(&entry.path(), mountpoint)?;
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        Some(Holder::Process {
            pid,
            name: name.trim().to_owned(),
            how,
            path,
        })
    });
    Ok(mounts.chain(processes).collect())
}

/// How the process whose directory under `/proc` is `process` holds `mountpoint`, if it does.
fn hold(process: &Path, mountpoint: &Path) -> Option<(&'static str, PathBuf)> {
    let links = [(WORKING_DIRECTORY, "cwd"), ("root directory", "root")];
    let links = links.map(|(how, name)| (how, process.join(name)));
    let descriptors = fs::read_dir(process.join("fd")).into_iter().flatten();
    let descriptors = descriptors.flatten().map(|fd| ("open file", fd.path()));
    let linked = links
        .into_iter()
        .chain(descriptors)
        .filter_map(|(how, link)| Some((how, fs::read_link(link).ok()?)));
    let maps = fs::read_to_string(process.join("maps")).unwrap_or_default();
    let mapped = maps
        .lines()
        .filter_map(|line| Some(("mapped file", PathBuf::from(&line[line.find('/')?..]))));
    linked
        .chain(mapped)
        .find(|(_, path)| path.starts_with(mountpoint))
}
