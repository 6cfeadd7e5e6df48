//! Experts of DeepSeek-V4 beside its FP8 weights: numbers of 4 bits (E2M1), two in a byte, the first in its lower half,
//! with a power of two for each 32 columns of a row.
//!
//! | tensor | dtype and shape |
//! |---|---|
//! | `X.weight` | I8 or U8 `[rows, columns / 2]` |
//! | `X.scale` | F8_E8M0 `[rows, columns / 32]` |

use std::ops::Range;

use half::{bf16, f16};
use indexmap::IndexMap;

use crate::catalog::{Band, Kernel, NonFinite, NumberKind, RowBands, Step, Tensor};
use crate::error::setting::DTYPE;
use crate::error::{Code, Error, Hint, Result};
use crate::kernels::CpuPath;
use crate::kernels::float8::e8m0_to_f32;
use crate::kernels::lanes::Precision;
use crate::kernels::microscaling::dequantize_e2m1_row;
use crate::quant::fp8_block::naming::scales;
use crate::tensor::{Dtype, Name, shape_text};

/// Columns that share a scale.
const GROUP: u64 = 32;

/// The numbers of the weight called `name`, in dtype `to`.
///
/// # Errors
/// If its scales are others.
pub(super) fn decoded(
    tensors: &IndexMap<Name, Tensor>,
    name: &str,
    codes: &Tensor,
    to: Precision,
) -> Result<Tensor> {
    let refuse = |problem: String| {
        let error = Error::of_tensor(Code::BadScales, codes.origin(), name, problem);
        Err(error.with_hint(Hint::leave_out(DTYPE)))
    };
    let (scale_name, scales) = scales(tensors, name).expect("it has scales, by which it is known");
    let columns = match *codes.shape {
        [rows, bytes] => bytes.checked_mul(2).map(|columns| [rows, columns]),
        _ => None,
    };
    let groups = |[rows, columns]: [u64; 2]| [rows, columns / GROUP];
    let shape = columns.filter(|shape| {
        shape[1].is_multiple_of(GROUP)
            && *scales.shape == groups(*shape)
            && scales.dtype == Dtype::F8_E8M0
    });
    let Some([rows, columns]) = shape else {
        return refuse(format!(
            "it is {} {}, two codes of 4 bits in each byte, and {scale_name} is {} {}, which is not a scale for each {GROUP} of them",
            codes.dtype,
            shape_text(&codes.shape),
            scales.dtype,
            shape_text(&scales.shape)
        ));
    };
    let kernel = NibbleKernel {
        groups: if columns == 0 {
            0
        } else {
            codes.len() * 2 / GROUP
        },
        to,
        path: CpuPath::best(),
    };
    let mut original = codes.clone();
    original.shape = vec![rows, columns].into();
    let inputs = vec![codes.clone(), scales.clone()];
    Tensor::in_dtype(name, &original, to.dtype(), inputs, Box::new(kernel))
}

/// The kernel half: input 0 are the codes, input 1 the scales; output 0 the numbers, seen as rows of one group each.
#[derive(Debug)]
struct NibbleKernel {
    groups: u64,
    to: Precision,
    path: CpuPath,
}

impl Kernel for NibbleKernel {
    fn identity(&self) -> String {
        format!("E2M1 times E8M0 as {:?}, {} groups", self.to, self.groups)
    }

    fn step(&self, _output: usize) -> Option<Step> {
        let step = Step::new("dequantize")
            .with("to", self.to.dtype().to_string())
            .with("bits", 4)
            .with("group", GROUP);
        Some(step)
    }

    fn number_kind(&self) -> Option<NumberKind> {
        Some(NumberKind::of_fp4_in(self.to.dtype()))
    }

    fn bands(&self) -> RowBands {
        RowBands {
            groups: 1,
            rows_per_group: self.groups,
            band_rows: (1 << 19) / GROUP,
        }
    }

    fn input_bytes(&self, input: usize, band: &Band) -> Range<u64> {
        let bytes = if input == 0 { GROUP / 2 } else { 1 };
        band.rows.start * bytes..band.rows.end * bytes
    }

    fn output_bytes(&self, _output: usize, band: &Band) -> Range<u64> {
        let bytes = GROUP * self.to.bytes() as u64;
        band.rows.start * bytes..band.rows.end * bytes
    }

    fn compute(
        &self,
        _facts: &[f64],
        _band: &Band,
        inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
    ) -> std::result::Result<(), NonFinite> {
        let scales: Vec<f32> = inputs[1].iter().map(|code| e8m0_to_f32(*code)).collect();
        let row = match self.to {
            Precision::Bf16 => dequantize_e2m1_row::<bf16>,
            Precision::F16 => dequantize_e2m1_row::<f16>,
            Precision::F32 => dequantize_e2m1_row::<f32>,
        };
        row(inputs[0], &scales, GROUP as usize, outputs[0], self.path);
        Ok(())
    }
}
