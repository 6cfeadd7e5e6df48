//! What quantization did to the numbers of a view: which values it cannot take, and how far the
//! quantized values are from the source's. Everything is streamed through a [`Reader`], the same
//! way as a mount reads; memory stays at a few bands of rows a thread.

mod compare;
mod groups;
mod measure;
mod quantized;
mod values;

use std::path::Path;

pub use compare::{Candidate, candidates, compare};
pub use groups::{Inspection, MeasuredGroup, MeasuredTensor};
pub use quantized::{QuantizedTensor, quantized_tensors};
pub use values::{NonFiniteValues, Place, SHOWN_PLACES};

pub use crate::catalog::{AmaxRange, Fidelity};
use crate::error::Result;
use crate::jobs::{self, Progress};
use crate::read::Reader;

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
        let fidelity = measure::measure(reader, tensor, progress)?;
        Ok(tensor.measured(fidelity))
    })?;
    Ok(Inspection::new(measured))
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
