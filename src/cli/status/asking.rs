//! Asks mounts that may never answer. A process that waits for a filesystem cannot always be killed, so
//! a separate process asks each mount, and is abandoned if it does not return.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;

use ckptfs::error::Code;
use ckptfs::fuse::{self, Answer, HoldingProcess, OurMount};

use crate::cli::messages;

/// What was learned of a mount in time.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) answer: Option<Answer>,
    pub(crate) readers: Option<Vec<HoldingProcess>>,
}

/// Asks all of `mounts` at once, and waits no longer than `timeout`.
pub(crate) fn ask(mounts: &[OurMount], timeout: Duration) -> Vec<Outcome> {
    let deadline = Instant::now() + timeout;
    let asked = mounts.iter().map(|mount| {
        if mount.covered {
            None
        } else {
            Some(Asked::start(&mount.mountpoint))
        }
    });
    let asked: Vec<_> = asked.collect();
    let outcomes = asked.into_iter().map(|asked| match asked {
        None => Outcome::default(),
        Some(Ok(asked)) => asked.outcome(deadline),
        Some(Err(error)) => Outcome {
            answer: Some(unasked(&error)),
            readers: None,
        },
    });
    outcomes.collect()
}

/// Asks `mount` for its figures alone, and waits no longer than `timeout`.
pub(crate) fn ask_for_figures(mount: &OurMount, timeout: Duration) -> Option<Answer> {
    match Asked::start(&mount.mountpoint) {
        Ok(asked) => asked.next(Instant::now() + timeout),
        Err(error) => Some(unasked(&error)),
    }
}

/// The answer where no process could be started to ask.
fn unasked(error: &anyhow::Error) -> Answer {
    let (code, why) = messages::parts(error);
    Answer::Unreadable {
        code: code.unwrap_or(Code::Internal),
        why,
    }
}

/// A process that asks, and the lines that it prints.
struct Asked {
    process: Arc<Mutex<Child>>,
    lines: Receiver<String>,
}

impl Asked {
    fn start(mountpoint: &Path) -> anyhow::Result<Self> {
        // This program, also where its file was replaced meanwhile.
        let mut command = Command::new("/proc/self/exe");
        command.arg0("ckptfs").args(["status", "--ask"]);
        // Not the directory of this process, which may lie in the mount.
        command.current_dir("/").stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().context("cannot start a process to ask")?;
        // Not as an argument: whoever looks for the serving process finds it by the mountpoint.
        let mut input = process.stdin.take().context("it has no input")?;
        input.write_all(mountpoint.as_os_str().as_bytes())?;
        drop(input);
        let output = process.stdout.take().context("it has no output")?;
        let process = Arc::new(Mutex::new(process));
        let (tell, lines) = mpsc::channel();
        let asking = process.clone();
        let read = move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                // Nobody may wait any more.
                let _ = tell.send(line);
            }
            // It ends or was killed; where it cannot be, its output stays open.
            let _ = asking.lock().wait();
        };
        thread::Builder::new().spawn(read)?;
        Ok(Asked { process, lines })
    }

    fn outcome(&self, deadline: Instant) -> Outcome {
        Outcome {
            answer: self.next(deadline),
            readers: self.next(deadline),
        }
    }

    /// What the next line says, if it comes in time.
    fn next<T: DeserializeOwned>(&self, deadline: Instant) -> Option<T> {
        let left = deadline.saturating_duration_since(Instant::now());
        let line = self.lines.recv_timeout(left).ok()?;
        serde_json::from_str(&line).ok()
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        // Where the mount does not answer, it may go only once that is gone.
        let _ = self.process.lock().kill();
    }
}

/// The other side: prints what is learned of the mount that standard input names, in a line as soon as
/// it is.
pub(super) fn answer() -> anyhow::Result<()> {
    // It would be called after the path that it was started by.
    rustix::thread::set_name(c"ckptfs")?;
    let mut mountpoint = Vec::new();
    std::io::stdin().read_to_end(&mut mountpoint)?;
    let mountpoint = Path::new(OsStr::from_bytes(&mountpoint));
    let mut output = std::io::stdout().lock();
    let mut tell = |line: String| writeln!(output, "{line}").and_then(|()| output.flush());
    tell(serde_json::to_string(&fuse::ask(mountpoint))?)?;
    tell(serde_json::to_string(&fuse::holding_processes(
        mountpoint,
    )?)?)?;
    Ok(())
}
