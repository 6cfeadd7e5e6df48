//! Long jobs: spreading independent work over threads, and telling how far it is.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use parking_lot::Mutex;

use crate::error::Result;

/// Watches a long job, from any of its threads.
pub trait Progress: Sync {
    /// The job begins; `bytes` will be reported to [`Progress::advance`] by its end.
    fn start(&self, bytes: u64) {
        let _ = bytes;
    }

    /// Work on a file begins or goes on; `path` is relative to the view.
    fn file(&self, path: &Path) {
        let _ = path;
    }

    /// `bytes` more are done.
    fn advance(&self, bytes: u64);

    /// Whether the job is to give up. It then cleans up and fails.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Reports to nobody.
impl Progress for () {
    fn advance(&self, _bytes: u64) {}
}

/// Calls `work` for every item, in order, on at most `jobs` threads.
///
/// After the first failure, or a panic, no further item is begun.
///
/// # Errors
/// The first failure.
pub(crate) fn for_each<T: Sync>(
    items: &[T],
    jobs: usize,
    work: impl Fn(&T) -> Result<()> + Sync,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let take = |(): &mut ()| items.get(next.fetch_add(1, Ordering::Relaxed));
    drain(jobs.min(items.len()), take, work)
}

/// Calls `work` for everything that `take` gives, on `jobs` threads, each until it is given
/// nothing. Every thread has a state of its own, in which `take` may note what it gave it.
///
/// After the first failure, or a panic, nothing more is taken.
///
/// # Errors
/// The first failure.
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
        for _ in 1..jobs {
            scope.spawn(worker);
        }
        worker();
    });
    failure.into_inner().map_or(Ok(()), Err)
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
    use crate::error::Error;

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
            2 => Err(Error::Request("third".to_owned())),
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
