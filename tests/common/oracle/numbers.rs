//! Block FP8 as a plain scalar definition: tables, searches and exact comparisons in f64.

use ckptfs::quant::fp8_block::ScaleFormat;
use safetensors::Dtype;

use crate::common::checkpoint::TensorData;
use crate::common::values::{decode, power_of_two};

/// Rows and columns of a block.
pub(crate) const BLOCK: usize = 128;

/// The largest code that is a number: 448.
pub(crate) const LARGEST_CODE: u8 = 0x7E;

/// The value of an e4m3 code without sign: 4 bits of exponent (bias 7), 3 of mantissa.
pub(crate) fn value_of(code: u8) -> f64 {
    assert!(code <= LARGEST_CODE, "{code:#x} is not a finite magnitude");
    let exponent = i32::from(code >> 3);
    let mantissa = f64::from(code & 7);
    match exponent {
        0 => mantissa / 8.0 * power_of_two(-6),
        _ => (1.0 + mantissa / 8.0) * power_of_two(exponent - 7),
    }
}

/// All finite magnitudes, in order of code and of value.
fn magnitudes() -> &'static [f64; 127] {
    static TABLE: std::sync::OnceLock<[f64; 127]> = std::sync::OnceLock::new();
    TABLE.get_or_init(|| std::array::from_fn(|code| value_of(code as u8)))
}

/// The nearest code; of two equally near the one with the even mantissa; at most 448; the sign as
/// it is.
pub(crate) fn nearest_code(value: f32) -> u8 {
    assert!(!value.is_nan());
    let sign = if value.is_sign_negative() { 0x80 } else { 0 };
    let magnitude = f64::from(value).abs();
    let above = magnitudes().partition_point(|v| *v < magnitude);
    let code = match above {
        0 => 0,
        127 => LARGEST_CODE,
        _ => {
            let below = above - 1;
            let to_above = magnitudes()[above] - magnitude;
            let to_below = magnitude - magnitudes()[below];
            let nearer_above = to_above < to_below;
            let tie_to_above = to_above == to_below && above % 2 == 0;
            if nearer_above || tie_to_above {
                above as u8
            } else {
                below as u8
            }
        }
    };
    sign | code
}

/// The scale of a block with this largest magnitude.
pub(crate) fn scale_of(amax: f32, format: ScaleFormat) -> f32 {
    if amax == 0.0 {
        return 1.0;
    }
    let amax = f64::from(amax);
    let smallest = -126;
    match format {
        // Dividing an f64 by a power of two is exact in this range.
        ScaleFormat::Ue8m0 => (smallest..)
            .map(power_of_two)
            .find(|scale| amax / scale <= 448.0)
            .expect("every f32 has such a scale") as f32,
        ScaleFormat::Float32 => ((amax / 448.0) as f32).max(power_of_two(smallest) as f32),
    }
}

/// A tensor and its scales, as the view must hold them.
pub(crate) struct Quantized {
    pub(crate) weight: TensorData,
    pub(crate) scale: TensorData,
}

/// Quantizes a finite tensor of two or three dimensions.
pub(crate) fn quantize(tensor: &TensorData, format: ScaleFormat) -> Quantized {
    let values = decode(tensor.dtype, &tensor.bytes);
    let [leading @ .., rows, columns] = tensor.shape.as_slice() else {
        panic!("{tensor:?} has fewer than two dimensions");
    };
    let (rows, columns) = (*rows, *columns);
    let (block_rows, block_columns) = (rows.div_ceil(BLOCK), columns.div_ceil(BLOCK));
    let mut codes = vec![0; values.len()];
    let mut scales = Vec::new();
    for matrix in 0..leading.iter().product() {
        let start = matrix * rows * columns;
        for block in 0..block_rows * block_columns {
            let (top, left) = (block / block_columns * BLOCK, block % block_columns * BLOCK);
            let places: Vec<usize> = (top..rows.min(top + BLOCK))
                .flat_map(|row| {
                    let row = start + row * columns;
                    (left..columns.min(left + BLOCK)).map(move |column| row + column)
                })
                .collect();
            let amax = places.iter().map(|i| values[*i].abs()).fold(0.0, f32::max);
            let scale = scale_of(amax, format);
            scales.push(scale);
            for place in places {
                codes[place] = nearest_code(values[place] / scale);
            }
        }
    }
    let scale_shape = [leading, &[block_rows, block_columns]].concat();
    let scale_bytes: Vec<u8> = scales.iter().flat_map(|s| s.to_le_bytes()).collect();
    Quantized {
        weight: TensorData::new(&tensor.name, Dtype::F8_E4M3, &tensor.shape, codes),
        scale: TensorData::new(
            &scale_name(&tensor.name),
            Dtype::F32,
            &scale_shape,
            scale_bytes,
        ),
    }
}

/// The name of a tensor's scales.
pub(crate) fn scale_name(name: &str) -> String {
    format!("{name}_scale_inv")
}
