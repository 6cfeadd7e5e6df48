//! Rounding to a dtype and dequantizing, by search in tables of all numbers and exact products.

use std::sync::OnceLock;

use half::{bf16, f16};
use safetensors::Dtype;

use super::numbers::value_of;
use crate::common::checkpoint::TensorData;
use crate::common::values::power_of_two;

/// A number of a dtype, or NaN, of which only the sign is told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Element {
    Bits(u64),
    Nan { negative: bool },
}

/// Magnitudes of a 16-bit dtype, in order of their bits; the last stands for infinity, at the place
/// of the number that would come next.
fn magnitudes(dtype: Dtype) -> &'static [f64] {
    static TABLES: [OnceLock<Vec<f64>>; 2] = [OnceLock::new(), OnceLock::new()];
    match dtype {
        Dtype::F16 => TABLES[0].get_or_init(|| {
            let finite = (0..0x7c00).map(|bits| f16::from_bits(bits).to_f64());
            finite.chain([power_of_two(16)]).collect()
        }),
        Dtype::BF16 => TABLES[1].get_or_init(|| {
            let finite = (0..0x7f80).map(|bits| bf16::from_bits(bits).to_f64());
            finite.chain([power_of_two(128)]).collect()
        }),
        other => panic!("{other:?} has too many numbers"),
    }
}

/// The number of `dtype` nearest to `value`; of two equally near the one with even bits.
pub(crate) fn nearest(dtype: Dtype, value: f64) -> Element {
    let negative = value.is_sign_negative();
    if value.is_nan() {
        return Element::Nan { negative };
    }
    if dtype == Dtype::F32 {
        return Element::Bits(u64::from((value as f32).to_bits()));
    }
    let table = magnitudes(dtype);
    let magnitude = value.abs();
    let above = table.partition_point(|number| *number < magnitude);
    let bits = match above {
        0 => 0,
        _ if above == table.len() => table.len() - 1,
        _ => {
            let (to_above, to_below) = (table[above] - magnitude, magnitude - table[above - 1]);
            let up = to_above < to_below || (to_above == to_below && above % 2 == 0);
            if up { above } else { above - 1 }
        }
    };
    Element::Bits(bits as u64 | u64::from(negative) << 15)
}

/// The value of each element of a floating dtype or of scales.
pub(crate) fn values(dtype: Dtype, bytes: &[u8]) -> Vec<f64> {
    let pairs = || {
        bytes
            .as_chunks()
            .0
            .iter()
            .map(|bytes| u16::from_le_bytes(*bytes))
    };
    match dtype {
        Dtype::BF16 => pairs().map(|bits| bf16::from_bits(bits).to_f64()).collect(),
        Dtype::F16 => pairs().map(|bits| f16::from_bits(bits).to_f64()).collect(),
        Dtype::F32 => {
            let floats = bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b));
            floats.map(f64::from).collect()
        }
        Dtype::F64 => {
            let floats = bytes.as_chunks().0.iter();
            floats.map(|b| f64::from_le_bytes(*b)).collect()
        }
        Dtype::F8_E8M0 => {
            let codes = bytes.iter();
            codes
                .map(|code| match code {
                    255 => f64::NAN,
                    _ => power_of_two(i32::from(*code) - 127),
                })
                .collect()
        }
        Dtype::F8_E4M3 => bytes.iter().map(|code| e4m3(*code)).collect(),
        // Half of an f16.
        Dtype::F8_E5M2 => bytes
            .iter()
            .map(|code| f16::from_bits(u16::from(*code) << 8).to_f64())
            .collect(),
        other => panic!("{other:?} has no numbers here"),
    }
}

pub(crate) fn e4m3(code: u8) -> f64 {
    let sign = if code & 0x80 == 0 { 1.0 } else { -1.0 };
    match code & 0x7f {
        0x7f => f64::NAN,
        magnitude => sign * value_of(magnitude),
    }
}

/// The elements of a tensor of BF16, F16 or F32.
pub(crate) fn elements(dtype: Dtype, bytes: &[u8]) -> Vec<Element> {
    let size = if dtype == Dtype::F32 { 4 } else { 2 };
    let bits = bytes.chunks(size).map(|bytes| {
        let mut all = [0; 8];
        all[..size].copy_from_slice(bytes);
        u64::from_le_bytes(all)
    });
    bits.zip(values(dtype, bytes))
        .map(|(bits, value)| {
            if value.is_nan() {
                Element::Nan {
                    negative: bits >> (8 * size - 1) == 1,
                }
            } else {
                Element::Bits(bits)
            }
        })
        .collect()
}

/// The elements of `tensor` in another dtype.
pub(crate) fn cast(tensor: &TensorData, to: Dtype) -> Vec<Element> {
    let values = values(tensor.dtype, &tensor.bytes).into_iter();
    values.map(|value| nearest(to, value)).collect()
}

/// The elements that codes and scales stand for: products rounded to f32, then to `to`. A product
/// that is no number has no sign.
pub(crate) fn dequantize(
    weight: &TensorData,
    scales: &TensorData,
    block: [usize; 2],
    to: Dtype,
) -> Vec<Element> {
    let codes = values(weight.dtype, &weight.bytes);
    let scales = values(scales.dtype, &scales.bytes);
    let [.., rows, columns] = weight.shape[..] else {
        panic!("{weight:?}");
    };
    let (scale_rows, scale_columns) = (rows.div_ceil(block[0]), columns.div_ceil(block[1]));
    let places = 0..codes.len();
    places
        .map(|i| {
            let (matrix, row, column) = (i / columns / rows, i / columns % rows, i % columns);
            let scale_row = matrix * scale_rows + row / block[0];
            let scale = scales[scale_row * scale_columns + column / block[1]];
            // At most 4 + 24 bits of mantissa: exact before it is rounded to f32.
            let product = (codes[i] * scale) as f32;
            if product.is_nan() {
                Element::Nan { negative: false }
            } else {
                nearest(to, f64::from(product))
            }
        })
        .collect()
}

/// A tensor of `dtype` and of the shape of `like` with these elements, none of which is NaN.
pub(crate) fn tensor_of(like: &TensorData, dtype: Dtype, elements: &[Element]) -> TensorData {
    let size = if dtype == Dtype::F32 { 4 } else { 2 };
    let mut bytes = Vec::new();
    for element in elements {
        match element {
            Element::Bits(bits) => bytes.extend(&bits.to_le_bytes()[..size]),
            Element::Nan { .. } => panic!("{like:?} holds NaN"),
        }
    }
    TensorData::new(&like.name, dtype, &like.shape, bytes)
}
