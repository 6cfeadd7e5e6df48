//! Measuring one tensor: source, codes and scales side by side, band by band.

use crate::catalog::{Fidelity, MeasuredRows, Tensor};
use crate::error::Result;
use crate::inspect::quantized::QuantizedTensor;
use crate::jobs::{self, Progress};
use crate::read::Reader;

/// Streams `tensor` and gives its figures.
pub(super) fn measure(
    reader: &Reader,
    tensor: &QuantizedTensor,
    progress: &dyn Progress,
) -> Result<Fidelity> {
    let kernel = &tensor.node.kernel;
    let measure = kernel.error_measure().expect("of a kernel that quantizes");
    let columns = *tensor.source.shape.last().expect("two dimensions or more") as usize;
    let mut fidelity = Fidelity {
        bytes: tensor.outputs.iter().map(Tensor::len).sum(),
        ..Fidelity::default()
    };
    let mut source = Vec::new();
    let mut outputs = vec![Vec::new(); tensor.outputs.len()];
    // The reader's own bands, so that every tile is computed once: by reading the first output, which
    // leaves the others in the cache.
    let bands = kernel.bands();
    for band in (0..bands.count()).map(|index| bands.band(index)) {
        jobs::check_going_on(progress)?;
        for (number, (output, bytes)) in tensor.outputs.iter().zip(&mut outputs).enumerate() {
            let range = kernel.output_bytes(number, &band);
            if range.is_empty() {
                // What is for the whole tensor came with its first band.
                continue;
            }
            bytes.resize((range.end - range.start) as usize, 0);
            reader.read_tensor(output, range.start, bytes)?;
        }
        let range = kernel.input_bytes(0, &band);
        source.resize((range.end - range.start) as usize, 0);
        reader.read_tensor(&tensor.source, range.start, &mut source)?;

        let outputs: Vec<&[u8]> = outputs.iter().map(Vec::as_slice).collect();
        let rows = MeasuredRows {
            source: &source,
            source_dtype: tensor.source.dtype,
            outputs: &outputs,
            columns,
        };
        measure.measure(rows, &mut fidelity);
        progress.advance(source.len() as u64);
    }
    Ok(fidelity)
}
