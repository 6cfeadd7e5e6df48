//! The cache of computed tiles: least recently used, bounded in bytes, single-flight.
//!
//! A tile holds one band of every output of a node. Outputs that are small beside the others (the
//! scales of a quantized tensor) are kept apart once known, so that reading a tensor's codes
//! makes its scales free even after the codes have left the cache.

use std::ops::Deref;
use std::sync::Arc;

use lru::LruCache;

use crate::catalog::{Band, Node, NodeId};
use crate::error::Result;
use crate::read::buffers::Buffer;
use crate::read::single_flight::{Keep, SingleFlight};
use crate::read::sync::{AtomicUsize, Ordering};

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

    pub(super) fn bytes(&self) -> usize {
        self.outputs.iter().map(|bytes| bytes.len()).sum()
    }

    /// Whether output `k` is so small that it is worth keeping when the tile goes: as scales are, one of 16 bits for 32 codes
    /// of 4 bits among them.
    fn is_small(&self, output: usize) -> bool {
        const SHARE: usize = 8;
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

/// A bounded cache of [`Tile`]s. Two readers of one tile compute it once; nothing is computed
/// while the cache is locked.
#[derive(Debug)]
pub struct TileCache {
    capacity: usize,
    tiles: SingleFlight<TileKey, Arc<Tile>, Kept>,
}

/// A finished tile.
#[derive(Debug)]
struct Finished {
    tile: Arc<Tile>,
    /// Whether it also counts in [`Kept::spent_bytes`].
    spent: bool,
}

/// Finished tiles and small outputs.
#[derive(Debug)]
struct Kept {
    capacity: usize,
    tiles: LruCache<TileKey, Finished>,
    tile_bytes: usize,
    /// Bytes of tiles that were read to their end and are kept all the same.
    spent_bytes: usize,
    small: LruCache<(TileKey, usize), Arc<[u8]>>,
    small_bytes: usize,
}

impl TileCache {
    /// A cache of at most `capacity` bytes of finished tiles. Tiles that are being computed come
    /// on top, at most one for each reader.
    pub fn new(capacity: usize) -> Self {
        TileCache {
            capacity,
            tiles: SingleFlight::new(Kept {
                capacity,
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
        if output.serve(bytes) {
            // Outside of the lock, since the tile may be freed.
            drop(self.tiles.kept(|kept| kept.spend(key)));
        }
    }

    /// Bytes of finished tiles and small outputs now held.
    pub fn bytes(&self) -> usize {
        self.tiles.kept(|kept| kept.tile_bytes + kept.small_bytes)
    }

    /// Whether `output` of tile `key` is here or being computed.
    pub(super) fn knows(&self, key: TileKey, output: usize) -> bool {
        self.tiles.knows(&key, |kept| {
            kept.tiles.contains(&key) || kept.small.contains(&(key, output))
        })
    }

    /// Whether `output` of tile `key` is here.
    pub(super) fn has(&self, key: TileKey, output: usize) -> bool {
        let is_kept =
            |kept: &mut Kept| kept.tiles.contains(&key) || kept.small.contains(&(key, output));
        self.tiles.kept(is_kept)
    }

    /// Output `output` of tile `key`, computed by `compute` unless it is known. A failure is
    /// given to everyone who waits for it and then forgotten, so that a later reader tries anew.
    /// If `compute` panics, the next of those who wait computes it.
    ///
    /// # Errors
    /// That of `compute`.
    pub fn output(
        &self,
        key: TileKey,
        output: usize,
        compute: impl FnOnce() -> Result<Arc<Tile>>,
    ) -> Result<TileOutput> {
        let find = |kept: &mut Kept| kept.find(key, output);
        let give = |tile: &Arc<Tile>| TileOutput::Of(tile.clone(), output);
        self.tiles.get(key, find, compute, give)
    }
}

impl Kept {
    /// The part of the capacity that is set aside for small outputs.
    const SMALL_SHARE: usize = 8;
    /// The part of it that tiles may take which were read to their end.
    const SPENT_SHARE: usize = 16;

    fn find(&mut self, key: TileKey, output: usize) -> Option<TileOutput> {
        if let Some(bytes) = self.small.get(&(key, output)) {
            return Some(TileOutput::Small(bytes.clone()));
        }
        let finished = self.tiles.get(&key)?;
        Some(TileOutput::Of(finished.tile.clone(), output))
    }

    /// Notes that tile `key` was read to its end; returns it if it is not kept any more.
    fn spend(&mut self, key: TileKey) -> Option<Arc<Tile>> {
        let finished = self.tiles.peek_mut(&key).filter(|tile| !tile.spent)?;
        let bytes = finished.tile.bytes();
        if self.spent_bytes + bytes <= self.capacity / Self::SPENT_SHARE {
            finished.spent = true;
            self.spent_bytes += bytes;
            return None;
        }
        self.tile_bytes -= bytes;
        self.tiles.pop(&key).map(|finished| finished.tile)
    }

    fn keep_small(&mut self, key: TileKey, tile: &Tile) {
        for (output, bytes) in tile.outputs.iter().enumerate() {
            if tile.is_small(output) {
                self.small_bytes += bytes.len();
                let kept = Arc::from(&bytes[..]);
                if let Some(old) = self.small.put((key, output), kept) {
                    self.small_bytes -= old.len();
                }
            }
        }
        while self.small_bytes > self.capacity / Self::SMALL_SHARE {
            let Some((_, bytes)) = self.small.pop_lru() else {
                break;
            };
            self.small_bytes -= bytes.len();
        }
    }

    /// Drops the least recently used tiles.
    fn evict(&mut self) {
        let capacity = self.capacity - self.capacity / Self::SMALL_SHARE;
        while self.tile_bytes > capacity {
            let Some((_, Finished { tile, spent })) = self.tiles.pop_lru() else {
                break;
            };
            self.tile_bytes -= tile.bytes();
            self.spent_bytes -= if spent { tile.bytes() } else { 0 };
        }
    }
}

impl Keep<TileKey, Arc<Tile>> for Kept {
    fn keep(&mut self, key: TileKey, tile: &Arc<Tile>) {
        self.tile_bytes += tile.bytes();
        let tile = tile.clone();
        self.keep_small(key, &tile);
        self.tiles.put(key, Finished { tile, spent: false });
        self.evict();
    }
}
