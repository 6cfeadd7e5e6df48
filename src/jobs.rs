//! Long jobs: spreading independent work over threads, and telling how far it is.

use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use parking_lot::Mutex;

use crate::error::{Error, Result};

/// The most threads for one kind of work: far more than any machine has use for, and few enough that
/// they can be started.
pub const MAX_THREADS: usize = 1024;

/// Watches a long job, from any of its threads.
pub trait Progress: Sync {
    /// The job, or its next part, begins; `bytes` will be reported to [`Progress::advance`] by its
    /// end.
    fn start(&self, bytes: u64) {
        let _ = bytes;
    }

    /// As [`Progress::start`] of a part that reads `bytes`: `what` says which, before the first of
    /// them is read.
    fn start_reading(&self, what: &str, bytes: u64) {
        let _ = what;
        self.start(bytes);
    }

    /// Work on a file begins or goes on; `path` is relative to the view.
    fn file(&self, path: &Path) {
        let _ = path;
    }

    /// Something that whoever asked for the job wants to know before it is done.
    fn note(&self, text: &str) {
        let _ = text;
    }

    /// `bytes` more are done.
    fn advance(&self, bytes: u64);

    /// `bytes` more are done without work: an earlier run has them, or they are shared with a
    /// source.
    fn skip(&self, bytes: u64) {
        self.advance(bytes);
    }

    /// Whether the job is to give up. It then cleans up and fails.
    fn cancelled(&self) -> bool {
        false
    }
}

/// # Errors
/// If the job is to give up.
pub(crate) fn check_going_on(progress: &dyn Progress) -> Result<()> {
    if progress.cancelled() {
        Err(Error::interrupted())
    } else {
        Ok(())
    }
}

/// Reports to nobody.
impl Progress for () {
    fn advance(&self, _bytes: u64) {}
}

/// Calls `work` for every item, in order, on at most `jobs` threads, which have ended when this
/// returns.
///
/// After a failure, or a panic, no further item is begun.
///
/// # Errors
/// The failure of the first item that fails, in the order of the items.
pub(crate) fn for_each<T: Sync>(
    items: &[T],
    jobs: usize,
    work: impl Fn(&T) -> Result<()> + Sync,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let first: Mutex<Option<(usize, Error)>> = Mutex::new(None);
    let take = |(): &mut ()| {
        let position = next.fetch_add(1, Ordering::Relaxed);
        Some((position, items.get(position)?))
    };
    let result = drain(jobs.min(items.len()), take, |(position, item)| {
        work(item).inspect_err(|error| {
            // Items before this one have been begun, and may fail yet.
            let mut first = first.lock();
            if first.as_ref().is_none_or(|(other, _)| position < *other) {
                *first = Some((position, error.clone()));
            }
        })
    });
    match first.into_inner() {
        Some((_, error)) => Err(error),
        None => result,
    }
}

/// Calls `work` for everything that `take` gives, on `jobs` threads, each until it is given
/// nothing; they have ended when this returns. Every thread has a state of its own, in which `take`
/// may note what it gave it.
///
/// After a failure, or a panic, nothing more is taken.
///
/// # Errors
/// One of the failures.
pub(crate) fn drain<T, S: Default>(
    jobs: usize,
    take: impl Fn(&mut S) -> Option<T> + Sync,
    work: impl Fn(T) -> Result<()> + Sync,
) -> Result<()> {
    let stopped = AtomicBool::new(false);
    let failure = Mutex::new(None);
    let worker = || {
        let _panic = StopOnPanic(&stopped);
        let mut state = S::default();
        while !stopped.load(Ordering::Relaxed)
            && let Some(item) = take(&mut state)
        {
            if let Err(error) = work(item) {
                stopped.store(true, Ordering::Relaxed);
                failure.lock().get_or_insert(error);
            }
        }
    };
    thread::scope(|scope| {
        // Where no more threads can be had, those that are there do all of the work.
        let others = (1..jobs.min(MAX_THREADS))
            .map_while(|_| thread::Builder::new().spawn_scoped(scope, worker).ok());
        let others: Vec<_> = others.collect();
        worker();
        // By itself a scope waits for the work, but not until the threads are gone.
        for other in others {
            other.join().unwrap_or_else(|panic| resume_unwind(panic));
        }
    });
    failure.into_inner().map_or(Ok(()), Err)
}

/// The results of `work` for every item, in the order of the items; otherwise as [`for_each`].
pub(crate) fn map<T: Sync, R: Send + Sync>(
    items: &[T],
    jobs: usize,
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let results: Vec<(&T, OnceLock<R>)> =
        items.iter().map(|item| (item, OnceLock::new())).collect();
    for_each(&results, jobs, |(item, result)| {
        work(item).map(|done| drop(result.set(done)))
    })?;
    let results = results.into_iter();
    Ok(results
        .map(|(_, result)| result.into_inner().expect("every item was worked on"))
        .collect())
}

/// The number of threads that can run at once.
pub(crate) fn processors() -> usize {
    thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// Has the other threads take no more when its own panics.
struct StopOnPanic<'a>(&'a AtomicBool);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn every_item_is_worked_on_once() {
        let items: Vec<usize> = (0..1000).collect();
        let done = Mutex::new(Vec::new());
        for_each(&items, 4, |item| {
            done.lock().push(*item);
            Ok(())
        })
        .unwrap();
        let mut done = done.into_inner();
        done.sort_unstable();
        assert_eq!(done, items);
    }

    #[test]
    fn nothing_is_begun_after_a_failure() {
        let begun = AtomicUsize::new(0);
        let items = [0; 100];
        let result = for_each(&items, 1, |_| match begun.fetch_add(1, Ordering::Relaxed) {
            2 => Err(Error::new(Code::Io, "third")),
            _ => Ok(()),
        });
        assert_eq!(result.unwrap_err().to_string(), "third");
        assert_eq!(begun.into_inner(), 3);
    }

    #[test]
    fn a_panic_reaches_the_caller() {
        let result = std::panic::catch_unwind(|| {
            for_each(&[1, 2, 3], 2, |item| {
                assert_ne!(*item, 2, "planned");
                Ok(())
            })
        });
        assert!(result.is_err());
    }
}
