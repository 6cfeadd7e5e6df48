//! The job that writes a view to a directory while it is mounted.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{io, mem};

use parking_lot::{Condvar, Mutex};

use crate::error::Spelling;
use crate::fuse::server::{Inode, Persisted};
use crate::jobs::Progress;
use crate::materialize::Persisting;
use crate::shown::Show;
use crate::stats::{PersistState, PersistStats};

/// How often the job looks whether readers still read.
const LOOK: Duration = Duration::from_millis(1);

/// A job, and how far it is.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) persisted: Arc<Persisted>,
    state: Mutex<State>,
    /// The job is told to stop.
    told: Condvar,
    bytes: AtomicU64,
    /// How the log writes settings of the request.
    spelling: Spelling,
}

#[derive(Debug)]
struct State {
    stopping: bool,
    now: PersistState,
    error: Option<String>,
    /// When the next byte may be written, where a rate is set.
    next: Instant,
}

impl Job {
    pub(super) fn new(persisted: Arc<Persisted>, spelling: Spelling) -> Self {
        Job {
            persisted,
            state: Mutex::new(State {
                stopping: false,
                now: PersistState::Writing,
                error: None,
                next: Instant::now(),
            }),
            told: Condvar::new(),
            bytes: AtomicU64::new(0),
            spelling,
        }
    }

    fn run(&self, persisting: Persisting) {
        let directory = persisting.directory().to_owned();
        let run = AssertUnwindSafe(|| persisting.run(self, &*self.persisted));
        let (now, error) = match catch_unwind(run) {
            Ok(Ok(summary)) => {
                log::info!("persist: {} is complete", directory.shown());
                for warning in summary.warnings {
                    log::warn!("persist: {warning}");
                }
                (PersistState::Complete, None)
            }
            Ok(Err(_)) if self.cancelled() => {
                log::info!("persist: stopped; what is complete stays for the next mount");
                (PersistState::Stopped, None)
            }
            Ok(Err(error)) => {
                let error = error.logged(self.spelling);
                log::error!("persist: {error} (the mount serves on without)");
                (PersistState::Failed, Some(error))
            }
            Err(_) => {
                let problem = "panic in the job that writes the view";
                log::error!("persist: {problem} (the mount serves on without)");
                (PersistState::Failed, Some(problem.to_owned()))
            }
        };
        {
            let mut state = self.state.lock();
            state.now = now;
            state.error = error;
        }
        self.persisted.end();
    }

    /// Tells the job to stop.
    fn stop(&self) {
        self.state.lock().stopping = true;
        self.told.notify_all();
        self.persisted.end();
        self.persisted.end_dropping();
    }

    /// How far it is, of `bytes` in `files` files.
    pub(super) fn stats(&self, files: u64, bytes: u64) -> PersistStats {
        let state = self.state.lock();
        PersistStats {
            directory: self.persisted.directory().to_string_lossy().into_owned(),
            state: state.now,
            files,
            files_complete: self.persisted.files() as u64,
            bytes,
            bytes_written: self.bytes.load(Ordering::Relaxed).min(bytes),
            error: state.error.clone(),
        }
    }

    /// Waits while readers wait, and for as long as the rate wants after `bytes` more.
    fn give_way(&self, bytes: u64) {
        let mut state = self.state.lock();
        if let Some(rate) = self.persisted.rate() {
            let now = Instant::now();
            let time = Duration::from_secs_f64(bytes as f64 / rate.get() as f64);
            state.next = state.next.max(now) + time;
            let next = state.next;
            while !state.stopping && !self.told.wait_until(&mut state, next).timed_out() {}
        }
        while !state.stopping && self.persisted.must_yield() {
            self.told.wait_for(&mut state, LOOK);
        }
    }
}

impl Progress for Job {
    fn note(&self, text: &str) {
        log::info!("persist: {text}");
    }

    fn advance(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.give_way(bytes);
    }

    fn skip(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn cancelled(&self) -> bool {
        self.state.lock().stopping
    }
}

/// A job whose threads run; dropping it stops the job and waits for that.
#[derive(Debug)]
pub(super) struct Running {
    job: Arc<Job>,
    threads: Vec<JoinHandle<()>>,
}

impl Running {
    /// Starts `job`, or does it at once if there is nothing to write. `drop_pages` tells the kernel to
    /// drop the cached pages of a file of the mount.
    pub(super) fn start(
        job: Arc<Job>,
        persisting: Persisting,
        drop_pages: impl Fn(Inode) + Send + 'static,
    ) -> io::Result<Self> {
        let mut running = Running {
            job: job.clone(),
            threads: Vec::new(),
        };
        let mut start = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let thread = thread::Builder::new().name(name.to_owned()).spawn(run)?;
            running.threads.push(thread);
            io::Result::Ok(())
        };
        let persisted = job.persisted.clone();
        let dropping = move || {
            while let Some(inode) = persisted.next_unneeded() {
                drop_pages(inode);
            }
        };
        // Not by threads that answer requests: the kernel first waits for reads of the file that it has
        // asked for, and they could be the ones to answer.
        start("persist-pages", Box::new(dropping))?;
        if persisting.is_finished() {
            job.run(persisting);
        } else {
            let run = move || {
                be_nice();
                job.run(persisting);
            };
            start("persist", Box::new(run))?;
        }
        Ok(running)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.job.stop();
        for thread in mem::take(&mut self.threads) {
            // Whatever it had to say, it has logged.
            let _ = thread.join();
        }
    }
}

/// Gives this thread, and those that it starts, the lowest priority.
fn be_nice() {
    const LEAST: i32 = 19;
    if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), LEAST)
    {
        log::info!("persist: the job has the priority of the mount: {error}");
    }
}
