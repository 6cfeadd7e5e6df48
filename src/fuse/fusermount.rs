//! `fusermount3`, the setuid helper through which users without privileges mount and unmount.

use std::ffi::OsStr;
use std::io::{self, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::fs::StatVfsMountFlags;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use crate::error::setting::ALLOW_OTHER;
use crate::error::{Code, Error, Hint, Result};
use crate::shown::Show;

/// The helper's names: that of libfuse 3, and what some systems call it.
const NAMES: [&str; 2] = ["fusermount3", "fusermount"];

/// Where the helper finds the socket over which it sends the device.
const SOCKET_VARIABLE: &str = "_FUSE_COMMFD";

/// What configures the helper.
pub(super) const CONFIG: &str = "/etc/fuse.conf";

/// What to do where it is missing.
pub(super) const INSTALL: &str = "install the package fuse3";

/// The installed helper.
pub(super) fn installed() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let directories: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let mut candidates = NAMES.iter().flat_map(|name| {
        directories
            .iter()
            .map(move |directory| directory.join(name))
    });
    candidates.find(|path| path.is_file())
}

/// Why the helper at `path` gains no powers when it is started, and the cure.
pub(super) fn powerless(path: &Path) -> Option<Error> {
    let powerless = |problem: &str| Error::of_file(Code::NoHelper, path, problem);
    let metadata = path.metadata().ok()?;
    let shown = path.shown();
    if metadata.mode() & 0o4000 == 0 || metadata.uid() != 0 {
        let cure = format!("as root, chown root {shown} && chmod u+s {shown}");
        return Some(powerless("this helper is not setuid root").with_hint(cure));
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if status.lines().any(|line| line == "NoNewPrivs:\t1") {
        let problem =
            "this helper is setuid, but the process must not gain privileges (no_new_privs)";
        return Some(powerless(problem).with_hint(
            "run it without --security-opt no-new-privileges (container) or NoNewPrivileges (systemd)",
        ));
    }
    let filesystem = rustix::fs::statvfs(path).ok()?;
    let is_nosuid = filesystem.f_flag.contains(StatVfsMountFlags::NOSUID);
    is_nosuid.then(|| {
        powerless(
            "this helper is on a filesystem that is mounted nosuid, so it gains no privileges",
        )
        .with_hint("install it elsewhere")
    })
}

/// Whether the helper lets users have `allow_other`.
pub(super) fn allows_other() -> bool {
    let config = std::fs::read_to_string(CONFIG).unwrap_or_default();
    config.lines().any(|line| line.trim() == "user_allow_other")
}

/// Mounts on `mountpoint` with comma-separated `options`; gives the opened FUSE device.
pub(super) fn mount(mountpoint: &Path, options: &OsStr) -> Result<OwnedFd> {
    let failed = |e: io::Error| Error::io("mount with the helper fusermount3", mountpoint, e);
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    // The socket goes to the helper as its standard input, the one way to hand a descriptor to a
    // child that no other child started meanwhile can inherit too.
    let mut helper = spawn(|command| {
        command.arg("-o").arg(options).arg("--").arg(mountpoint);
        command.env(SOCKET_VARIABLE, "0");
        Ok(command.stdin(OwnedFd::from(theirs.try_clone()?)))
    })
    .map_err(failed)?
    .ok_or_else(|| {
        let problem =
            "mounting needs root or a helper, and the helper fusermount3 is not installed";
        Error::new(Code::NoHelper, problem).with_hint(INSTALL)
    })?;
    drop(theirs);
    let device = receive(&ours);
    let message = finish(&mut helper).map_err(failed)?;
    match device {
        Ok(Some(device)) => Ok(device),
        Ok(None) => Err(refused(mountpoint, &message)),
        Err(e) => Err(failed(e)),
    }
}

/// Unmounts `mountpoint`; `lazy` detaches it even if it is in use.
///
/// # Errors
/// [`io::ErrorKind::ResourceBusy`] if it is in use and not `lazy`.
pub(super) fn unmount(mountpoint: &Path, lazy: bool) -> io::Result<()> {
    let helper = spawn(|command| {
        let flags = if lazy { "-uz" } else { "-u" };
        Ok(command.arg(flags).arg("--").arg(mountpoint))
    })?;
    let mut helper = helper.ok_or_else(|| {
        io::Error::other("this needs root or the helper fusermount3, which is not installed")
    })?;
    let message = finish(&mut helper)?;
    if helper.wait()?.success() {
        Ok(())
    } else if message.contains("busy") {
        Err(io::ErrorKind::ResourceBusy.into())
    } else {
        Err(io::Error::other(message))
    }
}

/// Starts the helper as `prepare` wants it, or gives `None` if it is not installed.
fn spawn(
    prepare: impl for<'a> Fn(&'a mut Command) -> io::Result<&'a mut Command>,
) -> io::Result<Option<Child>> {
    for name in NAMES {
        let mut command = Command::new(name);
        // Messages are matched, so they must not be translated.
        command.env("LC_ALL", "C").stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        match prepare(&mut command)?.spawn() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            result => return result.map(Some),
        }
    }
    Ok(None)
}

/// Waits for the helper to end; gives what it had to say.
fn finish(helper: &mut Child) -> io::Result<String> {
    let mut message = String::new();
    if let Some(stderr) = &mut helper.stderr {
        stderr.read_to_string(&mut message)?;
    }
    helper.wait()?;
    Ok(message.trim().to_owned())
}

/// Receives the device, or `None` if the helper ended without sending it.
fn receive(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    rustix::io::retry_on_intr(|| {
        let data = &mut [IoSliceMut::new(&mut byte)];
        rustix::net::recvmsg(socket, data, &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    let device = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    Ok(device)
}

fn refused(mountpoint: &Path, message: &str) -> Error {
    let error = Error::of_file(
        Code::MountRefused,
        mountpoint,
        format!("the mount was refused: {message}"),
    );
    if message.contains("user_allow_other") {
        let hint = Hint::text(format!(
            "have root add the line user_allow_other to {CONFIG}, or mount as root"
        ));
        return error.with_hint(hint.or(Hint::leave_out(ALLOW_OTHER)));
    }
    let powerless = installed().and_then(|helper| powerless(&helper));
    match powerless {
        Some(powerless) => error.because(vec![powerless.into()]),
        None if message.contains("not permitted") => {
            error.with_hint("in a container, run it with --device /dev/fuse --cap-add SYS_ADMIN")
        }
        None => error,
    }
}
