//! What this machine has for mounts by this user, and what is missing, before anything is mounted.

use std::fs;

use rustix::fs::Access;
use rustix::process::{Resource, getrlimit};
use rustix::thread::CapabilitySet;
use serde::Serialize;

use crate::error::{Code, Error, Spelling};
use crate::fast_paths::FastPath;
use crate::fuse::mount::{DEVICE, open_device};
use crate::fuse::{fusermount, prefetch, server};
use crate::shown::Show;

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Mounts work without it.
    Warn,
    /// Mounts need it.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub level: Level,
    /// What there is, and where that is not enough, the cure.
    pub found: String,
    /// What its lack costs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<&'static str>,
    /// Of what mounts need, the kind of what is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
}

impl Check {
    /// Something that is as it should be.
    pub fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Check {
            name,
            level: Level::Ok,
            found: found.into(),
            cost: None,
            code: None,
        }
    }

    /// Something that mounts work without.
    pub fn warn(name: &'static str, found: impl Into<String>, cost: &'static str) -> Self {
        Check {
            level: Level::Warn,
            cost: Some(cost),
            ..Check::ok(name, found)
        }
    }

    /// Something that mounts need.
    pub fn fail(name: &'static str, code: Code, found: impl Into<String>) -> Self {
        Check {
            level: Level::Fail,
            code: Some(code),
            ..Check::ok(name, found)
        }
    }
}

/// Looks at all that mounts depend on. Nothing is changed. Settings are written by `spelling`.
pub fn checkup(spelling: Spelling) -> Vec<Check> {
    let can_mount = rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN));
    let mut checks = vec![kernel(), device(spelling), privileges(can_mount, spelling)];
    checks.push(allow_other(can_mount));
    checks.push(match server::obstacle() {
        None => Check::ok(
            "passthrough",
            "the kernel may read whole source files by itself",
        ),
        Some(obstacle) => Check::warn(
            "passthrough",
            obstacle,
            "files that are whole source files are read through ckptfs, with a copy more",
        ),
    });
    checks.push(read_ahead());
    checks.extend(prefetch::room().map(|room| {
        let found = format!(
            "up to {} GiB of a mount's files fit into memory",
            room >> 30
        );
        Check::ok("prefetch", found)
    }));
    checks.push(open_files());
    checks.push(address_space());
    checks
}

fn kernel() -> Check {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let filesystems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let has_fuse = filesystems.lines().any(|line| line.ends_with("\tfuse"));
    if has_fuse {
        Check::ok("kernel", format!("Linux {release}, with FUSE"))
    } else {
        Check::warn(
            "kernel",
            format!("Linux {release}, FUSE not loaded: modprobe fuse"),
            "the first mount works only if the kernel loads the module by itself",
        )
    }
}

fn device(spelling: Spelling) -> Check {
    match open_device() {
        Ok(_) => Check::ok(DEVICE, "can be opened"),
        Err(error) => Check::fail(DEVICE, error.code(), said(&error, spelling)),
    }
}

/// Without the file that it is about.
fn said(error: &Error, spelling: Spelling) -> String {
    match error.hint() {
        Some(hint) => format!("{}; {}", error.problem(), hint.spelled(spelling)),
        None => error.problem().to_owned(),
    }
}

/// Root's power, or the helper that has it.
fn privileges(can_mount: bool, spelling: Spelling) -> Check {
    const NAME: &str = "privileges";
    if can_mount {
        return Check::ok(NAME, "this process may mount by itself (CAP_SYS_ADMIN)");
    }
    let Some(helper) = fusermount::installed() else {
        return Check::fail(
            NAME,
            Code::NoHelper,
            format!(
                "the helper fusermount3 is not installed; {}",
                fusermount::INSTALL
            ),
        );
    };
    match fusermount::powerless(&helper) {
        Some(error) => Check::fail(NAME, error.code(), error.spelled(spelling)),
        None => Check::ok(NAME, format!("mounts go through {}", helper.shown())),
    }
}

fn allow_other(can_mount: bool) -> Check {
    const NAME: &str = "allow-other";
    if can_mount || fusermount::allows_other() {
        return Check::ok(NAME, "other users can be let in");
    }
    Check::warn(
        NAME,
        format!(
            "other users cannot be let in: have root add the line user_allow_other to {}",
            fusermount::CONFIG
        ),
        "mounts for other users are refused; a mount is for this user alone, not even for root",
    )
}

fn read_ahead() -> Check {
    const NAME: &str = "read-ahead";
    const COST: &str = "sequential reads take more requests, and are slower";
    if !FastPath::ReadAhead.is_enabled() {
        return Check::warn(NAME, "it is switched off by the environment", COST);
    }
    let devices = fs::read_dir("/sys/class/bdi")
        .into_iter()
        .flatten()
        .flatten();
    let mut settings = devices.map(|device| device.path().join("read_ahead_kb"));
    let Some(setting) = settings.next() else {
        return Check::warn(NAME, "/sys/class/bdi is not there: mount sysfs", COST);
    };
    match rustix::fs::access(&setting, Access::WRITE_OK) {
        Ok(()) => Check::ok(NAME, "the kernel can be told to read further ahead"),
        Err(_) => Check::warn(
            NAME,
            "only root may have the kernel read further ahead, where /sys is writable; ckptfs computes ahead instead",
            COST,
        ),
    }
}

/// Sources stay open, as far as half of the limit goes.
fn open_files() -> Check {
    const NAME: &str = "open files";
    const ENOUGH: u64 = 1024;
    match getrlimit(Resource::Nofile).maximum {
        Some(most) if most < ENOUGH => Check::warn(
            NAME,
            format!("at most {most}: raise the hard limit (ulimit -Hn, LimitNOFILE)"),
            "half of them are for sources; where a view reads from more files than that, they are opened again and again",
        ),
        Some(most) => Check::ok(NAME, format!("up to {most}")),
        None => Check::ok(NAME, "without limit"),
    }
}

/// Threads and the cache take address space.
fn address_space() -> Check {
    const NAME: &str = "address space";
    match getrlimit(Resource::As).current {
        Some(bytes) => Check::warn(
            NAME,
            format!("limited to {} MiB (ulimit -v)", bytes >> 20),
            "mounts whose threads and cache do not fit are refused or fail: use fewer threads, or a smaller cache",
        ),
        None => Check::ok(NAME, "without limit"),
    }
}
