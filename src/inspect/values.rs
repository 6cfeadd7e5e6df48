//! NaN and infinity in what is to be quantized.

use half::{bf16, f16};
use serde::{Serialize, Serializer};

use crate::error::Result;
use crate::inspect::quantized::QuantizedTensor;
use crate::jobs::{self, Progress};
use crate::kernels::fp8::Element;
use crate::read::Reader;
use crate::tensor::Dtype;

/// A tensor with values that cannot be quantized.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NonFiniteValues {
    pub tensor: String,
    pub nan: u64,
    pub positive_infinity: u64,
    pub negative_infinity: u64,
    /// Where the first [`SHOWN_PLACES`] of them are, in row order.
    pub places: Vec<Place>,
}

/// The place of a value in a tensor. Rows count over all leading dimensions: row `r` of a
/// `[E, R, C]` tensor is `[r / R, r % R, ..]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Place {
    pub row: u64,
    pub column: u64,
    /// As text (`NaN`, `inf`, `-inf`) when serialized, since JSON has no such numbers.
    #[serde(serialize_with = "as_text")]
    pub value: f32,
}

/// How many places are told for each tensor.
pub const SHOWN_PLACES: usize = 10;

impl NonFiniteValues {
    /// The number of values that are not finite.
    pub fn total(&self) -> u64 {
        self.nan + self.positive_infinity + self.negative_infinity
    }
}

fn as_text<S: Serializer>(value: &f32, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// Streams the source of `tensor`; `None` if all of it is finite.
pub(super) fn check(
    reader: &Reader,
    tensor: &QuantizedTensor,
    progress: &dyn Progress,
) -> Result<Option<NonFiniteValues>> {
    const CHUNK_BYTES: u64 = 1 << 20; // a multiple of every element size

    let mut found = NonFiniteValues {
        tensor: tensor.name.clone(),
        nan: 0,
        positive_infinity: 0,
        negative_infinity: 0,
        places: Vec::new(),
    };
    let source = &tensor.source;
    let columns = *source.shape.last().expect("it has two dimensions or more");
    let element_bytes = source.dtype.bitsize() as u64 / 8;
    let mut buffer = vec![0; CHUNK_BYTES.min(source.len()) as usize];
    let mut offset = 0;
    while offset < source.len() {
        jobs::check_going_on(progress)?;
        let chunk = &mut buffer[..CHUNK_BYTES.min(source.len() - offset) as usize];
        reader.read_tensor(source, offset, chunk)?;
        let first = offset / element_bytes;
        match source.dtype {
            Dtype::BF16 => look::<bf16>(chunk, first, columns, &mut found),
            Dtype::F16 => look::<f16>(chunk, first, columns, &mut found),
            _ => look::<f32>(chunk, first, columns, &mut found),
        }
        progress.advance(chunk.len() as u64);
        offset += chunk.len() as u64;
    }
    Ok((found.total() > 0).then_some(found))
}

/// Adds what `chunk`, which begins with element `first` of a tensor with `columns` columns, holds.
fn look<T: Element>(chunk: &[u8], first: u64, columns: u64, found: &mut NonFiniteValues) {
    let elements = chunk.chunks_exact(T::BYTES);
    let largest = elements.clone().map(T::magnitude_bits).fold(0, u32::max);
    if T::from_magnitude_bits(largest).is_finite() {
        return;
    }
    for (element, value) in (first..).zip(elements.map(T::read)) {
        if value.is_finite() {
            continue;
        }
        if value.is_nan() {
            found.nan += 1;
        } else if value > 0.0 {
            found.positive_infinity += 1;
        } else {
            found.negative_infinity += 1;
        }
        if found.places.len() < SHOWN_PLACES {
            found.places.push(Place {
                row: element / columns,
                column: element % columns,
                value,
            });
        }
    }
}
