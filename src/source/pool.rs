//! What is kept open to be used again, bounded in number: beyond the bound, what was not used for
//! long is closed.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Weak};

use crate::source::sync::{AtomicBool, AtomicUsize, Mutex, Ordering};

/// The order in which slots are closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rank {
    First,
    /// Only once all that is idle of the other rank is closed.
    Last,
}

/// Everything that is open, in slots.
#[derive(Debug)]
pub(crate) struct Pool<T: 'static> {
    /// Slots that may be open at once. It is asked each time, since it may change.
    bound: fn() -> usize,
    /// Slots that are open or being opened.
    open: AtomicUsize,
    queues: Mutex<Queues<T>>,
}

/// The open slots by rank, each in the order in which they are looked at to be closed.
#[derive(Debug)]
struct Queues<T: 'static> {
    first: VecDeque<Weak<Slot<T>>>,
    last: VecDeque<Weak<Slot<T>>>,
}

/// A place for something that is opened when it is wanted.
#[derive(Debug)]
pub(crate) struct Slot<T: 'static> {
    pool: &'static Pool<T>,
    rank: Rank,
    /// Who uses it holds one reference more, taken under this lock.
    item: Mutex<Option<Arc<T>>>,
    /// Whether it was used since it was opened, or last looked at to be closed.
    used: AtomicBool,
}

/// Something open that is not closed while this lives.
pub(crate) struct InUse<T>(Arc<T>);

impl<T> Deref for InUse<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: fmt::Debug> fmt::Debug for InUse<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T> Pool<T> {
    /// A pool of at most as many open slots as `bound` says. Only those that are in use, or being
    /// opened, can be more.
    pub(crate) const fn new(bound: fn() -> usize) -> Self {
        Pool {
            bound,
            open: AtomicUsize::new(0),
            queues: Mutex::new(Queues {
                first: VecDeque::new(),
                last: VecDeque::new(),
            }),
        }
    }

    /// A slot that is not open.
    pub(crate) fn slot(&'static self, rank: Rank) -> Arc<Slot<T>> {
        Arc::new(Slot {
            pool: self,
            rank,
            item: Mutex::new(None),
            used: AtomicBool::new(false),
        })
    }

    /// Slots that are open, or being opened.
    #[allow(dead_code)]
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Closes all that nobody uses, of the lowest rank that has some; returns how many that were.
    pub(crate) fn close_idle(&self) -> usize {
        let mut queues = self.queues.lock();
        let mut closed = Vec::new();
        for queue in queues.by_rank() {
            queue.retain(|slot| match slot.upgrade() {
                None => false,
                Some(slot) => match slot.take_idle() {
                    None => true,
                    Some(item) => {
                        closed.push(item);
                        false
                    }
                },
            });
            if !closed.is_empty() {
                break;
            }
        }
        drop(queues);
        // Here, since closing may wait for a filesystem.
        closed.len()
    }

    /// Counts one more, and closes what is too much then.
    fn make_room(&self) {
        let mut queues = self.queues.lock();
        let mut open = self.open.fetch_add(1, Ordering::SeqCst) + 1;
        let bound = (self.bound)();
        let mut closed = Vec::new();
        while open > bound
            && let Some(item) = queues.next_idle()
        {
            closed.push(item);
            open = self.open.load(Ordering::SeqCst);
        }
        drop(queues);
        drop(closed);
    }

    fn enqueue(&self, slot: &Arc<Slot<T>>) {
        let mut queues = self.queues.lock();
        let [first, last] = queues.by_rank();
        let queue = match slot.rank {
            Rank::First => first,
            Rank::Last => last,
        };
        /// Slots that are gone may be as many as those that are there, and this many.
        const GONE: usize = 64;
        if queue.len() >= 2 * self.open.load(Ordering::SeqCst) + GONE {
            queue.retain(|slot| slot.strong_count() > 0);
        }
        queue.push_back(Arc::downgrade(slot));
    }
}

impl<T> Queues<T> {
    fn by_rank(&mut self) -> [&mut VecDeque<Weak<Slot<T>>>; 2] {
        [&mut self.first, &mut self.last]
    }

    /// Takes what is to be closed next from its slot: the first that is idle and was not used since
    /// it was last looked at.
    fn next_idle(&mut self) -> Option<Arc<T>> {
        self.by_rank().into_iter().find_map(|queue| {
            let round = queue.len();
            for step in 0..2 * round {
                let next = queue.pop_front()?;
                let Some(slot) = next.upgrade() else { continue };
                let spared = slot.used.swap(false, Ordering::Relaxed) && step < round;
                if !spared && let Some(item) = slot.take_idle() {
                    return Some(item);
                }
                queue.push_back(next);
            }
            None
        })
    }
}

impl<T> Slot<T> {
    /// What is open, opened by `open` if it is not. It is not closed while the result lives.
    ///
    /// # Errors
    /// That of `open`.
    pub(crate) fn get<E>(
        self: &Arc<Self>,
        open: impl FnOnce() -> Result<T, E>,
    ) -> Result<InUse<T>, E> {
        let mut item = self.item.lock();
        if let Some(item) = &*item {
            if !self.used.load(Ordering::Relaxed) {
                self.used.store(true, Ordering::Relaxed);
            }
            return Ok(InUse(item.clone()));
        }
        self.pool.make_room();
        let opened = open().map(Arc::new).inspect_err(|_| self.pool.forget())?;
        *item = Some(opened.clone());
        drop(item);
        // Nobody closes it before: it is in no queue, and in use.
        self.pool.enqueue(self);
        Ok(InUse(opened))
    }

    /// Takes what is open, unless it is in use. The queues are locked, so this must not wait.
    fn take_idle(&self) -> Option<Arc<T>> {
        let mut item = self.item.try_lock()?;
        if Arc::strong_count(item.as_ref()?) > 1 {
            return None;
        }
        self.pool.forget();
        item.take()
    }
}

impl<T> Pool<T> {
    /// Counts one less.
    fn forget(&self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl<T> Drop for Slot<T> {
    fn drop(&mut self) {
        if self.item.get_mut().is_some() {
            self.pool.forget();
        }
    }
}
