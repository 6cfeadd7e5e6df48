//! Computing what a view does not store: the tiles of nodes, from inputs that may be computed
//! themselves.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use crate::catalog::{Band, Extent, Node, Strips, Tensor};
use crate::error::{Error, NonFinite, Result};
use crate::read::buffers::Buffer;
use crate::read::facts::{FactStore, survey};
use crate::read::facts_cache::FactsCache;
use crate::read::input::Input;
use crate::read::pace::Pace;
use crate::read::stored::Stored;
use crate::read::tiles::{Tile, TileCache, TileKey, TileOutput};
use crate::stats::Reading;

/// For whom a tile is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    /// A request, or a tile that is made of it.
    Use,
    /// Whoever may ask for it soon.
    Later,
}

/// Computes what a view does not store, and keeps what was computed.
#[derive(Debug)]
pub(super) struct Computing {
    pub(super) tiles: TileCache,
    /// Whole inputs that many bands share, each a tile of its own.
    pub(super) shared: TileCache,
    facts: FactStore,
    pub(super) facts_cache: Option<FactsCache>,
    pub(super) stored: Stored,
    /// Of tiles.
    pub(super) pace: Pace,
    pub(super) stats: Reading,
}

impl Computing {
    /// Keeps at most `tile_bytes` bytes of tiles, and `shared_bytes` of inputs that bands share.
    pub(super) fn new(tile_bytes: usize, shared_bytes: usize) -> Self {
        Computing {
            tiles: TileCache::new(tile_bytes),
            shared: TileCache::new(shared_bytes),
            facts: FactStore::default(),
            facts_cache: None,
            stored: Stored::default(),
            pace: Pace::default(),
            stats: Reading::default(),
        }
    }

    /// Calls `visit` with the bytes `range` of output `output` of `node`, in order, tile by tile.
    pub(super) fn stream_computed<E: From<Error>>(
        &self,
        node: &Node,
        output: usize,
        range: Range<u64>,
        mut visit: impl FnMut(&[u8]) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let mut at = range.start;
        while at < range.end {
            let band = node.kernel.band_at(output, at);
            let of_band = node.kernel.output_bytes(output, &band);
            let key = TileKey::new(node, &band);
            let bytes = self.tile_output(node, output, band)?;
            let end = range.end.min(of_band.end);
            let part = &bytes[(at - of_band.start) as usize..(end - of_band.start) as usize];
            visit(part)?;
            self.tiles.served(key, &bytes, part.len());
            at = end;
        }
        Ok(())
    }

    /// Fills `buffer` with the bytes of `tensor` from byte `offset`; `tensor` has that many.
    pub(super) fn read_tensor(
        &self,
        tensor: &Tensor,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<()> {
        let mut rest = buffer;
        for piece in tensor.extents.within(offset..offset + rest.len() as u64) {
            let (part, after) = rest.split_at_mut(piece.len as usize);
            match &piece.segment.place {
                Extent::Made { bytes, offset } => copy_made(bytes, offset + piece.skip, part),
                // What is computed from is not what readers wait for: it is not looked up in what was
                // read ahead for them.
                Extent::Stored { blob, offset } => {
                    self.stored.read_into(&**blob, part, offset + piece.skip)?;
                }
                Extent::Computed {
                    node,
                    output,
                    offset,
                } => self.read_computed(node, *output, offset + piece.skip, part)?,
            }
            rest = after;
        }
        Ok(())
    }

    /// Fills `buffer` with the bytes of output `output` of `node` from byte `offset`.
    pub(super) fn read_computed(
        &self,
        node: &Node,
        output: usize,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done as u64;
            let band = node.kernel.band_at(output, at);
            let range = node.kernel.output_bytes(output, &band);
            let key = TileKey::new(node, &band);
            let bytes = self.tile_output(node, output, band)?;
            let from = (at - range.start) as usize;
            let count = (bytes.len() - from).min(buffer.len() - done);
            buffer[done..done + count].copy_from_slice(&bytes[from..from + count]);
            self.tiles.served(key, &bytes, count);
            done += count;
        }
        Ok(())
    }

    pub(super) fn tile_output(&self, node: &Node, output: usize, band: Band) -> Result<TileOutput> {
        self.find_tile(node, output, &band, For::Use)
    }

    /// The bytes of output `output` of the tile `band` of `node`. What is counted of it is counted
    /// before anybody has the tile, so that the figures fit what a reader has seen.
    pub(super) fn find_tile(
        &self,
        node: &Node,
        output: usize,
        band: &Band,
        purpose: For,
    ) -> Result<TileOutput> {
        let mut computed = false;
        let bytes = self.tiles.output(TileKey::new(node, band), output, || {
            let facts = self.facts(node)?;
            let start = Instant::now();
            let tile = self.compute(node, band, &facts)?;
            let time = start.elapsed();
            self.pace.note(tile.bytes(), time);
            self.stats.tile(time);
            match purpose {
                For::Use => self.stats.miss(),
                For::Later => self.stats.tile_ahead(),
            }
            computed = true;
            Ok(Arc::new(tile))
        })?;
        if purpose == For::Use && !computed {
            self.stats.hit();
        }
        Ok(bytes)
    }

    /// The bytes of every input of `node` that `band` needs.
    fn inputs(&self, node: &Node, band: &Band) -> Result<Vec<Input>> {
        self.inputs_from(0, node, band)
    }

    /// The same of the inputs from number `first` on.
    fn inputs_from(&self, first: usize, node: &Node, band: &Band) -> Result<Vec<Input>> {
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for (i, tensor) in node.inputs.iter().enumerate().skip(first) {
            if let Some(strips) = node.kernel.input_strips(i, band) {
                inputs.push(Input::Read(self.strips(tensor, &strips)?));
                continue;
            }
            let range = node.kernel.input_bytes(i, band);
            if node.kernel.shares_input(i) {
                let within = range.start as usize..range.end as usize;
                inputs.push(Input::Shared(self.shared_input(tensor)?, within));
                continue;
            }
            inputs.push(Input::Read(self.input(tensor, range)?));
        }
        Ok(inputs)
    }

    /// The bytes `range` of `tensor`.
    fn input(&self, tensor: &Tensor, range: Range<u64>) -> Result<Buffer> {
        if let Some((blob, offset)) = tensor.as_stored() {
            let range = offset + range.start..offset + range.end;
            return self.stored.read(&**blob, range);
        }
        let len = (range.end - range.start) as usize;
        let mut bytes = self.stored.buffers.take(len)?;
        self.read_tensor(tensor, range.start, &mut bytes)?;
        Ok(bytes)
    }

    /// The bytes of `strips` of `tensor`, one after the other.
    fn strips(&self, tensor: &Tensor, strips: &Strips) -> Result<Buffer> {
        let mut bytes = self.stored.buffers.take(strips.len() as usize)?;
        let mut rest = &mut bytes[..];
        for range in strips.ranges() {
            let (strip, after) = rest.split_at_mut((range.end - range.start) as usize);
            self.read_tensor(tensor, range.start, strip)?;
            rest = after;
        }
        Ok(bytes)
    }

    /// What the kernel of `node` must know before its first band.
    pub(super) fn facts(&self, node: &Node) -> Result<Arc<[f64]>> {
        let Some(surveyed) = node.kernel.survey() else {
            return Ok(Arc::default());
        };
        self.facts.get_or_find(node.id(), || {
            let find = || {
                let start = Instant::now();
                let facts = survey(node, surveyed, &|band| self.inputs(node, band))?;
                self.stats.survey(start.elapsed());
                Ok(facts)
            };
            match &self.facts_cache {
                Some(cache) => cache.get_or_find(node, find),
                None => find(),
            }
        })
    }

    fn compute(&self, node: &Node, band: &Band, facts: &[f64]) -> Result<Tile> {
        let outputs = (0..node.kernel.outputs()).map(|k| self.output_buffer(node, k, band));
        let mut outputs: Vec<Buffer> = outputs.collect::<Result<_>>()?;
        let mut slices: Vec<&mut [u8]> = outputs.iter_mut().map(|bytes| &mut **bytes).collect();
        self.compute_outputs(node, band, facts, &mut slices)?;
        Ok(Tile::new(outputs))
    }

    /// Computes `band` of `node` into `outputs`, each as long as its output of the band; what is not
    /// wanted is none of them.
    pub(super) fn compute_into(
        &self,
        node: &Node,
        band: &Band,
        outputs: Vec<Option<&mut [u8]>>,
    ) -> Result<()> {
        let facts = self.facts(node)?;
        let start = Instant::now();
        let unwanted = outputs.iter().enumerate().filter(|(_, o)| o.is_none());
        let unwanted = unwanted.map(|(k, _)| self.output_buffer(node, k, band));
        let mut unwanted: Vec<Buffer> = unwanted.collect::<Result<_>>()?;
        let mut unwanted = unwanted.iter_mut();
        let slices = outputs.into_iter().map(|output| {
            output.unwrap_or_else(|| unwanted.next().expect("there is one for each"))
        });
        let mut slices: Vec<&mut [u8]> = slices.collect();
        self.compute_outputs(node, band, &facts, &mut slices)?;
        self.stats.tile(start.elapsed());
        Ok(())
    }

    fn output_buffer(&self, node: &Node, output: usize, band: &Band) -> Result<Buffer> {
        let range = node.kernel.output_bytes(output, band);
        self.stored.buffer((range.end - range.start) as usize)
    }

    fn compute_outputs(
        &self,
        node: &Node,
        band: &Band,
        facts: &[f64],
        outputs: &mut [&mut [u8]],
    ) -> Result<()> {
        let inputs = self.inputs(node, band)?;
        let slices: Vec<&[u8]> = inputs.iter().map(Input::bytes).collect();
        run(node, band, facts, &slices, outputs)
    }

    /// The outputs of `band`, whose input 0 has the bytes `source` for it.
    pub(super) fn computed_of(
        &self,
        node: &Node,
        band: &Band,
        source: &[u8],
    ) -> Result<Vec<Vec<u8>>> {
        let facts = self.facts(node)?;
        let others = self.inputs_from(1, node, band)?;
        let others = others.iter().map(Input::bytes);
        let slices: Vec<&[u8]> = std::iter::once(source).chain(others).collect();
        let outputs = (0..node.kernel.outputs()).map(|k| {
            let range = node.kernel.output_bytes(k, band);
            vec![0; (range.end - range.start) as usize]
        });
        let mut outputs: Vec<Vec<u8>> = outputs.collect();
        let mut output_slices: Vec<&mut [u8]> = outputs.iter_mut().map(Vec::as_mut_slice).collect();
        run(node, band, &facts, &slices, &mut output_slices)?;
        Ok(outputs)
    }

    /// The whole of `tensor`, which bands of a kernel [share](crate::catalog::Kernel::shares_input).
    pub(super) fn shared_input(&self, tensor: &Tensor) -> Result<TileOutput> {
        let node = tensor
            .nodes()
            .next()
            .expect("what is shared is output 0 of a node");
        let band = node.kernel.bands().band(0);
        let key = TileKey::new(node, &band);
        self.shared.output(key, 0, || {
            let facts = self.facts(node)?;
            self.compute(node, &band, &facts).map(Arc::new)
        })
    }
}

/// Computes `band` of `node`.
fn run(
    node: &Node,
    band: &Band,
    facts: &[f64],
    inputs: &[&[u8]],
    outputs: &mut [&mut [u8]],
) -> Result<()> {
    let computed = node.kernel.compute(facts, band, inputs, outputs);
    computed.map_err(|fault| {
        if let Some(error) = node.kernel.describe_fault(band, &fault) {
            return error.about_tensor(&*node.name);
        }
        let found = NonFinite {
            row: band.group * node.kernel.bands().rows_per_group + fault.row,
            column: fault.column,
            value: fault.value,
        };
        Error::non_finite(&*node.name, found)
    })
}

/// Fills `buffer` with what stands at `offset` of `bytes`.
pub(super) fn copy_made(bytes: &[u8], offset: u64, buffer: &mut [u8]) {
    let from = offset as usize;
    buffer.copy_from_slice(&bytes[from..from + buffer.len()]);
}
