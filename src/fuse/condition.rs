//! Whether a mount answers, and the process that serves it: found out without waiting for the
//! mount.

use std::ffi::CString;
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::error::setting::LAZY;
use crate::error::{Code, Error, Hint};
use crate::fuse::mount_table::MountEntry;
use crate::shown::Show;
use crate::source::with_room;

/// How long to wait for an answer of a mount, all of whose threads may be busy, and for what `/proc`
/// has of a process, some of which cannot be read while the process waits for a mount.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// How a mount is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    Answers,
    /// The process that served it is gone.
    Dead,
    /// It did not answer in time.
    Silent,
}

impl Condition {
    /// That of the mount at `mountpoint`.
    ///
    /// # Errors
    /// If it cannot be asked.
    pub(super) fn probe(mountpoint: &Path) -> io::Result<Self> {
        Ok(match ask(mountpoint, PATIENCE)? {
            None => Condition::Silent,
            Some(libc::ENOTCONN | libc::ECONNABORTED) => Condition::Dead,
            Some(_) => Condition::Answers,
        })
    }
}

/// The error number with which the mount at `mountpoint` answers, 0 if it is well; `None` if it does
/// not within `patience`. It is asked by a process of its own: who waits for a filesystem cannot
/// always be ended, and a process with such a thread would not end either.
fn ask(mountpoint: &Path, patience: Duration) -> io::Result<Option<i32>> {
    let path = CString::new(mountpoint.as_os_str().as_bytes())?;
    let (mut answer, told) = with_room(io::pipe)?;
    // SAFETY: the child only makes system calls and ends, as `ask_and_end` says.
    let child = match unsafe { libc::fork() } {
        -1 => return Err(io::Error::last_os_error()),
        0 => ask_and_end(&path, told.as_raw_fd()),
        child => Pid::from_raw(child).expect("a process has a number"),
    };
    drop(told);
    let read = move || {
        let mut bytes = [0; size_of::<i32>()];
        answer.read_exact(&mut bytes).ok()?;
        Some(i32::from_ne_bytes(bytes))
    };
    let answered = in_time(patience, read).flatten();
    // It may have ended, but its number is not used again before it is waited for.
    let _ = kill_process(child, Signal::KILL);
    // Where it cannot be killed, it ends with the mount.
    let reap = move || waitpid(Some(child), WaitOptions::empty());
    if answered.is_some() {
        let _ = reap();
    } else {
        let _ = thread::Builder::new().spawn(reap);
    }
    Ok(answered)
}

/// What a forked process does, in which no lock may be taken and nothing allocated: asks the kernel
/// for the size of the filesystem at `path`, which it always asks the filesystem for, and writes the
/// error number to `told`.
fn ask_and_end(path: &CString, told: RawFd) -> ! {
    // SAFETY: system calls with a path and structs that live, of a process that has one thread. The
    // descriptors that it closes are its own copies, which nothing here uses.
    unsafe {
        // If this hangs, no file, connection or directory of the other process shall be held.
        libc::dup2(told, 0);
        libc::syscall(libc::SYS_close_range, 1, u32::MAX, 0);
        libc::chdir(c"/".as_ptr());
        let mut size = std::mem::zeroed::<libc::statfs>();
        let error = match libc::statfs(path.as_ptr(), &mut size) {
            0 => 0,
            _ => *libc::__errno_location(),
        };
        libc::write(0, (&raw const error).cast(), size_of_val(&error));
        libc::_exit(0)
    }
}

/// A process that serves a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServingProcess {
    pub pid: u32,
    /// Its command line, or if that cannot be read, its name.
    pub command: String,
    /// Whether it was stopped by a signal, or by a debugger.
    pub stopped: bool,
}

impl fmt::Display for ServingProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ServingProcess { pid, command, .. } = self;
        if self.stopped {
            write!(f, "process {pid} ({command}), which is stopped")
        } else {
            write!(f, "process {pid} ({command})")
        }
    }
}

/// The name of a thread of the process that serves the filesystem `device`, by which the process is
/// found: what a mount would say of it, it may not say any more.
pub(super) fn session_name(device: &str) -> String {
    format!("fuse {device}")
}

/// The process that serves `mount`, if this user can see it from here.
pub(super) fn serving_process(mount: &MountEntry) -> Option<ServingProcess> {
    let name = session_name(&mount.device);
    in_time(PATIENCE, move || {
        let processes = fs::read_dir("/proc").ok()?.flatten();
        let mut processes = processes.filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            Some((pid, entry.path()))
        });
        let (pid, process) = processes.find(|(_, process)| {
            let tasks = fs::read_dir(process.join("task"));
            let mut tasks = tasks.into_iter().flatten().flatten();
            tasks.any(|task| {
                let found = fs::read_to_string(task.path().join("comm"));
                found.is_ok_and(|found| found.trim_end() == name)
            })
        })?;
        Some(describe(pid, &process))
    })
    .flatten()
}

fn describe(pid: u32, process: &Path) -> ServingProcess {
    let read = |name| fs::read(process.join(name)).unwrap_or_default();
    let mut command = read("cmdline");
    if command.is_empty() {
        command = read("comm");
    }
    let command = command.trim_ascii_end();
    let command = command.strip_suffix(b"\0").unwrap_or(command);
    let command = String::from_utf8_lossy(command).replace('\0', " ");
    // The state follows the name, which is in brackets and may hold any.
    let stat = read("stat");
    let after_name = stat.iter().rposition(|byte| *byte == b')');
    let state = after_name.and_then(|end| stat.get(end + 2));
    ServingProcess {
        pid,
        command,
        stopped: matches!(state, Some(b'T' | b't')),
    }
}

/// What `look` returns, if it does within `patience`. Its thread is left behind otherwise, so it may
/// only wait for what ends with this process: not for a mount itself.
pub(super) fn in_time<T: Send + 'static>(
    patience: Duration,
    look: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (tell, found) = mpsc::channel();
    // Nobody may wait any more.
    let looking = move || drop(tell.send(look()));
    thread::Builder::new().spawn(looking).ok()?;
    found.recv_timeout(patience).ok()
}

/// The error that `mount`, about which there is `problem` for `path`, does not answer.
pub(super) fn silent(path: &Path, problem: &str, mount: &MountEntry) -> Error {
    let server = match serving_process(mount) {
        Some(server) => server.to_string(),
        None => "a process that this user cannot see".to_owned(),
    };
    let problem = format!("{problem} and does not answer; it is served by {server}");
    let detach = Hint::give_value(LAZY, mount.mountpoint.shown().to_string());
    Error::of_file(Code::MountHangs, path, problem)
        .with_hint(Hint::text("continue or end that process").or(detach.to("detach the view")))
}
