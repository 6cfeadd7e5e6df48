//! The processes that read, some of which are killed.

use std::array;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::values::Random;
use crate::daemon::{PATIENCE, eventually};
use crate::tally::Tally;
use crate::worker::THREADS;

const PROCESSES: usize = 8;

/// How long one is left alone before one is killed.
const BETWEEN_KILLS: Duration = Duration::from_secs(2);

/// Processes that read, which are stopped when this is dropped.
#[derive(Debug)]
pub(crate) struct Fleet {
    mount: PathBuf,
    oracle: PathBuf,
    workers: [Worker; PROCESSES],
    reports: Receiver<Report>,
    reporter: Sender<Report>,
    /// Of those that are no more.
    past: Tally,
    started: u64,
    kills: u64,
    last_kill: Instant,
    random: Random,
}

/// What process number `.0` of all that were started says.
type Report = (u64, [Tally; THREADS]);

#[derive(Debug)]
struct Worker {
    number: u64,
    process: Child,
    /// It ends when this is closed.
    input: Option<ChildStdin>,
    tallies: [Tally; THREADS],
    /// When each thread was last seen to go on.
    progress: [Instant; THREADS],
}

impl Fleet {
    pub(crate) fn start(mount: PathBuf, oracle: PathBuf) -> Self {
        let (reporter, reports) = mpsc::channel();
        let workers = array::from_fn(|i| Worker::start(i as u64, &mount, &oracle, &reporter));
        Fleet {
            mount,
            oracle,
            workers,
            reports,
            reporter,
            past: Tally::default(),
            started: PROCESSES as u64,
            kills: 0,
            last_kill: Instant::now(),
            random: Random::new(0),
        }
    }

    /// Listens for a moment, asserts that all go on, and kills one when it is time.
    pub(crate) fn attend(&mut self) {
        const MOMENT: Duration = Duration::from_millis(500);
        let start = Instant::now();
        while let Ok(report) = self
            .reports
            .recv_timeout(MOMENT.saturating_sub(start.elapsed()))
        {
            self.hear(report);
        }
        for worker in &mut self.workers {
            let ended = worker.process.try_wait().unwrap();
            assert_eq!(ended, None, "a reader has found a fault");
            let stuck = worker.progress.iter().any(|last| last.elapsed() > PATIENCE);
            assert!(!stuck, "a reader does not go on: {worker:?}");
        }
        if self.last_kill.elapsed() >= BETWEEN_KILLS {
            self.last_kill = Instant::now();
            self.kill_one();
        }
    }

    /// All that was read, as far as it was told.
    pub(crate) fn tally(&self) -> Tally {
        let mut sum = self.past.clone();
        let tallies = self.workers.iter().flat_map(|worker| &worker.tallies);
        tallies.for_each(|tally| sum.add(tally));
        sum
    }

    pub(crate) fn kills(&self) -> u64 {
        self.kills
    }

    /// Has all of them end.
    pub(crate) fn stop(mut self) -> Tally {
        for worker in &mut self.workers {
            drop(worker.input.take());
        }
        for worker in &mut self.workers {
            let mut status = None;
            eventually("a reader ends", || {
                status = worker.process.try_wait().unwrap();
                status.is_some()
            });
            assert!(status.is_some_and(|status| status.success()), "{status:?}");
        }
        // Every process has closed its output; what listened to it ends too.
        let (unused, _) = mpsc::channel();
        self.reporter = unused;
        while let Ok(report) = self.reports.recv() {
            self.hear(report);
        }
        self.tally()
    }

    fn hear(&mut self, (number, tallies): Report) {
        let mut workers = self.workers.iter_mut();
        // Those that were killed are not heard any more.
        let Some(worker) = workers.find(|worker| worker.number == number) else {
            return;
        };
        for (thread, tally) in tallies.into_iter().enumerate() {
            if worker.tallies[thread] != tally {
                worker.tallies[thread] = tally;
                worker.progress[thread] = Instant::now();
            }
        }
    }

    /// Kills any one, in the midst of what it reads, and starts another in its place.
    fn kill_one(&mut self) {
        let worker = &mut self.workers[self.random.below(PROCESSES)];
        worker.process.kill().unwrap();
        eventually("a killed reader is gone", || {
            worker.process.try_wait().unwrap().is_some()
        });
        worker.tallies.iter().for_each(|tally| self.past.add(tally));
        *worker = Worker::start(self.started, &self.mount, &self.oracle, &self.reporter);
        self.started += 1;
        self.kills += 1;
    }
}

impl Worker {
    fn start(number: u64, mount: &Path, oracle: &Path, reporter: &Sender<Report>) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .arg("worker")
            .args([mount, oracle])
            .arg(number.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // Where a wrong byte was noticed tells nothing.
        command.env("RUST_BACKTRACE", "0");
        let mut process = command.spawn().unwrap();
        let output = process.stdout.take().expect("it is piped");
        let reporter = reporter.clone();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                // Lines are short enough to be written at once, so that a kill cuts none off.
                let tallies = line.split(',').map(|text| text.parse().unwrap());
                let tallies: Vec<Tally> = tallies.collect();
                // The other end is gone after a failure.
                let _ = reporter.send((number, tallies.try_into().unwrap()));
            }
        });
        Worker {
            number,
            input: process.stdin.take(),
            process,
            tallies: Default::default(),
            progress: [Instant::now(); THREADS],
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended already, or not end before the mount does.
        let _ = self.process.kill();
    }
}
