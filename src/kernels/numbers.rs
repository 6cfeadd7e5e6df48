//! The numbers of any dtype that is compared, as f64.

use half::{bf16, f16};

use crate::kernels::float8::e4m3_to_f32;
use crate::tensor::Dtype;

/// Whether [`decode`] knows the numbers of `dtype`.
pub(crate) fn is_known(dtype: Dtype) -> bool {
    use Dtype::{BF16, F8_E4M3, F16, F32, F64};
    matches!(dtype, BF16 | F16 | F32 | F64 | F8_E4M3)
}

/// Makes `numbers` those of `bytes`, elements of a dtype that [is known](is_known).
pub(crate) fn decode(dtype: Dtype, bytes: &[u8], numbers: &mut Vec<f64>) {
    numbers.clear();
    match dtype {
        Dtype::BF16 => numbers.extend(
            bytes
                .as_chunks()
                .0
                .iter()
                .map(|b| bf16::from_le_bytes(*b).to_f64()),
        ),
        Dtype::F16 => numbers.extend(
            bytes
                .as_chunks()
                .0
                .iter()
                .map(|b| f16::from_le_bytes(*b).to_f64()),
        ),
        Dtype::F32 => numbers.extend(
            bytes
                .as_chunks()
                .0
                .iter()
                .map(|b| f64::from(f32::from_le_bytes(*b))),
        ),
        Dtype::F64 => numbers.extend(bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b))),
        Dtype::F8_E4M3 => numbers.extend(bytes.iter().map(|code| f64::from(e4m3_to_f32(*code)))),
        _ => unreachable!("only known dtypes are decoded"),
    }
}
