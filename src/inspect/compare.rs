//! One checkpoint in several schemes, in one pass over its sources: every number is read once, and quantized in each.

use indexmap::IndexMap;

use crate::catalog::{Fidelity, Kernel, MeasuredRows, Tensor};
use crate::error::setting::{DIALECT, SCHEME};
use crate::error::{Code, Error, Hint, Result};
use crate::inspect::groups::{Inspection, MeasuredTensor};
use crate::inspect::quantized::{QuantizedTensor, quantized_tensors};
use crate::jobs::{self, Progress};
use crate::ops::Experts;
use crate::quant::SchemeRequest;
use crate::read::Reader;
use crate::recipe::ViewRequest;

/// A view of the checkpoint in one of the schemes: what reads it, and what it quantizes.
#[derive(Debug)]
pub struct Candidate {
    pub reader: Reader,
    pub tensors: Vec<QuantizedTensor>,
}

/// `request` in each of `schemes`, in their usual dialects; the reader of each keeps `cache_bytes` of what it computes.
///
/// # Errors
/// If `request` has a scheme or a dialect, or cannot be planned in one of the schemes.
pub fn candidates(
    request: &ViewRequest,
    schemes: &[SchemeRequest],
    cache_bytes: usize,
) -> Result<Vec<Candidate>> {
    let mut asked_for = None;
    let _ = request.clone().with(|asked| {
        let scheme = asked.quantize.scheme.is_some().then_some(SCHEME);
        asked_for = scheme.or(asked.quantize.dialect.is_some().then_some(DIALECT));
    });
    if let Some(setting) = asked_for {
        let problem =
            "the schemes to compare are in their usual dialects, and no other is measured";
        let error = Error::new(Code::Conflict, problem);
        return Err(error.with_hint(Hint::leave_out(setting)));
    }
    let candidates = schemes.iter().map(|scheme| {
        let request = request.clone().with(|asked| {
            asked.quantize.scheme = Some(scheme.clone());
            // All schemes are to have the same tensors, and some know only weights of modules.
            asked.experts.form.get_or_insert(Experts::Unfuse);
        });
        let plan = request.plan()?;
        Ok(Candidate {
            tensors: quantized_tensors(&plan),
            reader: Reader::new(plan.view.clone(), cache_bytes),
        })
    });
    candidates.collect()
}

/// What is measured in one pass: the tensor of this name in those of the candidates that quantize it.
struct Same<'a> {
    source: &'a Tensor,
    quantized: Vec<(usize, &'a QuantizedTensor)>,
}

/// Measures what each of `candidates` quantizes, in `jobs` threads: an inspection for each, in their order.
///
/// # Errors
/// If a source cannot be read, or holds NaN or infinity.
pub fn compare(
    candidates: &[Candidate],
    jobs: usize,
    progress: &dyn Progress,
) -> Result<Vec<Inspection>> {
    let mut names: IndexMap<(&str, &[u64]), Same> = IndexMap::new();
    for (i, candidate) in candidates.iter().enumerate() {
        for tensor in &candidate.tensors {
            // Of another shape, it is made of other numbers.
            let key = (&*tensor.name, &*tensor.source.shape);
            let same = names.entry(key).or_insert_with(|| Same {
                source: &tensor.source,
                quantized: Vec::new(),
            });
            same.quantized.push((i, tensor));
        }
    }
    let all: Vec<Same> = names.into_values().collect();
    progress.start(all.iter().map(|same| same.source.len()).sum());
    let measured = jobs::map(&all, jobs, |same| {
        progress.file(same.quantized[0].1.name.as_ref());
        measure(candidates, same, progress)
    })?;
    let mut inspected: Vec<Vec<MeasuredTensor>> = vec![Vec::new(); candidates.len()];
    for (same, fidelities) in all.iter().zip(measured) {
        for ((candidate, tensor), fidelity) in same.quantized.iter().zip(fidelities) {
            inspected[*candidate].push(tensor.measured(fidelity));
        }
    }
    Ok(inspected.into_iter().map(Inspection::new).collect())
}

/// The figures of one tensor in each candidate that quantizes it.
fn measure(
    candidates: &[Candidate],
    same: &Same,
    progress: &dyn Progress,
) -> Result<Vec<Fidelity>> {
    let mut runs: Vec<Run> = same.quantized.iter().map(|of| Run::new(of.1)).collect();
    // Bands of different kernels overlap: what some still need is kept.
    let (mut window, mut start) = (Vec::new(), 0);
    loop {
        let next = runs.iter().enumerate();
        let next = next.filter_map(|(i, run)| Some((run.source_start()?, i)));
        let Some((at, i)) = next.min() else {
            return Ok(runs.into_iter().map(|run| run.fidelity).collect());
        };
        jobs::check_going_on(progress)?;
        window.drain(..(at - start) as usize);
        start = at;
        let reader = &candidates[same.quantized[i].0].reader;
        let needed = (runs[i].source_end() - start) as usize;
        if needed > window.len() {
            let read = window.len();
            window.resize(needed, 0);
            let offset = start + read as u64;
            reader.read_tensor(same.source, offset, &mut window[read..])?;
            progress.advance((needed - read) as u64);
        }
        runs[i].measure(reader, &window[..needed])?;
    }
}

/// The bands of one kernel, one after the other.
struct Run<'a> {
    tensor: &'a QuantizedTensor,
    kernel: &'a dyn Kernel,
    next: u64,
    fidelity: Fidelity,
    /// Of what an output has nothing for a band, what it had for the bands before.
    outputs: Vec<Vec<u8>>,
}

impl<'a> Run<'a> {
    fn new(tensor: &'a QuantizedTensor) -> Self {
        Run {
            tensor,
            kernel: &*tensor.node.kernel,
            next: 0,
            fidelity: Fidelity {
                bytes: tensor.outputs.iter().map(Tensor::len).sum(),
                ..Fidelity::default()
            },
            outputs: vec![Vec::new(); tensor.outputs.len()],
        }
    }

    /// Where the source of its next band begins, if there is one.
    fn source_start(&self) -> Option<u64> {
        let bands = self.kernel.bands();
        let has_next = self.next < bands.count();
        has_next.then(|| self.kernel.input_bytes(0, &bands.band(self.next)).start)
    }

    fn source_end(&self) -> u64 {
        let band = self.kernel.bands().band(self.next);
        self.kernel.input_bytes(0, &band).end
    }

    /// Measures its next band, whose source is `source`.
    fn measure(&mut self, reader: &Reader, source: &[u8]) -> Result<()> {
        let band = self.kernel.bands().band(self.next);
        let computed = reader.computed_of(&self.tensor.node, &band, source)?;
        for (output, computed) in self.outputs.iter_mut().zip(computed) {
            if !computed.is_empty() {
                *output = computed;
            }
        }
        let outputs: Vec<&[u8]> = self.outputs.iter().map(Vec::as_slice).collect();
        let rows = MeasuredRows {
            source,
            source_dtype: self.tensor.source.dtype,
            outputs: &outputs,
            columns: *self.tensor.source.shape.last().expect("a matrix") as usize,
        };
        let measure = self.kernel.error_measure();
        let measure = measure.expect("of a kernel that quantizes");
        measure.measure(rows, &mut self.fidelity);
        self.next += 1;
        Ok(())
    }
}
