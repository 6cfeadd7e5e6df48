//! Reading a view: splices stored ranges, computes the rest tile by tile.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use crate::catalog::{Band, Extent, Extents, Node, NodeId, Tensor};
use crate::error::{Code, Error, Result};
use crate::fast_paths::FastPath;
use crate::memory;
use crate::read::computing::{Computing, For, copy_made};
use crate::read::facts_cache::FactsCache;
use crate::read::fetched::{Fetched, Piece};
use crate::read::stored::Stored;
use crate::read::tiles::TileKey;
use crate::source::Blob;
use crate::stats::{CacheStats, Origin, Reading, Served};
use crate::view::{EntryId, View};

/// Gives the bytes of a view's files. Shared by any number of threads.
#[derive(Debug)]
pub struct Reader {
    view: Arc<View>,
    computing: Computing,
    /// What was read ahead of what is stored.
    fetched: Fetched,
    /// Whether some source is on another machine.
    reads_remote: bool,
}

/// A tile, named by an output of a node that is wanted of it.
#[derive(Debug)]
pub(super) struct TileRef {
    node: Arc<Node>,
    output: usize,
    band: Band,
    /// Where its bytes end in the file for which it is wanted.
    pub(super) end: u64,
}

fn origin(place: &Extent) -> Origin {
    match place {
        Extent::Made { .. } => Origin::Made,
        Extent::Stored { .. } => Origin::Spliced,
        Extent::Computed { .. } => Origin::Computed,
    }
}

/// How many bytes of inputs that bands share are held at most: enough for several nodes of `view`.
fn shared_bytes(view: &View) -> usize {
    const NODES: usize = 4;
    const LEAST: usize = 64 << 20;
    let files = (0..view.len()).filter_map(|id| view.file(id));
    let segments = files.flat_map(Extents::segments);
    let nodes = segments.filter_map(|segment| segment.place.node());
    let largest = nodes.map(|node| shared_by(node)).max().unwrap_or(0);
    (largest as usize).saturating_mul(NODES).max(LEAST)
}

/// Bytes of inputs that bands of `node` share.
fn shared_by(node: &Node) -> u64 {
    let inputs = node.inputs.iter().enumerate();
    let shared = inputs.filter(|&(i, _)| node.kernel.shares_input(i));
    shared.map(|(_, tensor)| tensor.len()).sum()
}

/// Whether a source of `view` is on another machine.
fn reads_remote(view: &View) -> bool {
    fn any(extents: &Extents, seen: &mut HashSet<NodeId>) -> bool {
        extents
            .segments()
            .iter()
            .any(|segment| match &segment.place {
                Extent::Made { .. } => false,
                Extent::Stored { blob, .. } => blob.is_remote(),
                Extent::Computed { node, .. } => {
                    seen.insert(node.id())
                        && node.inputs.iter().any(|input| any(&input.extents, seen))
                }
            })
    }
    let mut seen = HashSet::new();
    let mut files = (0..view.len()).filter_map(|id| view.file(id));
    files.any(|extents| any(extents, &mut seen))
}

impl Reader {
    /// Most stored bytes that are read ahead, or an eighth of the cache if that is less.
    const MOST_FETCHED_BYTES: u64 = 32 << 20;
    /// Most bytes of one of their pieces: as many as a request of the kernel asks for.
    pub(super) const PIECE: u64 = 1 << 20;

    /// A reader that keeps at most `cache_bytes` bytes of computed tiles.
    pub fn new(view: Arc<View>, cache_bytes: usize) -> Self {
        Reader {
            computing: Computing::new(cache_bytes, shared_bytes(&view)),
            fetched: Fetched::new(Self::MOST_FETCHED_BYTES.min(cache_bytes as u64 / 8)),
            reads_remote: reads_remote(&view),
            view,
        }
    }

    /// The same, with facts kept on disk too.
    pub fn with_facts_cache(mut self, cache: FactsCache) -> Self {
        self.computing.facts_cache = Some(cache);
        self
    }

    /// The same, with sources read past the page cache where they are not in it.
    pub fn with_direct_sources(mut self) -> Self {
        self.computing.stored = Stored::new(FastPath::DirectSources.is_enabled());
        self
    }

    /// The view that is read.
    pub fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// Most bytes of computed tiles that are kept.
    pub fn cache_bytes(&self) -> usize {
        self.computing.tiles.capacity()
    }

    /// Bytes of computed tiles now in the cache.
    pub fn cached_bytes(&self) -> usize {
        self.computing.tiles.bytes()
    }

    /// What was counted of the reads so far.
    pub fn stats(&self) -> &Reading {
        &self.computing.stats
    }

    /// The state of the cache of tiles.
    pub fn cache_stats(&self) -> CacheStats {
        let (hits, misses) = self.computing.stats.hits_and_misses();
        CacheStats {
            capacity_bytes: self.cache_bytes() as u64,
            bytes: self.cached_bytes() as u64,
            kept_bytes: self.computing.shared.bytes() as u64,
            hits,
            misses,
        }
    }

    /// Bytes of sources that were read ahead, or are about to be, and wait for their reader.
    pub fn fetched_bytes(&self) -> u64 {
        self.fetched.bytes()
    }

    /// Fills `buffer` with the bytes of file `id` from `offset`; returns how many there were,
    /// less than `buffer.len()` only at the end of the file.
    pub fn read_at(&self, id: EntryId, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let content = self.file(id)?;
        let end = content
            .len()
            .min(offset.saturating_add(buffer.len() as u64));
        let mut done = 0;
        let mut served = Served::default();
        for piece in content.within(offset..end) {
            let part = &mut buffer[done..done + piece.len as usize];
            self.read_place(&piece.segment.place, piece.skip, part)?;
            served.add(origin(&piece.segment.place), piece.len);
            done += part.len();
        }
        self.computing.stats.served(served);
        Ok(done)
    }

    /// Lends `len` bytes of file `id` from `offset` (fewer at the end of the file) to `borrow`,
    /// straight from a computed tile or synthesized bytes where one holds them all; else they are
    /// put together in `scratch` first.
    pub fn read_with<R>(
        &self,
        id: EntryId,
        offset: u64,
        len: usize,
        scratch: &mut Vec<u8>,
        borrow: impl FnOnce(&[u8]) -> R,
    ) -> Result<R> {
        let content = self.file(id)?;
        let len = (len as u64).min(content.len().saturating_sub(offset));
        if let Some(piece) = content.within(offset..offset + len).next()
            && piece.len == len
        {
            match &piece.segment.place {
                Extent::Made { bytes, offset } => {
                    let from = (offset + piece.skip) as usize;
                    self.computing.stats.served(Served::new(Origin::Made, len));
                    return Ok(borrow(&bytes[from..from + len as usize]));
                }
                Extent::Computed {
                    node,
                    output,
                    offset,
                } => {
                    let at = offset + piece.skip;
                    let band = node.kernel.band_at(*output, at);
                    let range = node.kernel.output_bytes(*output, &band);
                    if at + len <= range.end {
                        let key = TileKey::new(node, &band);
                        let bytes = self.computing.tile_output(node, *output, band)?;
                        let from = (at - range.start) as usize;
                        self.computing
                            .stats
                            .served(Served::new(Origin::Computed, len));
                        let result = borrow(&bytes[from..from + len as usize]);
                        self.computing.tiles.served(key, &bytes, len as usize);
                        return Ok(result);
                    }
                }
                Extent::Stored { blob, offset } => {
                    let (at, len) = (offset + piece.skip, len as usize);
                    let lent = self.fetched.get(blob, at, len, &self.computing.stored)?;
                    if let Some(lent) = lent.filter(|lent| lent.len() == len) {
                        let result = borrow(&lent);
                        self.fetched.served(lent);
                        return Ok(result);
                    }
                }
            }
        }
        let len = len as usize;
        memory::resize(scratch, len + memory::PAGE)?;
        let start = memory::to_page(scratch);
        let bytes = &mut scratch[start..start + len];
        self.read_at(id, offset, bytes)?;
        Ok(borrow(bytes))
    }

    /// The tiles that hold computed bytes of `range` of file `id`: those that begin in it, and the
    /// first one of every segment that does.
    pub(super) fn tiles_in(&self, id: EntryId, range: Range<u64>) -> Vec<TileRef> {
        let mut tiles = Vec::new();
        let Some(content) = self.view.file(id) else {
            return tiles;
        };
        for piece in content.within(range) {
            let Extent::Computed {
                node,
                output,
                offset,
            } = &piece.segment.place
            else {
                continue;
            };
            let mut at = offset + piece.skip;
            let end = at + piece.len;
            let begins_here = piece.skip == 0;
            while at < end {
                let band = node.kernel.band_at(*output, at);
                let bytes = node.kernel.output_bytes(*output, &band);
                if bytes.start >= at || (begins_here && at == *offset) {
                    tiles.push(TileRef {
                        node: node.clone(),
                        output: *output,
                        band,
                        end: piece.segment.start + (bytes.end - offset),
                    });
                }
                at = bytes.end;
            }
        }
        tiles
    }

    /// Pieces of the stored bytes in `range` of file `id`, to be fetched, as far as there is room.
    pub(super) fn stored_in(&self, id: EntryId, range: Range<u64>) -> Vec<Arc<Piece>> {
        let mut pieces = Vec::new();
        let Some(content) = self.view.file(id) else {
            return pieces;
        };
        for piece in content.within(range) {
            let Extent::Stored { blob, offset } = &piece.segment.place else {
                continue;
            };
            let mut at = offset + piece.skip;
            let end = at + piece.len;
            while at < end {
                let to = end.min(at + Self::PIECE);
                let Some(piece) = self.fetched.plan(blob, at..to) else {
                    return pieces;
                };
                pieces.push(piece);
                at = to;
            }
        }
        pieces
    }

    /// Reads `piece` now, unless somebody did.
    pub(super) fn fetch(&self, piece: &Piece) {
        piece.fetch(&self.computing.stored);
    }

    /// The first node with facts to find whose bytes in file `id` begin soon after `offset`.
    pub(super) fn next_surveyed(&self, id: EntryId, offset: u64) -> Option<Arc<Node>> {
        /// Segments after that of `offset` that are looked at: a tensor and its scales.
        const SOON: usize = 3;
        let segments = self.view.file(id)?.segments_from(offset);
        segments
            .iter()
            .skip(1)
            .take(SOON)
            .filter_map(|segment| segment.place.node())
            .find(|node| node.surveyed_bytes() > 0)
            .cloned()
    }

    /// Finds the facts of `node` and of the nodes that it computes from, and the inputs that its bands share. What
    /// fails, fails again for whoever asks for bytes.
    pub(super) fn prepare_facts(&self, node: &Node) {
        for node in node.computed_inputs() {
            self.prepare_facts(node);
        }
        let _ = self.computing.facts(node);
        for (i, input) in node.inputs.iter().enumerate() {
            if node.kernel.shares_input(i) {
                let _ = self.computing.shared_input(input);
            }
        }
    }

    /// How sources are read.
    pub(crate) fn stored(&self) -> &Stored {
        &self.computing.stored
    }

    /// Whether sources are read past the page cache where they are not in it.
    pub fn has_direct_sources(&self) -> bool {
        self.computing.stored.is_direct()
    }

    /// Whether reads may wait for another machine.
    pub fn reads_remote(&self) -> bool {
        self.reads_remote
    }

    /// Whether reading `range` of file `id` waits for nothing but this machine, as far as that is known
    /// without reading.
    pub fn is_near(&self, id: EntryId, range: Range<u64>) -> bool {
        let content = self.view.file(id).filter(|_| self.reads_remote);
        let Some(content) = content else { return true };
        let range = range.start.min(content.len())..range.end.min(content.len());
        content
            .within(range)
            .all(|piece| match &piece.segment.place {
                Extent::Made { .. } => true,
                Extent::Stored { blob, offset } => {
                    let start = offset + piece.skip;
                    blob.is_near(&(start..start + piece.len))
                }
                Extent::Computed {
                    node,
                    output,
                    offset,
                } => {
                    let start = offset + piece.skip;
                    let mut at = start;
                    while at < start + piece.len {
                        let band = node.kernel.band_at(*output, at);
                        if !self.computing.tiles.has(TileKey::new(node, &band), *output) {
                            return false;
                        }
                        at = node.kernel.output_bytes(*output, &band).end;
                    }
                    true
                }
            })
    }

    /// Whether what tiles are computed from comes from something slower than memory.
    pub(super) fn waits_for_sources(&self) -> bool {
        self.computing.stored.pace.is_of_slow_sources()
    }

    /// Whether tiles take so long that a reader wants several processors.
    pub(super) fn waits_for_computing(&self) -> bool {
        self.computing.pace.is_of_slow_computing()
    }

    /// Computes `tile` into the cache, unless it is there or somebody is at it. If that fails,
    /// it fails again for whoever asks for its bytes, who is told.
    pub(super) fn prepare(&self, tile: &TileRef) {
        let TileRef {
            node, output, band, ..
        } = tile;
        if !self
            .computing
            .tiles
            .knows(TileKey::new(node, band), *output)
        {
            let _ = self.computing.find_tile(node, *output, band, For::Later);
        }
    }

    fn file(&self, id: EntryId) -> Result<&Extents> {
        let missing = || {
            Error::new(
                Code::NotAFile,
                format!("entry {id} of the view is not a file"),
            )
        };
        self.view.file(id).ok_or_else(missing)
    }

    /// Fills `buffer` with the bytes from `place`, `skip` bytes further on.
    fn read_place(&self, place: &Extent, skip: u64, buffer: &mut [u8]) -> Result<()> {
        match place {
            Extent::Made { bytes, offset } => {
                copy_made(bytes, offset + skip, buffer);
                Ok(())
            }
            Extent::Stored { blob, offset } => self.read_stored(blob, offset + skip, buffer),
            Extent::Computed {
                node,
                output,
                offset,
            } => self
                .computing
                .read_computed(node, *output, offset + skip, buffer),
        }
    }

    /// Fills `buffer` with the bytes of `tensor` from byte `offset`; `tensor` has that many. It
    /// need not be in the view itself: the inputs of computed tensors are read this way.
    pub fn read_tensor(&self, tensor: &Tensor, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.computing.read_tensor(tensor, offset, buffer)
    }

    /// The outputs of `band` of `node`, whose input 0 has the bytes `source` for it. Nothing of it is kept.
    pub(crate) fn computed_of(
        &self,
        node: &Node,
        band: &Band,
        source: &[u8],
    ) -> Result<Vec<Vec<u8>>> {
        self.computing.computed_of(node, band, source)
    }

    /// Computes `band` of `node` into `outputs`, past the cache.
    pub(super) fn compute_into(
        &self,
        node: &Node,
        band: &Band,
        outputs: Vec<Option<&mut [u8]>>,
    ) -> Result<()> {
        self.computing.compute_into(node, band, outputs)
    }

    /// Calls `visit` with the bytes `range` of output `output` of `node`, in order, tile by tile.
    pub fn stream_computed<E: From<Error>>(
        &self,
        node: &Node,
        output: usize,
        range: Range<u64>,
        visit: impl FnMut(&[u8]) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        self.computing.stream_computed(node, output, range, visit)
    }

    /// Fills `buffer` with the bytes of `blob` from `offset`, as far as they were read ahead from
    /// there.
    fn read_stored(&self, blob: &Arc<dyn Blob>, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let (mut at, mut rest) = (offset, buffer);
        while let Some(lent) = self
            .fetched
            .get(blob, at, rest.len(), &self.computing.stored)?
        {
            let (part, after) = rest.split_at_mut(lent.len());
            part.copy_from_slice(&lent);
            at += lent.len() as u64;
            self.fetched.served(lent);
            rest = after;
            if rest.is_empty() {
                return Ok(());
            }
        }
        self.computing.stored.read_into(&**blob, rest, at)
    }
}
