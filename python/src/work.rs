//! Long work: without the lock of the interpreter, with signals, and with progress.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use ckptfs::jobs::Progress;
use parking_lot::Mutex;
use pyo3::prelude::*;

use crate::errors::exception;
use crate::network::interrupt;

/// How often signals are looked at.
const INTERVAL: Duration = Duration::from_millis(50);

#[derive(Default)]
struct Watched {
    stopped: AtomicBool,
    total: AtomicU64,
    done: AtomicU64,
    file: Mutex<String>,
}

impl Progress for Watched {
    fn start(&self, bytes: u64) {
        self.total.store(bytes, Ordering::Relaxed);
        self.done.store(0, Ordering::Relaxed);
    }

    fn file(&self, path: &Path) {
        *self.file.lock() = path.to_string_lossy().into_owned();
    }

    fn advance(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    fn cancelled(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

impl Watched {
    /// Calls `callback` with the bytes done, all bytes, and the file at hand.
    fn report(&self, py: Python<'_>, callback: &Py<PyAny>) -> PyResult<()> {
        let file = self.file.lock().clone();
        let [done, total] = [&self.done, &self.total].map(|count| count.load(Ordering::Relaxed));
        callback.call1(py, (done, total, file)).map(drop)
    }
}

/// Does `work` in a thread of its own while this one looks at signals, and tells `callback` how far it
/// is. What a signal handler or the callback raises stops the work, and is raised when it has ended.
pub(crate) fn run<T: Send>(
    py: Python<'_>,
    callback: Option<&Py<PyAny>>,
    work: impl FnOnce(&dyn Progress) -> ckptfs::Result<T> + Send,
) -> PyResult<T> {
    let watched = Watched::default();
    let (result, raised) = py.detach(|| {
        thread::scope(|scope| {
            let (sender, receiver) = channel();
            let watched = &watched;
            scope.spawn(move || {
                let result = catch_unwind(AssertUnwindSafe(|| work(watched)));
                let _ = sender.send(result);
            });
            let mut raised = None;
            loop {
                match receiver.recv_timeout(INTERVAL) {
                    Ok(result) => break (result, raised),
                    Err(RecvTimeoutError::Disconnected) => unreachable!("a result is always sent"),
                    Err(RecvTimeoutError::Timeout) if raised.is_some() => {}
                    Err(RecvTimeoutError::Timeout) => {
                        let looked = Python::attach(|py| {
                            // Signals are for all of the process, and a callback for this work.
                            py.check_signals().inspect_err(|_| interrupt(true))?;
                            callback.map_or(Ok(()), |callback| watched.report(py, callback))
                        });
                        if let Err(error) = looked {
                            watched.stopped.store(true, Ordering::Relaxed);
                            raised = Some(error);
                        }
                    }
                }
            }
        })
    });
    let result = result.unwrap_or_else(|panic| resume_unwind(panic));
    if let Some(raised) = raised {
        interrupt(false);
        return Err(raised);
    }
    let done = result.map_err(|error| exception(&error))?;
    if let Some(callback) = callback {
        watched.report(py, callback)?;
    }
    Ok(done)
}
