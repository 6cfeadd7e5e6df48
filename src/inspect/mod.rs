//! What quantization did to the numbers of a view: which values it cannot take, and how far the
//! quantized values are from the source's. Everything is streamed through a [`Reader`], the same
//! way as a mount reads; memory stays at a few bands of rows a thread.

mod groups;
mod measure;
mod values;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

pub use groups::{Inspection, MeasuredGroup, MeasuredTensor};
pub use values::{NonFiniteValues, Place, SHOWN_PLACES};

pub use crate::catalog::{AmaxRange, Fidelity};
use crate::catalog::{Node, Tensor};
use crate::error::Result;
use crate::jobs::{self, Progress};
use crate::layout::PlannedTensor;
use crate::quant::companions;
use crate::read::Reader;
use crate::recipe::Plan;

/// A tensor that a view quantizes.
#[derive(Debug, Clone)]
pub struct QuantizedTensor {
    pub name: String,
    /// What is quantized: BF16, F16 or F32 of shape `[rows, cols]` or `[n, rows, cols]`. It may
    /// be computed itself.
    pub source: Tensor,
    /// What it becomes: the outputs of `node`, its codes first.
    pub outputs: Vec<Tensor>,
    node: Arc<Node>,
}

/// The tensors that the view of `plan` quantizes, in the order of its shards. Tensors without
/// elements are left out: there is nothing to look at in them.
pub fn quantized_tensors(plan: &Plan) -> Vec<QuantizedTensor> {
    let mut quantized = Vec::new();
    for shard in &plan.shards {
        let tensors = shard.tensors.iter();
        let by_name: HashMap<&str, &PlannedTensor> =
            tensors.map(|tensor| (&*tensor.name, tensor)).collect();
        for tensor in &shard.tensors {
            if let Some((node, 0)) = computed(tensor)
                && node.kernel.error_measure().is_some()
            {
                // All outputs of one node share a shard.
                let mut outputs = vec![tensor.tensor()];
                let companions = companions(&tensor.name);
                let companions = companions.filter_map(|name| by_name.get(name.as_str()).copied());
                outputs.extend(companions.map(PlannedTensor::tensor));
                quantized.push(QuantizedTensor {
                    name: tensor.name.to_string(),
                    source: node.inputs[0].clone(),
                    outputs,
                    node: node.clone(),
                });
            }
        }
    }
    quantized
}

/// The node and output that `tensor` is, if it is one as a whole.
fn computed(tensor: &PlannedTensor) -> Option<(&Arc<Node>, usize)> {
    match tensor.extents.as_computed()? {
        (node, output, 0) if tensor.len > 0 => Some((node, output)),
        _ => None,
    }
}

/// Looks for NaN and infinity in the sources of `tensors`, in `jobs` threads. Gives an account of
/// every tensor that has some, in the order of `tensors`.
///
/// # Errors
/// If a source cannot be read.
pub fn check_values(
    reader: &Reader,
    tensors: &[QuantizedTensor],
    jobs: usize,
    progress: &dyn Progress,
) -> Result<Vec<NonFiniteValues>> {
    let found = map(tensors, jobs, progress, |tensor| {
        values::check(reader, tensor, progress)
    })?;
    Ok(found.into_iter().flatten().collect())
}

/// Compares the quantized values of `tensors` with their sources, in `jobs` threads. The result
/// does not depend on `jobs`.
///
/// # Errors
/// If a source cannot be read, or holds NaN or infinity ([`check_values`] finds all of them).
pub fn inspect(
    reader: &Reader,
    tensors: &[QuantizedTensor],
    jobs: usize,
    progress: &dyn Progress,
) -> Result<Inspection> {
    let measured = map(tensors, jobs, progress, |tensor| {
        Ok(MeasuredTensor {
            name: tensor.name.clone(),
            source_dtype: tensor.source.dtype.to_string(),
            shape: tensor.source.shape.to_vec(),
            fidelity: measure::measure(reader, tensor, progress)?,
        })
    })?;
    Ok(Inspection::of(measured))
}

/// The results of `work` on each of `tensors`, in their order; `progress` counts source bytes.
fn map<R: Send + Sync>(
    tensors: &[QuantizedTensor],
    jobs: usize,
    progress: &dyn Progress,
    work: impl Fn(&QuantizedTensor) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    progress.start(tensors.iter().map(|tensor| tensor.source.len()).sum());
    jobs::map(tensors, jobs, |tensor| {
        progress.file(Path::new(&tensor.name));
        work(tensor)
    })
}
