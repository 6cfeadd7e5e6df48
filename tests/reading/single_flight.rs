//! The tile cache on its own: single-flight, bounded, and forgetful of failures.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;

use ckptfs::Error;
use ckptfs::error::Code;
use ckptfs::read::{Tile, TileCache, TileKey};

const LARGE: usize = 64 * 1024;
const SMALL: usize = 64;

fn key(band: u64) -> TileKey {
    TileKey { node: 1, band }
}

/// A tile whose bytes tell its band: a large output, and one small enough to be kept on its own.
fn tile(band: u64) -> Arc<Tile> {
    let fill = |len| vec![band as u8; len].into();
    Arc::new(Tile::new(vec![fill(LARGE), fill(SMALL)]))
}

#[test]
fn readers_that_come_while_a_tile_is_computed_wait_for_it() {
    const READERS: usize = 8;
    let cache = TileCache::new(1 << 20);
    let computed = AtomicUsize::new(0);
    let (started, has_started) = mpsc::channel();
    let (finish, may_finish) = mpsc::channel();
    thread::scope(|scope| {
        let (cache, computed) = (&cache, &computed);
        scope.spawn(move || {
            let first = cache.output(key(7), 0, || {
                computed.fetch_add(1, Ordering::SeqCst);
                started.send(()).unwrap();
                may_finish.recv().unwrap();
                Ok(tile(7))
            });
            assert_eq!(&*first.unwrap(), &[7; LARGE]);
        });
        has_started.recv().unwrap();
        // Other tiles come and go meanwhile, without pushing out the one that is computed.
        for band in 100..200 {
            cache.output(key(band), 0, || Ok(tile(band))).unwrap();
        }
        for _ in 0..READERS {
            scope.spawn(move || {
                let bytes = cache.output(key(7), 0, || {
                    computed.fetch_add(1, Ordering::SeqCst);
                    Ok(tile(7))
                });
                assert_eq!(&*bytes.unwrap(), &[7; LARGE]);
            });
        }
        finish.send(()).unwrap();
    });
    assert_eq!(computed.load(Ordering::SeqCst), 1);
}

#[test]
fn the_cache_never_holds_more_than_its_capacity() {
    for capacity in [0, 1, SMALL, LARGE, 3 * LARGE, 100 * LARGE] {
        let cache = TileCache::new(capacity);
        for band in 0..50 {
            let bytes = cache.output(key(band), 0, || Ok(tile(band))).unwrap();
            assert_eq!(&*bytes, &[band as u8; LARGE], "also when it cannot be kept");
            assert!(cache.bytes() <= capacity, "{} > {capacity}", cache.bytes());
        }
    }
}

#[test]
fn the_count_of_bytes_stays_right_under_threads_and_eviction() {
    const THREADS: u64 = 4;
    let cache = TileCache::new(20 * LARGE);
    let barrier = Barrier::new(THREADS as usize);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (cache, barrier) = (&cache, &barrier);
            scope.spawn(move || {
                barrier.wait();
                for i in 0..2000 {
                    let band = (i * (thread + 3)) % 31;
                    let bytes = cache.output(key(band), 0, || Ok(tile(band))).unwrap();
                    assert_eq!(bytes[0], band as u8);
                    assert!(cache.bytes() <= 20 * LARGE);
                    if i % 3 == 0 {
                        cache.served(key(band), &bytes, LARGE);
                    }
                }
            });
        }
    });
    // Were any bytes counted that are not there, new tiles could no longer be kept.
    for band in 100..110 {
        cache.output(key(band), 0, || Ok(tile(band))).unwrap();
    }
    for band in 100..110 {
        let again = cache.output(key(band), 0, || Err(Error::new(Code::Io, "lost")));
        assert_eq!(again.unwrap()[0], band as u8);
    }
}

#[test]
fn the_least_recently_used_tile_goes_first() {
    // Room for three tiles beside the part that is set aside for small outputs.
    let cache = TileCache::new(4 * LARGE);
    for band in [1, 2, 3, 1, 4] {
        cache.output(key(band), 0, || Ok(tile(band))).unwrap();
    }
    let is_kept = |band| {
        let refuse = || Err(Error::new(Code::Io, "not kept"));
        cache.output(key(band), 0, refuse).is_ok()
    };
    assert_eq!([1, 2, 3, 4].map(is_kept), [true, false, true, true]);
}

#[test]
fn small_outputs_stay_after_their_tile_has_gone() {
    let cache = TileCache::new(4 * LARGE);
    for band in 0..100 {
        cache.output(key(band), 0, || Ok(tile(band))).unwrap();
    }
    let refuse = || Err(Error::new(Code::Io, "computed again"));
    assert_eq!(&*cache.output(key(0), 1, refuse).unwrap(), &[0; SMALL]);
}

#[test]
fn a_failure_is_not_kept() {
    let cache = TileCache::new(1 << 20);
    let failed = cache.output(key(1), 0, || Err(Error::new(Code::Io, "a bad sector")));
    assert_eq!(failed.unwrap_err().to_string(), "a bad sector");
    assert_eq!(cache.bytes(), 0);
    let retried = cache.output(key(1), 0, || Ok(tile(1)));
    assert_eq!(&*retried.unwrap(), &[1; LARGE]);
}

#[test]
fn a_tile_that_was_read_to_its_end_makes_room() {
    // Tiles that were read to their end may take a sixteenth: room for one.
    let cache = TileCache::new(20 * LARGE);
    for band in 0..10 {
        let bytes = cache.output(key(band), 0, || Ok(tile(band))).unwrap();
        for half in [LARGE / 2, LARGE / 2] {
            assert!(cache.bytes() >= LARGE, "a tile that was read in part stays");
            cache.served(key(band), &bytes, half);
        }
    }
    assert!(cache.bytes() < 2 * LARGE, "{}", cache.bytes());
}

#[test]
fn a_computation_that_panics_is_done_anew_by_those_who_wait_for_it() {
    const READERS: usize = 8;
    let cache = TileCache::new(1 << 20);
    let begun = AtomicUsize::new(0);
    let barrier = Barrier::new(READERS);
    let panicked = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..READERS {
            scope.spawn(|| {
                barrier.wait();
                let compute = || {
                    assert!(
                        begun.fetch_add(1, Ordering::SeqCst) > 0,
                        "a bug, on purpose"
                    );
                    Ok(tile(3))
                };
                match catch_unwind(AssertUnwindSafe(|| cache.output(key(3), 0, compute))) {
                    Ok(bytes) => assert_eq!(&*bytes.unwrap(), &[3; LARGE]),
                    Err(_) => drop(panicked.fetch_add(1, Ordering::SeqCst)),
                }
            });
        }
    });
    assert_eq!(panicked.into_inner(), 1);
    // Nothing is in the way of keeping the tile.
    cache.output(key(3), 0, || Ok(tile(3))).unwrap();
    let refuse = || Err(Error::new(Code::Io, "not kept"));
    assert_eq!(&*cache.output(key(3), 0, refuse).unwrap(), &[3; LARGE]);
}
