//! The cache of computed tiles: least recently used, bounded in bytes, single-flight.
//!
//! A tile holds one band of every output of a node. Outputs that are tiny beside the others (the
//! scales of a quantized tensor) are kept apart once known, so that reading a tensor's codes
//! makes its scales free even after the codes have left the cache.

use std::mem;
use std::ops::Deref;
use std::sync::Arc;

use lru::LruCache;

use crate::catalog::{Band, Node, NodeId};
use crate::error::Error;
use crate::read::buffers::Buffer;
use crate::read::sync::{AtomicUsize, Mutex, OnceLock, Ordering};

/// One band of a node, computed: the bytes of each output.
#[derive(Debug)]
pub struct Tile {
    outputs: Vec<Buffer>,
    /// Bytes given to readers.
    served: AtomicUsize,
}

impl Tile {
    /// A tile of these outputs.
    pub fn new(outputs: Vec<Buffer>) -> Self {
        Tile {
            outputs,
            served: AtomicUsize::new(0),
        }
    }

    fn bytes(&self) -> usize {
        self.outputs.iter().map(|bytes| bytes.len()).sum()
    }

    /// Whether output `k` is so small that it is worth keeping when the tile goes.
    fn is_small(&self, output: usize) -> bool {
        const SHARE: usize = 64;
        self.outputs[output].len() * SHARE <= self.bytes()
    }
}

/// The bytes of one output of a tile, shared with the cache.
#[derive(Debug, Clone)]
pub enum TileOutput {
    /// Output number `.1` of a tile.
    Of(Arc<Tile>, usize),
    /// A small output that was kept on its own.
    Small(Arc<[u8]>),
}

impl Deref for TileOutput {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            TileOutput::Of(tile, output) => &tile.outputs[*output],
            TileOutput::Small(bytes) => bytes,
        }
    }
}

/// A node and the number of one of its bands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TileKey {
    pub node: NodeId,
    pub band: u64,
}

impl TileOutput {
    /// Notes that `bytes` bytes were given to a reader; says whether readers now have had as many
    /// as the output has.
    fn serve(&self, bytes: usize) -> bool {
        match self {
            TileOutput::Small(_) => false,
            TileOutput::Of(tile, output) => {
                let before = tile.served.fetch_add(bytes, Ordering::Relaxed);
                before + bytes >= tile.outputs[*output].len()
            }
        }
    }
}

impl TileKey {
    /// The key of `band` of `node`.
    pub fn new(node: &Node, band: &Band) -> Self {
        TileKey {
            node: node.id(),
            band: band.index,
        }
    }
}

type Outcome = Result<Arc<Tile>, Error>;
type Slot = Arc<OnceLock<Outcome>>;

/// Forgets the tile that is being computed if nobody else waits for it, unless it is forgotten
/// itself.
struct UnlistOnPanic<'a> {
    cache: &'a TileCache,
    key: TileKey,
    slot: &'a Slot,
    reader: Option<Arc<()>>,
}

impl Drop for UnlistOnPanic<'_> {
    fn drop(&mut self) {
        let mut state = self.cache.state.lock();
        drop(self.reader.take());
        let listed = state.tiles.peek(&self.key);
        let listed = listed.filter(|listed| Arc::ptr_eq(&listed.slot, self.slot));
        if listed.is_some_and(|listed| Arc::strong_count(&listed.readers) == 1) {
            state.tiles.pop(&self.key);
        }
    }
}

/// A bounded cache of [`Tile`]s. Two readers of one tile compute it once; nothing is computed
/// while the cache is locked.
#[derive(Debug)]
pub struct TileCache {
    capacity: usize,
    state: Mutex<State>,
}

/// A tile in the cache, computed or being computed.
#[derive(Debug, Default)]
struct Listed {
    slot: Slot,
    /// Held by every reader that waits for the slot, or computes it: one of them will finish it.
    readers: Arc<()>,
    /// What it adds to [`State::tile_bytes`]; `None` until its computation was taken into account.
    bytes: Option<usize>,
    /// Whether it also counts in [`State::spent_bytes`].
    spent: bool,
}

#[derive(Debug)]
struct State {
    tiles: LruCache<TileKey, Listed>,
    tile_bytes: usize,
    /// Bytes of tiles that were read to their end and are kept all the same.
    spent_bytes: usize,
    small: LruCache<(TileKey, usize), Arc<[u8]>>,
    small_bytes: usize,
}

impl TileCache {
    /// The part of the capacity that is set aside for small outputs.
    const SMALL_SHARE: usize = 8;
    /// The part of it that tiles may take which were read to their end.
    const SPENT_SHARE: usize = 16;

    /// A cache of at most `capacity` bytes of finished tiles. Tiles that are being computed come
    /// on top, at most one for each reader.
    pub fn new(capacity: usize) -> Self {
        TileCache {
            capacity,
            state: Mutex::new(State {
                tiles: LruCache::unbounded(),
                tile_bytes: 0,
                spent_bytes: 0,
                small: LruCache::unbounded(),
                small_bytes: 0,
            }),
        }
    }

    /// Most bytes of finished tiles that are held.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Tells that `bytes` bytes of `output` of tile `key` were given to a reader.
    ///
    /// A tile that was read to its end is mostly not read again: the kernel keeps what it gave to
    /// readers. Beyond a share of the capacity such tiles are dropped at once, and their memory,
    /// still in the processor's caches, serves for the next ones.
    pub fn served(&self, key: TileKey, output: &TileOutput, bytes: usize) {
        if !output.serve(bytes) {
            return;
        }
        let mut state = self.state.lock();
        let state = &mut *state;
        let Some(listed) = state.tiles.peek_mut(&key).filter(|listed| !listed.spent) else {
            return;
        };
        let Some(bytes) = listed.bytes else {
            return;
        };
        if state.spent_bytes + bytes <= self.capacity / Self::SPENT_SHARE {
            listed.spent = true;
            state.spent_bytes += bytes;
        } else {
            state.tiles.pop(&key);
            state.tile_bytes -= bytes;
        }
    }

    /// Bytes of finished tiles and small outputs now held.
    pub fn bytes(&self) -> usize {
        let state = self.state.lock();
        state.tile_bytes + state.small_bytes
    }

    /// Whether `output` of tile `key` is here or being computed.
    pub(super) fn knows(&self, key: TileKey, output: usize) -> bool {
        let state = self.state.lock();
        state.tiles.contains(&key) || state.small.contains(&(key, output))
    }

    /// Output `output` of tile `key`, computed by `compute` unless it is known. A failure is
    /// given to everyone who waits for it and then forgotten, so that a later reader tries anew.
    /// If `compute` panics, the next of those who wait computes it.
    pub fn output(
        &self,
        key: TileKey,
        output: usize,
        compute: impl FnOnce() -> Outcome,
    ) -> Result<TileOutput, Error> {
        let (slot, reader) = {
            let mut state = self.state.lock();
            if let Some(bytes) = state.small.get(&(key, output)) {
                return Ok(TileOutput::Small(bytes.clone()));
            }
            let listed = state.tiles.get_or_insert(key, Listed::default);
            (listed.slot.clone(), listed.readers.clone())
        };
        let mut computed_here = false;
        let outcome = slot.get_or_init(|| {
            computed_here = true;
            let mut unlist = UnlistOnPanic {
                cache: self,
                key,
                slot: &slot,
                reader: Some(reader),
            };
            let outcome = compute();
            unlist.reader = None;
            mem::forget(unlist);
            outcome
        });
        if computed_here {
            self.settle(key, &slot, outcome);
        }
        outcome
            .as_ref()
            .map(|tile| TileOutput::Of(tile.clone(), output))
            .map_err(Error::clone)
    }

    /// Takes a finished slot into account.
    fn settle(&self, key: TileKey, slot: &Slot, outcome: &Outcome) {
        let mut state = self.state.lock();
        let state = &mut *state;
        let listed = state.tiles.peek_mut(&key);
        let Some(listed) = listed.filter(|listed| Arc::ptr_eq(&listed.slot, slot)) else {
            return;
        };
        match outcome {
            Err(_) => {
                state.tiles.pop(&key);
            }
            Ok(tile) => {
                listed.bytes = Some(tile.bytes());
                state.tile_bytes += tile.bytes();
                // It was used now, not when its computation began.
                state.tiles.promote(&key);
                self.keep_small(state, key, tile);
                self.evict(state);
            }
        }
    }

    fn keep_small(&self, state: &mut State, key: TileKey, tile: &Tile) {
        for (output, bytes) in tile.outputs.iter().enumerate() {
            if tile.is_small(output) {
                state.small_bytes += bytes.len();
                let kept = Arc::from(&bytes[..]);
                if let Some(old) = state.small.put((key, output), kept) {
                    state.small_bytes -= old.len();
                }
            }
        }
        while state.small_bytes > self.capacity / Self::SMALL_SHARE {
            let Some((_, bytes)) = state.small.pop_lru() else {
                break;
            };
            state.small_bytes -= bytes.len();
        }
    }

    /// Drops the least recently used tiles. Those that are being computed stay, or else a second
    /// reader would compute them again.
    fn evict(&self, state: &mut State) {
        let capacity = self.capacity - self.capacity / Self::SMALL_SHARE;
        while state.tile_bytes > capacity {
            let oldest_first = state.tiles.iter().rev();
            let mut settled = oldest_first.filter(|(_, listed)| listed.bytes.is_some());
            let Some((&key, _)) = settled.next() else {
                break;
            };
            if let Some(Listed { bytes, spent, .. }) = state.tiles.pop(&key) {
                let bytes = bytes.unwrap_or(0);
                state.tile_bytes -= bytes;
                state.spent_bytes -= if spent { bytes } else { 0 };
            }
        }
    }
}
