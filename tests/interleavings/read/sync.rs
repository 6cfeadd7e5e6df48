//! The primitives of `src/read/sync.rs`, with every step of which the scheduler may go on with
//! another thread.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{PoisonError, TryLockError};

use shuttle::sync::Condvar;
pub(crate) use shuttle::sync::atomic::{AtomicUsize, Ordering};

/// A mutex that is not poisoned.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

pub(crate) type MutexGuard<'a, T> = shuttle::sync::MutexGuard<'a, T>;

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Mutex(shuttle::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        // A reader whose computation panics takes it once more on its way out, and all tasks are of
        // one thread.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(guard)) => Some(guard.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As `std::sync::OnceLock`: those who come while the value is made wait for it, and if making it
/// panics, the next of them makes it.
#[derive(Debug)]
pub(crate) struct OnceLock<T> {
    value: std::sync::OnceLock<T>,
    progress: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Progress {
    #[default]
    Empty,
    Running,
    Done,
}

impl<T> Default for OnceLock<T> {
    fn default() -> Self {
        OnceLock {
            value: std::sync::OnceLock::new(),
            progress: Mutex::default(),
            changed: Condvar::new(),
        }
    }
}

impl<T> OnceLock<T> {
    pub(crate) fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        let mut progress = self.progress.lock();
        while *progress == Progress::Running {
            let waited = self.changed.wait(progress);
            progress = waited.unwrap_or_else(PoisonError::into_inner);
        }
        if *progress == Progress::Empty {
            *progress = Progress::Running;
            drop(progress);
            let made = catch_unwind(AssertUnwindSafe(make));
            let mut progress = self.progress.lock();
            *progress = match &made {
                Ok(_) => Progress::Done,
                Err(_) => Progress::Empty,
            };
            let value = made.map(|value| self.value.get_or_init(|| value));
            self.changed.notify_all();
            drop(progress);
            return value.unwrap_or_else(|panic| resume_unwind(panic));
        }
        self.value.get().expect("it was made")
    }
}
