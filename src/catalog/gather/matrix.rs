//! The tensor that matrices of parts are: runs of bytes, or what a kernel computes.

use std::sync::Arc;

use crate::catalog::gather::kernel::GatherKernel;
use crate::catalog::gather::part::{Gather, Part};
use crate::catalog::tensor::{Extents, Node, Tensor};
use crate::error::{Code, Error, Result};

/// More runs of bytes than these are not kept for a tensor, and no shorter ones: a kernel takes less memory
/// and time for them.
const MAX_RUNS: u64 = 4096;
const MIN_RUN_BYTES: u64 = 64;

impl Gather {
    /// The tensor of `shape`, called `name` in messages, that this makes of `inputs`, one for each part, all of
    /// one dtype. It belongs to the shard that the first of them belongs to.
    ///
    /// # Errors
    /// If rows or elements would not take whole bytes.
    pub(crate) fn tensor(self, name: &str, inputs: Vec<Tensor>, shape: Vec<u64>) -> Result<Tensor> {
        let &Tensor { dtype, home, .. } = &inputs[0];
        let bits = dtype.bitsize() as u64;
        if self.rows == 0 || self.columns == 0 {
            return Ok(inputs[0].slice(0, shape));
        }
        let has_whole_bytes = matches!(bits, 8 | 16 | 32 | 64);
        let moves_runs = self.moves_runs();
        if moves_runs && (self.has_few_long_runs(bits) || !has_whole_bytes) {
            let Some(extents) = self.extents(&inputs, bits) else {
                let what = "the runs of elements that would move do not take whole bytes";
                return Err(partial_bytes(name, &inputs[0], what));
            };
            return Ok(Tensor {
                dtype,
                shape: shape.into(),
                extents,
                home,
            });
        }
        if !has_whole_bytes {
            let what =
                "its elements do not take whole bytes, so that they cannot be put in another order";
            return Err(partial_bytes(name, &inputs[0], what));
        }
        let kernel = GatherKernel {
            gather: self,
            width: bits / 8,
        };
        let node = Arc::new(Node::new(name, inputs, Box::new(kernel)));
        Ok(Tensor::computed(node, 0, dtype, shape, home))
    }

    /// Whether elements that follow each other in a row do so in the inputs.
    fn moves_runs(&self) -> bool {
        let is_run = |part: &Part| part.count <= 1 || (part.column_stride, part.step) == (1, 1);
        self.parts.iter().all(is_run)
    }

    /// Whether its runs of elements are worth being kept.
    fn has_few_long_runs(&self, bits: u64) -> bool {
        let rows = self.groups().saturating_mul(self.rows);
        let runs = rows.saturating_mul(self.parts.len() as u64);
        let is_long = |part: &Part| part.count.saturating_mul(bits) >= 8 * MIN_RUN_BYTES;
        rows == 1 || runs <= MAX_RUNS && self.parts.iter().all(is_long)
    }

    /// The runs of bytes, if they are of whole bytes.
    fn extents(&self, inputs: &[Tensor], bits: u64) -> Option<Extents> {
        let mut in_order: Vec<(&Part, &Tensor)> = self.parts.iter().zip(inputs).collect();
        in_order.sort_by_key(|(part, _)| part.first);
        let bytes = |elements: u64| {
            let bits = elements.checked_mul(bits)?;
            bits.is_multiple_of(8).then_some(bits / 8)
        };
        let mut runs = Vec::with_capacity(in_order.len() * (self.groups() * self.rows) as usize);
        for row in 0..self.groups() * self.rows {
            let group = self.group_start(row / self.rows);
            for (part, input) in &in_order {
                let start = group + part.start + row % self.rows * part.row_stride;
                let range = bytes(start)?..bytes(start + part.count)?;
                runs.push(input.extents.slice(range));
            }
        }
        Some(Extents::concat(runs))
    }
}

fn partial_bytes(name: &str, tensor: &Tensor, what: &str) -> Error {
    let problem = format!("it is {}: {what}", tensor.dtype);
    Error::of_tensor(Code::UnsupportedTensor, tensor.origin(), name, problem)
}
