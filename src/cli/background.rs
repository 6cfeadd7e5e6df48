//! Going into the background, with the outcome reported by the process that stays in front.

use std::io::{PipeReader, PipeWriter, Read, Write};

use anyhow::Context;
use ckptfs::error::{Code, Error};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

use crate::cli::messages::{self, Said};

/// Which of the two processes this is after [`split`].
pub(crate) enum Process {
    /// The one that was started; the other one is ready.
    Front,
    /// The one that continues in the background and must report how its start went.
    Background(Readiness),
}

/// The line to the process in front, which waits for one word on it.
pub(crate) struct Readiness(PipeWriter);

/// The word for success. Anything else is the text of an error.
const READY: &[u8] = b"\0";

/// Splits off a background process and waits until it is ready. The earlier, the better: memory that
/// both have is copied when either writes to it. Until [`Readiness::leave_terminal`] the background
/// process writes to the same terminal, and ends with the one in front.
///
/// # Errors
/// What the background process says, or how it ended if it said nothing.
pub(crate) fn split() -> anyhow::Result<Process> {
    let (from_background, to_front) = std::io::pipe().context("cannot make a pipe")?;
    debug_assert_eq!(std::fs::read_dir("/proc/self/task")?.count(), 1);
    // SAFETY: there are no other threads yet, so the child is a whole copy of this process: no
    // lock is held in it by a thread that it does not have.
    match unsafe { libc::fork() } {
        -1 => Err(std::io::Error::last_os_error()).context("cannot start a background process"),
        0 => {
            drop(from_background);
            rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
            Ok(Process::Background(Readiness(to_front)))
        }
        child => {
            drop(to_front);
            wait_for(child, from_background)
        }
    }
}

impl Readiness {
    /// Makes this process independent of the one in front, and of the terminal and session that it
    /// was started in: standard input, output and error are `/dev/null` from here on.
    pub(crate) fn leave_terminal(&self) -> anyhow::Result<()> {
        rustix::process::setsid()?;
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stdout(&null)?;
        rustix::stdio::dup2_stderr(&null)?;
        rustix::process::set_parent_process_death_signal(None)?;
        Ok(())
    }

    pub(crate) fn ready(self) {
        self.tell(READY);
    }

    pub(crate) fn failed(self, error: &anyhow::Error) {
        self.tell(messages::said(error).as_bytes());
    }

    fn tell(mut self, word: &[u8]) {
        // If the process in front was killed, nobody is left to be told.
        if let Err(error) = self.0.write_all(word) {
            log::warn!("nobody waits for this process to be ready: {error}");
        }
    }
}

fn wait_for(child: i32, mut from_background: PipeReader) -> anyhow::Result<Process> {
    let mut word = Vec::new();
    from_background.read_to_end(&mut word)?;
    if word == READY {
        return Ok(Process::Front);
    }
    let status = rustix::process::waitpid(Pid::from_raw(child), WaitOptions::empty())?;
    if word.is_empty() {
        let how = status.map_or_else(String::new, |(_, status)| how_it_ended(status));
        let problem = format!("the background process ended before it was ready{how}");
        return Err(Error::new(Code::NotServing, problem).into());
    }
    Err(Said::elsewhere(String::from_utf8_lossy(&word).into_owned()).into())
}

/// The signal or the status with which a process ended, after what is said of it.
fn how_it_ended(status: WaitStatus) -> String {
    match (status.terminating_signal(), status.exit_status()) {
        (Some(signal), _) => format!(", by signal {signal}"),
        (_, Some(code)) => format!(", with status {code}"),
        _ => String::new(),
    }
}
