//! A cache whose tiles, computations and counts are watched from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use shuttle::thread;

use crate::error::{Code, Error};
use crate::read::tiles::{Tile, TileCache, TileKey, TileOutput};

/// Bytes of the large output, of the small one that is also kept on its own, and of both.
pub(crate) const LARGE: usize = 64;
pub(crate) const SMALL: usize = 1;
pub(crate) const TILE: usize = LARGE + SMALL;

/// Room for 14 tiles, one of which may have been read to its end, and for their small outputs.
pub(crate) const CAPACITY: usize = 16 * TILE;
const ROOM: u64 = 14;

/// Bands that cases may read, those that fill a cache before, and those that are read afterwards.
const BANDS: usize = 4;
const FILLING: u64 = 10;
const NEW: u64 = 30;

/// A cache with what is known of it from outside. The atomics are no part of what is checked, and
/// add no interleavings.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) cache: TileCache,
    /// Whether others may go on in the midst of a computation.
    slow: bool,
    /// Whether a band is being computed.
    computing: [AtomicBool; BANDS],
    /// How often it was.
    computed: [AtomicUsize; BANDS],
}

impl Watched {
    pub(crate) fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Watched {
            cache: TileCache::new(capacity),
            slow: true,
            computing: Default::default(),
            computed: Default::default(),
        })
    }

    /// The same without pauses in computations, so that there are fewer interleavings.
    pub(crate) fn quick(capacity: usize) -> Arc<Self> {
        let mut watched = Watched::new(capacity);
        Arc::get_mut(&mut watched)
            .expect("nobody shares it yet")
            .slow = false;
        watched
    }

    /// The same with as many tiles as leave room for `free` more.
    pub(crate) fn filled(free: u64) -> Arc<Self> {
        let watched = Watched::new(CAPACITY);
        for band in FILLING..FILLING + ROOM - free {
            watched
                .cache
                .output(key(band), 0, || Ok(tile(band)))
                .unwrap();
        }
        watched
    }

    /// Reads the large output of `band`.
    pub(crate) fn read(&self, band: u64) -> TileOutput {
        let bytes = self.try_read(band, || Ok(tile(band))).unwrap();
        assert_eq!(&*bytes, &[band as u8; LARGE]);
        bytes
    }

    /// Reads the large output of `band`, computed by `compute`, and asserts that nobody else
    /// computes it meanwhile.
    pub(crate) fn try_read(
        &self,
        band: u64,
        compute: impl FnOnce() -> Result<Arc<Tile>, Error>,
    ) -> Result<TileOutput, Error> {
        let number = band as usize;
        self.cache.output(key(band), 0, || {
            let twice = self.computing[number].swap(true, Ordering::SeqCst);
            assert!(!twice, "band {band} is computed by two at once");
            self.computed[number].fetch_add(1, Ordering::SeqCst);
            if self.slow {
                thread::yield_now();
            }
            self.computing[number].store(false, Ordering::SeqCst);
            compute()
        })
    }

    /// Reads all of the large output of `band`, and says so.
    pub(crate) fn read_to_its_end(&self, band: u64) {
        let bytes = self.read(band);
        self.cache.served(key(band), &bytes, LARGE);
    }

    pub(crate) fn times_computed(&self, band: u64) -> usize {
        self.computed[band as usize].load(Ordering::SeqCst)
    }

    /// Asserts that the cache holds as many bytes as it says.
    pub(crate) fn assert_exact(&self) {
        let refuse = || Err(Error::new(Code::Io, "not held"));
        let held = |band, output| self.cache.output(key(band), output, refuse);
        let bytes = self.cache.bytes();
        let bands = || (0..BANDS as u64).chain(FILLING..FILLING + ROOM);
        let tiles = bands().filter(|band| held(*band, 0).is_ok()).count();
        let is_small = |band: &u64| matches!(held(*band, 1), Ok(TileOutput::Small(_)));
        let small = bands().filter(is_small).count();
        assert_eq!(bytes, tiles * TILE + small * SMALL);
    }

    /// Asserts that the cache has room for as many tiles read to their end as it should, once
    /// others have pushed out all that it holds.
    pub(crate) fn assert_room_for_spent(&self) {
        let read = |band| self.cache.output(key(band), 0, || Ok(tile(band))).unwrap();
        let new: Vec<TileOutput> = (NEW..NEW + ROOM).map(read).collect();
        let full = self.cache.bytes();
        self.cache.served(key(NEW), &new[0], LARGE);
        assert_eq!(self.cache.bytes(), full, "there is room for one");
        self.cache.served(key(NEW + 1), &new[1], LARGE);
        assert_eq!(self.cache.bytes(), full - TILE, "and for no other");
    }
}

fn key(band: u64) -> TileKey {
    TileKey { node: 1, band }
}

/// A tile whose bytes tell its band.
pub(crate) fn tile(band: u64) -> Arc<Tile> {
    let fill = |len| vec![band as u8; len].into();
    Arc::new(Tile::new(vec![fill(LARGE), fill(SMALL)]))
}

/// Runs `threads` at once and waits for them.
pub(crate) fn at_once(threads: impl IntoIterator<Item = Box<dyn FnOnce() + Send>>) {
    let threads: Vec<_> = threads.into_iter().map(thread::spawn).collect();
    for thread in threads {
        thread.join().unwrap();
    }
}
