//! The process that serves the mount, and what it takes.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::connection::Connection;
use crate::fixture::{CACHE_BYTES, Fixture};

/// What it may take besides its cache.
const REST_BYTES: u64 = 100 << 20;

/// How long anything may take that has no reason to take long, on a machine with much to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A mount in the foreground. What it takes is what it took at most.
#[derive(Debug)]
pub(crate) struct Daemon {
    process: Child,
    program: PathBuf,
    mountpoint: PathBuf,
    connection: Option<Connection>,
    /// Answers before the first reader.
    answers_before: u64,
    rss: u64,
    /// At most in the warm-up, and since.
    descriptors: [usize; 2],
    threads: [usize; 2],
}

/// What a mount took and did.
#[derive(Debug)]
pub(crate) struct Figures {
    answers: u64,
    rss: u64,
    descriptors: usize,
    threads: usize,
    waiting: Option<u64>,
}

impl Daemon {
    pub(crate) fn mount(program: &Path, fixture: &Fixture) -> Self {
        let mountpoint = fixture.mountpoint();
        let mut command = Command::new(program);
        command.args(["mount", "--foreground", "--no-passthrough"]);
        command.args(["--cache-size", &CACHE_BYTES.to_string()]);
        command.args(fixture.flags()).arg(&mountpoint);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let process = command.spawn().unwrap();
        let before = fs::metadata(&mountpoint).unwrap().dev();
        eventually("the view is mounted", || {
            fs::metadata(&mountpoint).unwrap().dev() != before
        });
        let mut daemon = Daemon {
            process,
            program: program.to_owned(),
            // Not for every user.
            connection: Connection::of(&mountpoint).ok(),
            mountpoint,
            answers_before: 0,
            rss: 0,
            descriptors: [0; 2],
            threads: [0; 2],
        };
        daemon.answers_before = daemon.answers();
        daemon
    }

    /// Looks at what the process takes now, and asserts that it is not too much.
    pub(crate) fn sample(&mut self, is_warm: bool) {
        let ended = self.process.try_wait().unwrap();
        assert_eq!(ended, None, "the process that serves the mount has ended");
        let rss = self.number("status", "VmRSS:") << 10;
        let count = |name: &str| fs::read_dir(self.proc(name)).unwrap().count();
        let (descriptors, threads) = (count("fd"), count("task"));
        self.rss = self.rss.max(rss);
        let phase = usize::from(is_warm);
        self.descriptors[phase] = self.descriptors[phase].max(descriptors);
        self.threads[phase] = self.threads[phase].max(threads);
        let most = CACHE_BYTES + REST_BYTES;
        assert!(rss <= most, "{rss} bytes of memory are more than {most}");
        for (what, [before, since]) in
            [("descriptors", self.descriptors), ("threads", self.threads)]
        {
            assert!(since <= before, "{since} {what}, {before} in the warm-up");
        }
    }

    /// Takes the mount away, which nobody uses any more.
    pub(crate) fn unmount(mut self) -> Figures {
        if let Some(connection) = &self.connection {
            eventually("all requests are answered", || connection.waiting() == 0);
        }
        let figures = Figures {
            answers: self.answers() - self.answers_before,
            rss: self.rss,
            descriptors: self.descriptors.into_iter().max().unwrap_or(0),
            threads: self.threads.into_iter().max().unwrap_or(0),
            waiting: self.connection.as_ref().map(Connection::waiting),
        };
        let mut unmount = Command::new(&self.program);
        let status = unmount.arg("unmount").arg(&self.mountpoint).status();
        assert!(status.unwrap().success(), "it can be unmounted");
        let mut status = None;
        eventually("the process ends", || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        });
        assert!(status.is_some_and(|status| status.success()), "{status:?}");
        figures
    }

    fn proc(&self, name: &str) -> PathBuf {
        format!("/proc/{}/{name}", self.process.id()).into()
    }

    /// The number that stands behind `key` in a file of the process.
    fn number(&self, file: &str, key: &str) -> u64 {
        let text = fs::read_to_string(self.proc(file)).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        let word = line.and_then(|rest| rest.split_whitespace().next());
        word.expect("the key is there").parse().unwrap()
    }

    /// Answers that it gave to the kernel: it writes nothing else.
    fn answers(&self) -> u64 {
        self.number("io", "syscw:")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures {
            answers,
            rss,
            descriptors,
            threads,
            waiting,
        } = self;
        let mib = *rss as f64 / f64::from(1 << 20);
        let waiting = match waiting {
            Some(count) => format!("{count} requests waiting at the end"),
            None => "requests that wait are for root to see".to_owned(),
        };
        write!(
            f,
            "the serving process: {answers} answers, {mib:.1} MiB of memory, {descriptors} \
             descriptors and {threads} threads at most; {waiting}"
        )
    }
}

/// Waits for `condition`.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
