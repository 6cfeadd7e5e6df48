//! The pool of open sources.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use shuttle::thread;

use crate::cases::{always, mostly};
use crate::source::pool::{InUse, Pool, Rank, Slot};

/// Something open, counted where it belongs and in all. These atomics are no part of what is checked,
/// and add no interleavings.
#[derive(Debug)]
struct Opened {
    of_slot: Arc<AtomicUsize>,
    of_all: Arc<AtomicUsize>,
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.of_slot.fetch_sub(1, Ordering::SeqCst);
        self.of_all.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A pool with what is known of it from outside.
#[derive(Debug)]
struct Watched {
    pool: &'static Pool<Opened>,
    slots: Vec<(Arc<Slot<Opened>>, Arc<AtomicUsize>)>,
    open: Arc<AtomicUsize>,
    /// The most that may be open.
    most: usize,
}

impl Watched {
    /// Slots of these ranks in a pool of `BOUND`, used by so many threads.
    fn new<const BOUND: usize>(ranks: &[Rank], threads: usize) -> Self {
        // It lives as long as the program, like the library's.
        let pool: &'static Pool<Opened> = Box::leak(Box::new(Pool::new(|| BOUND)));
        let slot = |rank: &Rank| (pool.slot(*rank), Arc::default());
        Watched {
            pool,
            slots: ranks.iter().map(slot).collect(),
            open: Arc::default(),
            most: BOUND + threads,
        }
    }

    /// Uses a slot, and asserts that what is open there is the only one.
    fn open(&self, number: usize) -> InUse<Opened> {
        let (slot, of_slot) = &self.slots[number];
        let opened = slot.get(|| {
            of_slot.fetch_add(1, Ordering::SeqCst);
            self.open.fetch_add(1, Ordering::SeqCst);
            assert!(self.pool.open() <= self.most, "closed what is idle before");
            Ok::<_, Infallible>(Opened {
                of_slot: of_slot.clone(),
                of_all: self.open.clone(),
            })
        });
        let Ok(opened) = opened;
        assert_eq!(of_slot.load(Ordering::SeqCst), 1, "slot {number}");
        opened
    }

    fn is_open(&self, number: usize) -> bool {
        self.slots[number].1.load(Ordering::SeqCst) > 0
    }

    /// Asserts that as many are open as the pool counts, where nobody uses any.
    fn assert_exact(&self) {
        assert_eq!(self.pool.open(), self.open.load(Ordering::SeqCst));
    }
}

/// Uses slots in threads, each those of its list, and then one more alone.
fn case<const BOUND: usize>(
    ranks: &'static [Rank],
    threads: &'static [&'static [usize]],
) -> impl Fn() + Send + Sync + Clone + 'static {
    move || {
        let watched = Arc::new(Watched::new::<BOUND>(ranks, threads.len()));
        let running = threads.iter().map(|numbers| {
            let watched = watched.clone();
            thread::spawn(move || {
                for number in *numbers {
                    let opened = watched.open(*number);
                    thread::yield_now();
                    assert!(opened.of_slot.load(Ordering::SeqCst) == 1);
                }
            })
        });
        let running: Vec<_> = running.collect();
        for thread in running {
            thread.join().unwrap();
        }
        watched.assert_exact();
        let closed = (0..ranks.len()).find(|number| !watched.is_open(*number));
        drop(watched.open(closed.unwrap()));
        assert!(watched.pool.open() <= BOUND, "nobody uses more");
        watched.pool.close_idle();
        watched.pool.close_idle();
        assert_eq!(watched.pool.open(), 0);
        watched.assert_exact();
    }
}

#[test]
fn what_is_in_use_is_not_closed_and_what_is_open_stays_within_the_bound() {
    use Rank::{First, Last};
    const RANKS: &[Rank] = &[First, Last, First, Last, First, Last, First];
    mostly(case::<1>(RANKS, &[&[0], &[1]]));
    mostly(case::<1>(RANKS, &[&[0, 1, 2, 3, 4], &[4, 2, 0, 1, 3]]));
    mostly(case::<2>(
        RANKS,
        &[&[0, 1, 2, 5], &[2, 0, 3, 4], &[3, 1, 0, 5]],
    ));
    mostly(case::<2>(RANKS, &[&[0, 0], &[0, 1], &[2, 0], &[3, 2]]));
}

#[test]
fn what_was_used_last_and_what_has_the_last_rank_stays_open() {
    always(|| {
        let ranks = [
            Rank::Last,
            Rank::First,
            Rank::First,
            Rank::First,
            Rank::Last,
        ];
        let watched = Watched::new::<3>(&ranks, 1);
        let open = || {
            let slots = 0..ranks.len();
            slots.filter(|n| watched.is_open(*n)).collect::<Vec<_>>()
        };
        for number in [0, 1, 2, 1, 3] {
            drop(watched.open(number));
        }
        assert_eq!(open(), [0, 1, 3]);
        let _in_use = watched.open(1);
        drop(watched.open(4));
        assert_eq!(open(), [0, 1, 4]);
        drop(watched.open(2));
        assert_eq!(open(), [1, 2, 4], "what is in use is of no rank");
    });
}
