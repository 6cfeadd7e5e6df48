//! What must hold however threads take turns.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use shuttle::{check_dfs, check_pct, check_random};

use crate::accounts::{CAPACITY, TILE, Watched, at_once, tile};
use crate::error::{Code, Error};

/// Every interleaving.
pub(crate) fn always(case: impl Fn() + Send + Sync + 'static) {
    check_dfs(case, None);
}

/// Thousands of random ones; half of them change threads at three places at most, where most
/// faults show.
pub(crate) fn mostly(case: impl Fn() + Send + Sync + Clone + 'static) {
    const RUNS: usize = 1000;
    check_random(case.clone(), RUNS);
    check_pct(case, RUNS, 3);
}

/// Runs `work` with each of the bands at once.
fn each_at_once(
    watched: &Arc<Watched>,
    bands: &'static [&'static [u64]],
    work: impl Fn(&Watched, u64) + Copy + Send + 'static,
) {
    at_once(bands.iter().map(|bands| {
        let watched = watched.clone();
        let all = move || bands.iter().for_each(|band| work(&watched, *band));
        Box::new(all) as Box<dyn FnOnce() + Send>
    }));
}

#[test]
fn two_readers_compute_a_tile_once() {
    always(|| {
        let watched = Watched::quick(CAPACITY);
        each_at_once(&watched, &[&[1], &[1]], |watched, band| {
            watched.read(band);
        });
        assert_eq!(watched.times_computed(1), 1);
        watched.assert_exact();
    });
}

#[test]
fn many_readers_compute_each_tile_once() {
    mostly(|| {
        let watched = Watched::new(CAPACITY);
        let readers: &[&[u64]] = &[&[1, 2, 3], &[3, 1, 2], &[2, 3, 1], &[1, 3]];
        each_at_once(&watched, readers, |watched, band| {
            watched.read(band);
        });
        for band in 1..=3 {
            assert_eq!(watched.times_computed(band), 1);
        }
        watched.assert_exact();
    });
}

/// Reads band 1, whose computations all fail with their number. Nobody gets a failure that had
/// been forgotten before.
fn read_what_fails(watched: &Watched, forgotten: &AtomicUsize, next: &AtomicUsize) {
    let before = forgotten.load(Ordering::SeqCst);
    let mut own = None;
    let failed = watched.try_read(1, || {
        let number = next.fetch_add(1, Ordering::SeqCst);
        own = Some(number);
        Err(Error::new(Code::Io, number.to_string()))
    });
    let number: usize = failed.unwrap_err().to_string().parse().unwrap();
    assert!(number >= before, "failure {number} was kept");
    if let Some(own) = own {
        assert_eq!(number, own, "who computes gets what came of it");
        // Failures come one after the other.
        forgotten.fetch_max(own + 1, Ordering::SeqCst);
    }
}

fn failures(
    readers: usize,
    new: fn(usize) -> Arc<Watched>,
) -> impl Fn() + Send + Sync + Clone + 'static {
    move || {
        let watched = new(CAPACITY);
        let counts = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
        at_once((0..readers).map(|_| {
            let (watched, counts) = (watched.clone(), counts.clone());
            let read = move || read_what_fails(&watched, &counts[0], &counts[1]);
            Box::new(read) as Box<dyn FnOnce() + Send>
        }));
        assert!((1..=readers).contains(&watched.times_computed(1)));
        assert_eq!(watched.cache.bytes(), 0);
        watched.read(1);
        watched.assert_exact();
    }
}

#[test]
fn a_failure_is_given_to_those_who_wait_and_then_forgotten() {
    always(failures(2, Watched::quick));
    mostly(failures(4, Watched::new));
}

#[test]
fn a_panic_is_the_computing_readers_alone() {
    let case = || {
        let watched = Watched::new(CAPACITY);
        let panics = Arc::new(AtomicUsize::new(0));
        at_once((0..3).map(|reader| {
            let (watched, panics) = (watched.clone(), panics.clone());
            let read = move || {
                let result = catch_unwind(AssertUnwindSafe(|| {
                    watched.try_read(1, || match reader {
                        // Without the message that a panic prints.
                        0 => resume_unwind(Box::new("planned")),
                        _ => Ok(tile(1)),
                    })
                }));
                match result {
                    Ok(bytes) => assert_eq!(bytes.unwrap()[0], 1),
                    Err(_) => {
                        assert_eq!(reader, 0);
                        panics.fetch_add(1, Ordering::SeqCst);
                    }
                }
            };
            Box::new(read) as Box<dyn FnOnce() + Send>
        }));
        let panics = panics.load(Ordering::SeqCst);
        assert_eq!(watched.times_computed(1), 1 + panics);
        watched.assert_exact();
    };
    mostly(case);
}

#[test]
fn eviction_leaves_alone_what_is_being_computed() {
    let case = |readers| {
        move || {
            let watched = Watched::filled(0);
            each_at_once(&watched, readers, |watched, band| {
                watched.read(band);
                assert!(watched.cache.bytes() <= CAPACITY);
            });
            watched.assert_exact();
        }
    };
    mostly(case(&[&[1], &[2]]));
    // With room for all three after what was there before has gone: each is computed once.
    mostly(move || {
        let watched = Watched::filled(0);
        let readers: &[&[u64]] = &[&[1, 2], &[2, 3], &[3, 1]];
        each_at_once(&watched, readers, |watched, band| {
            watched.read(band);
            assert!(watched.cache.bytes() <= CAPACITY);
        });
        for band in 1..=3 {
            assert_eq!(watched.times_computed(band), 1);
        }
        watched.assert_exact();
    });
}

#[test]
fn a_cache_with_hardly_any_room_still_has_a_tile_computed_by_one_at_a_time() {
    const ROOM_FOR_ONE: usize = TILE + TILE / 2;
    for capacity in [0, TILE, ROOM_FOR_ONE] {
        mostly(move || {
            let watched = Watched::new(capacity);
            let readers: &[&[u64]] = &[&[1, 2], &[2, 1], &[1, 1]];
            each_at_once(&watched, readers, move |watched, band| {
                watched.read_to_its_end(band);
                assert!(watched.cache.bytes() <= capacity);
            });
            watched.assert_exact();
        });
    }
}

#[test]
fn tiles_read_to_their_end_are_counted_right_while_others_are_evicted() {
    let case = |readers, free| {
        move || {
            let watched = Watched::filled(free);
            each_at_once(&watched, readers, |watched, band| {
                watched.read_to_its_end(band);
                assert!(watched.cache.bytes() <= CAPACITY);
            });
            watched.assert_exact();
            watched.assert_room_for_spent();
        }
    };
    mostly(case(&[&[1], &[1]], 1));
    mostly(case(&[&[1, 1], &[1, 2], &[2, 2]], 0));
    mostly(case(&[&[1, 2], &[2, 3, 1], &[3, 1, 2], &[2]], 1));
}
