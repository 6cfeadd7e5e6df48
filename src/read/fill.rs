//! Whole tensors, and slices of them, read into memory that waits for them.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::catalog::{Band, Extent, Node, NodeId, Tensor};
use crate::error::Result;
use crate::jobs::{self, Progress, check_going_on};
use crate::memory;
use crate::read::reader::Reader;

/// A tensor, and the memory for its bytes.
#[derive(Debug)]
pub struct Destination<'a> {
    pub tensor: &'a Tensor,
    /// As many as the tensor has.
    pub bytes: &'a mut [u8],
}

/// Work that does not depend on other work.
enum Task<'a> {
    /// Some bytes of a tensor, which begin at `offset`.
    Read {
        tensor: &'a Tensor,
        offset: u64,
        bytes: &'a mut [u8],
    },
    /// A band of a node, whose outputs are computed where they are wanted.
    Compute {
        node: &'a Arc<Node>,
        band: Band,
        outputs: Vec<Option<&'a mut [u8]>>,
    },
}

/// Runs of a tensor's bytes, all of one length and equally far from each other, and the memory for
/// them, one after the other.
struct Strips<'a> {
    start: u64,
    stride: u64,
    run: usize,
    bytes: &'a mut [u8],
}

impl Reader {
    /// Stored bytes that are read at once.
    const STORED: usize = 4 << 20;

    /// Fills the memory of each of `destinations` on `jobs` threads. What is computed is written
    /// where it belongs at once: a band of all tensors that it gives, such as codes and scales.
    ///
    /// # Errors
    /// If a source cannot be read or has changed, or `progress` is cancelled. The memory has any
    /// content then.
    pub fn fill(
        &self,
        destinations: Vec<Destination>,
        jobs: usize,
        progress: &dyn Progress,
    ) -> Result<()> {
        progress.start(destinations.iter().map(|d| d.bytes.len() as u64).sum());
        let tasks = Mutex::new(tasks(destinations).into_iter());
        let take = |(): &mut ()| tasks.lock().next();
        jobs::drain(jobs, take, |task| {
            check_going_on(progress)?;
            let done = task.bytes();
            match task {
                Task::Read {
                    tensor,
                    offset,
                    bytes,
                } => self.read_tensor(tensor, offset, bytes)?,
                Task::Compute {
                    node,
                    band,
                    outputs,
                } => self.compute_into(node, &band, outputs)?,
            }
            progress.advance(done);
            Ok(())
        })
    }

    /// Fills `bytes` with the elements of `tensor` in `ranges`, one for each dimension, in row-major
    /// order. Reads no more of stored tensors than these, or about twice that where they are close to
    /// each other.
    ///
    /// # Panics
    /// If `ranges` are not within the shape, or `bytes` has another length.
    pub fn fill_slice(
        &self,
        tensor: &Tensor,
        ranges: &[Range<u64>],
        bytes: &mut [u8],
        jobs: usize,
        progress: &dyn Progress,
    ) -> Result<()> {
        progress.start(bytes.len() as u64);
        let tasks = Mutex::new(strips(tensor, ranges, bytes).into_iter());
        let take = |(): &mut ()| tasks.lock().next();
        jobs::drain(jobs, take, |strips| {
            check_going_on(progress)?;
            let done = strips.bytes.len() as u64;
            self.read_strips(tensor, strips)?;
            progress.advance(done);
            Ok(())
        })
    }

    fn read_strips(&self, tensor: &Tensor, strips: Strips) -> Result<()> {
        let Strips {
            start,
            stride,
            run,
            bytes,
        } = strips;
        let count = (bytes.len() / run) as u64;
        let span = (count - 1) * stride + run as u64;
        let close_together = run as u64 * 2 >= stride;
        let mut within = tensor.extents.within(start..start + span);
        // Bands are computed as a whole, so between runs nothing is saved.
        let computed = within.any(|piece| piece.segment.place.node().is_some());
        if count == 1 || !(close_together || computed) {
            let mut at = start;
            for run in bytes.chunks_exact_mut(run) {
                self.read_tensor(tensor, at, run)?;
                at += stride;
            }
            return Ok(());
        }
        let mut all = self.stored().buffer(span as usize)?;
        self.read_tensor(tensor, start, &mut all)?;
        let runs = all.chunks(stride as usize);
        for (to, from) in bytes.chunks_exact_mut(run).zip(runs) {
            to.copy_from_slice(&from[..run]);
        }
        Ok(())
    }
}

impl Task<'_> {
    fn bytes(&self) -> u64 {
        let bytes = match self {
            Task::Read { bytes, .. } => bytes.len(),
            Task::Compute { outputs, .. } => {
                let outputs = outputs.iter().flatten();
                outputs.map(|bytes| bytes.len()).sum()
            }
        };
        bytes as u64
    }
}

/// The work for `destinations`, in their order.
fn tasks(destinations: Vec<Destination>) -> Vec<Task> {
    let mut tasks = Vec::new();
    // Of bands that are to be computed where they are wanted.
    let mut bands: HashMap<(NodeId, u64), usize> = HashMap::new();
    for Destination { tensor, bytes } in destinations {
        assert_eq!(bytes.len() as u64, tensor.len(), "memory for a tensor");
        memory::advise_huge_pages(bytes);
        let (mut rest, mut at) = (bytes, 0);
        for piece in tensor.extents.within(0..tensor.len()) {
            let (mut part, after) = rest.split_at_mut(piece.len as usize);
            rest = after;
            let Extent::Computed {
                node,
                output,
                offset,
            } = &piece.segment.place
            else {
                for bytes in part.chunks_mut(Reader::STORED) {
                    let (offset, len) = (at, bytes.len() as u64);
                    tasks.push(Task::Read {
                        tensor,
                        offset,
                        bytes,
                    });
                    at += len;
                }
                continue;
            };
            let mut of_output = offset + piece.skip;
            while !part.is_empty() {
                let band = node.kernel.band_at(*output, of_output);
                let range = node.kernel.output_bytes(*output, &band);
                let len = (range.end - of_output).min(part.len() as u64);
                let (bytes, after) = part.split_at_mut(len as usize);
                part = after;
                let whole = of_output == range.start && len == range.end - range.start;
                let key = (node.id(), band.index);
                let known = bands.get(&key).map(|&task| &mut tasks[task]);
                match known {
                    // What two tensors have of one output is computed for the first, and read for others.
                    Some(Task::Compute { outputs, .. }) if whole && outputs[*output].is_none() => {
                        outputs[*output] = Some(bytes);
                    }
                    None if whole => {
                        let outputs = (0..node.kernel.outputs()).map(|_| None);
                        let mut outputs: Vec<Option<&mut [u8]>> = outputs.collect();
                        outputs[*output] = Some(bytes);
                        bands.insert(key, tasks.len());
                        tasks.push(Task::Compute {
                            node,
                            band,
                            outputs,
                        });
                    }
                    _ => tasks.push(Task::Read {
                        tensor,
                        offset: at,
                        bytes,
                    }),
                }
                at += len;
                of_output += len;
            }
        }
    }
    tasks
}

/// The runs of `tensor` that `ranges` are, each piece of `bytes` with those that it is for.
fn strips<'a>(tensor: &Tensor, ranges: &[Range<u64>], bytes: &'a mut [u8]) -> Vec<Strips<'a>> {
    assert_eq!(
        ranges.len(),
        tensor.shape.len(),
        "a range for each dimension"
    );
    let lens: Vec<u64> = ranges.iter().map(|range| range.end - range.start).collect();
    let bits: u64 = lens.iter().product::<u64>() * tensor.dtype.bitsize() as u64;
    assert_eq!(bits, bytes.len() as u64 * 8, "memory for a slice");
    if bytes.is_empty() {
        return Vec::new();
    }
    // Bits from one index of a dimension to the next.
    let mut strides = vec![tensor.dtype.bitsize() as u64; ranges.len() + 1];
    for (i, len) in tensor.shape.iter().enumerate().rev() {
        strides[i] = strides[i + 1] * len;
    }
    // Dimensions after this one are whole, so that its range is one run.
    let is_cut = |i: &usize| lens[*i] != tensor.shape[*i];
    let last = (0..ranges.len()).rev().find(is_cut).unwrap_or(0);
    let first = ranges
        .first()
        .map_or(0, |_| ranges[last].start * strides[last + 1]);
    let run = lens
        .get(last)
        .map_or(strides[0], |len| len * strides[last + 1])
        / 8;
    let run = run as usize;
    let mut strips = Vec::new();
    let mut rest = bytes;
    if last == 0 {
        let mut start = first / 8;
        for bytes in rest.chunks_mut(Reader::STORED) {
            let run = bytes.len();
            strips.push(Strips {
                start,
                stride: run as u64,
                run,
                bytes,
            });
            start += run as u64;
        }
        return strips;
    }
    let (stride, count) = (strides[last] / 8, lens[last - 1]);
    let row = ranges[last - 1].start * strides[last];
    let mut index: Vec<u64> = ranges.iter().take(last - 1).map(|r| r.start).collect();
    while !rest.is_empty() {
        let outer = index
            .iter()
            .zip(&strides[1..])
            .map(|(i, stride)| i * stride);
        let mut start = (outer.sum::<u64>() + row + first) / 8;
        let mut left = count;
        while left > 0 {
            let at_once = (Reader::STORED as u64 / stride.max(1)).clamp(1, left);
            let (bytes, after) = rest.split_at_mut(at_once as usize * run);
            rest = after;
            strips.push(Strips {
                start,
                stride,
                run,
                bytes,
            });
            start += at_once * stride;
            left -= at_once;
        }
        for i in (0..index.len()).rev() {
            index[i] += 1;
            if index[i] < ranges[i].end {
                break;
            }
            index[i] = ranges[i].start;
        }
    }
    strips
}
