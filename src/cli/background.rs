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

/// How the start of the background process went: what it writes to the process in front.
#[derive(Debug, PartialEq, Eq)]
enum Word {
    Ready,
    Failed(Said),
}

/// The first byte of a word; of a failure, the text follows.
const READY: u8 = b'+';
const FAILED: u8 = b'-';
const FAILED_FOR_NOW: u8 = b'~';

impl Word {
    fn to_bytes(&self) -> Vec<u8> {
        match self {
            Word::Ready => vec![READY],
            Word::Failed(said) => {
                let kind = match said.may_pass() {
                    true => FAILED_FOR_NOW,
                    false => FAILED,
                };
                [&[kind], said.to_string().as_bytes()].concat()
            }
        }
    }

    /// None if the process ended before it had said any of it.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (kind, text) = bytes.split_first()?;
        if *kind == READY {
            return Some(Word::Ready);
        }
        let text = String::from_utf8_lossy(text).into_owned();
        let may_pass = *kind == FAILED_FOR_NOW;
        Some(Word::Failed(Said::elsewhere(text, may_pass)))
    }
}

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
        self.send(&Word::Ready);
    }

    pub(crate) fn failed(self, error: &anyhow::Error) {
        let said = Said::elsewhere(messages::said(error), messages::may_pass(error));
        self.send(&Word::Failed(said));
    }

    fn send(mut self, word: &Word) {
        // If the process in front was killed, nobody is left to read it.
        if let Err(error) = self.0.write_all(&word.to_bytes()) {
            log::warn!("nobody waits for this process to be ready: {error}");
        }
    }
}

fn wait_for(child: i32, mut from_background: PipeReader) -> anyhow::Result<Process> {
    let mut word = Vec::new();
    from_background.read_to_end(&mut word)?;
    let word = Word::from_bytes(&word);
    if word == Some(Word::Ready) {
        return Ok(Process::Front);
    }
    let status = rustix::process::waitpid(Pid::from_raw(child), WaitOptions::empty())?;
    if let Some(Word::Failed(said)) = word {
        return Err(said.into());
    }
    let how = status.map_or_else(String::new, |(_, status)| how_it_ended(status));
    let problem = format!("the background process ended before it was ready{how}");
    Err(Error::new(Code::NotServing, problem).into())
}

/// The signal or the status with which a process ended, after what is said of it.
fn how_it_ended(status: WaitStatus) -> String {
    match (status.terminating_signal(), status.exit_status()) {
        (Some(signal), _) => format!(", by signal {signal}"),
        (_, Some(code)) => format!(", with status {code}"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_read_as_it_was_sent_and_silence_is_none() {
        let failed = |may_pass| Word::Failed(Said::elsewhere("error[io]: é".to_owned(), may_pass));
        for word in [Word::Ready, failed(true), failed(false)] {
            assert_eq!(Word::from_bytes(&word.to_bytes()), Some(word));
        }
        assert_eq!(Word::from_bytes(b""), None);
    }
}
