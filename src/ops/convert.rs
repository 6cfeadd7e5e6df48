//! Floats in another dtype. The numbers are defined in [`crate::kernels::cast`].

use std::ops::Range;

use half::{bf16, f16};

use crate::catalog::{Band, Kernel, NonFinite, OperatorReport, RowBands, Step, Tensor};
use crate::error::{Code, Error, Result};
use crate::kernels::CpuPath;
use crate::kernels::cast::{self, F64ToF32, F64ToOdd, Source};
use crate::kernels::lanes::Precision;
use crate::tensor::Dtype;

/// How many tensors were given in another dtype.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Converted {
    /// Without those dequantized.
    pub(crate) cast: usize,
    /// Quantized tensors given as numbers.
    pub(crate) dequantized: usize,
}

impl OperatorReport for Converted {
    fn counts(&self) -> Vec<(&'static str, usize)> {
        vec![("cast", self.cast), ("dequantized", self.dequantized)]
    }
}

/// Whether [`convert`] takes a tensor of `dtype`.
pub(crate) fn is_convertible(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::BF16 | Dtype::F16 | Dtype::F32 | Dtype::F64)
}

/// `tensor` in dtype `to`: itself if that is its dtype, else computed, and called `name` in
/// messages.
///
/// # Errors
/// If its dtype is not BF16, F16, F32 or F64.
pub fn convert(name: &str, tensor: &Tensor, to: Precision) -> Result<Tensor> {
    if tensor.dtype == to.dtype() {
        return Ok(tensor.clone());
    }
    let Some(convert) = conversion(tensor.dtype, to) else {
        return Err(Error::of_tensor(
            Code::UnsupportedTensor,
            tensor.origin(),
            name,
            format!(
                "it is {}; only BF16, F16, F32 and F64 can be converted to {}",
                tensor.dtype,
                to.dtype()
            ),
        ));
    };
    let source_bytes = tensor.dtype.bitsize() as u64 / 8;
    let kernel = CastKernel {
        from: tensor.dtype,
        to,
        convert,
        source_bytes,
        target_bytes: to.bytes() as u64,
        elements: tensor.len() / source_bytes,
        path: CpuPath::best(),
    };
    Tensor::in_dtype(
        name,
        tensor,
        to.dtype(),
        vec![tensor.clone()],
        Box::new(kernel),
    )
}

/// A conversion of elements, from and to little-endian bytes.
pub(super) type Convert = fn(&[u8], &mut [u8], CpuPath);

/// That of elements of `from`, if it is a dtype of plain numbers.
pub(super) fn conversion(from: Dtype, to: Precision) -> Option<Convert> {
    match from {
        Dtype::BF16 => Some(conversion_from::<bf16>(to)),
        Dtype::F16 => Some(conversion_from::<f16>(to)),
        Dtype::F32 => Some(conversion_from::<f32>(to)),
        Dtype::F64 if to == Precision::F32 => Some(cast::convert::<F64ToF32, f32>),
        Dtype::F64 => Some(conversion_from::<F64ToOdd>(to)),
        _ => None,
    }
}

fn conversion_from<S: Source>(to: Precision) -> Convert {
    match to {
        Precision::Bf16 => cast::convert::<S, bf16>,
        Precision::F16 => cast::convert::<S, f16>,
        Precision::F32 => cast::convert::<S, f32>,
    }
}

/// The kernel half: input 0 is the tensor, seen as one long column; output 0 the same in another
/// dtype.
#[derive(Debug)]
struct CastKernel {
    from: Dtype,
    to: Precision,
    convert: Convert,
    source_bytes: u64,
    target_bytes: u64,
    elements: u64,
    path: CpuPath,
}

impl Kernel for CastKernel {
    fn identity(&self) -> String {
        format!(
            "{:?} as {:?}, {} elements",
            self.from, self.to, self.elements
        )
    }

    fn step(&self, _output: usize) -> Option<Step> {
        Some(Step::new("cast").with("to", self.to.dtype().to_string()))
    }

    fn bands(&self) -> RowBands {
        const TILE_ELEMENTS: u64 = 1 << 19;
        RowBands {
            groups: 1,
            rows_per_group: self.elements,
            band_rows: TILE_ELEMENTS,
        }
    }

    fn input_bytes(&self, _input: usize, band: &Band) -> Range<u64> {
        band.rows.start * self.source_bytes..band.rows.end * self.source_bytes
    }

    fn output_bytes(&self, _output: usize, band: &Band) -> Range<u64> {
        band.rows.start * self.target_bytes..band.rows.end * self.target_bytes
    }

    fn compute(
        &self,
        _facts: &[f64],
        _band: &Band,
        inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
    ) -> std::result::Result<(), NonFinite> {
        (self.convert)(inputs[0], outputs[0], self.path);
        Ok(())
    }
}
