//! MXFP4, MXFP8 and NVFP4 as plain scalar definitions, an element at a time: codes are looked for among all
//! of them, exponents by doubling, in f64 where f32 is not what is meant.

use safetensors::Dtype;

use crate::common::checkpoint::{TensorData, of_values};
use crate::common::oracle::numbers::{nearest_code, value_of};
use crate::common::values::{decode, power_of_two};

/// A scheme in a dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Mxfp4,
    Mxfp4Modelopt,
    Mxfp4GptOss,
    Mxfp8,
    Mxfp8Modelopt,
    Nvfp4,
    Nvfp4Modelopt,
}

use Format::*;

/// Those that are written for weights of modules.
pub(crate) const OF_MODULES: [Format; 6] = [
    Mxfp4,
    Mxfp4Modelopt,
    Mxfp8,
    Mxfp8Modelopt,
    Nvfp4,
    Nvfp4Modelopt,
];

const MAGNITUDES: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];

impl Format {
    pub(crate) fn scheme(self) -> &'static str {
        match self {
            Mxfp4 | Mxfp4Modelopt | Mxfp4GptOss => "mxfp4",
            Mxfp8 | Mxfp8Modelopt => "mxfp8",
            Nvfp4 | Nvfp4Modelopt => "nvfp4",
        }
    }

    pub(crate) fn dialect(self) -> &'static str {
        match self {
            Mxfp4 | Mxfp8 | Nvfp4 => "compressed-tensors",
            Mxfp4Modelopt | Mxfp8Modelopt | Nvfp4Modelopt => "modelopt",
            Mxfp4GptOss => "gpt-oss",
        }
    }

    pub(crate) fn group(self) -> usize {
        match self {
            Nvfp4 | Nvfp4Modelopt => 16,
            _ => 32,
        }
    }

    pub(crate) fn is_fp4(self) -> bool {
        !matches!(self, Mxfp8 | Mxfp8Modelopt)
    }

    /// What a code stands for, without its scale.
    pub(crate) fn level(self, code: u8) -> f32 {
        let (sign, magnitude) = match self.is_fp4() {
            true => (code & 8, MAGNITUDES[usize::from(code & 7)]),
            false => (code & 0x80, value_of(code & 0x7f) as f32),
        };
        if sign == 0 { magnitude } else { -magnitude }
    }

    /// The stored scale of a group, and what codes are multiplied by.
    pub(crate) fn scale(self, amax: f32, global: f32) -> (u8, f32) {
        let max = if self.is_fp4() { 6.0 } else { 448.0 };
        let byte = match self {
            Mxfp4 => floor_exponent(amax) - 2 + 127,
            Mxfp8 => floor_exponent(amax) - 8 + 127,
            Mxfp4Modelopt | Mxfp8Modelopt => {
                // A logarithm in f32, as torch has it.
                let log2 = f64::from(amax / max).log2() as f32;
                log2.max(-127.0).ceil() as i32 + 127
            }
            Mxfp4GptOss => match amax / max {
                0.0 => 0,
                scale => {
                    let exponents = (-126..128).find(|e| power_of_two(*e) >= f64::from(scale));
                    exponents.unwrap() + 127
                }
            },
            Nvfp4 => {
                let scale = (global * (amax / 6.0)).min(448.0);
                let code = nearest_code(scale);
                let code = if code == 0 { nearest_code(0.125) } else { code };
                return (code, value_of(code) as f32 / global);
            }
            Nvfp4Modelopt => {
                let scale = amax / (6.0 * global);
                let scale = if scale == 0.0 { 1.0 } else { scale };
                let code = nearest_code(scale.clamp(1.0 / 512.0, 448.0));
                return (code, value_of(code) as f32 * global);
            }
        };
        let byte = byte.clamp(0, 255) as u8;
        (byte, power_of_two(i32::from(byte) - 127) as f32)
    }

    /// What all of a weight shares, by its largest magnitude.
    pub(crate) fn global(self, amax: f32) -> f32 {
        match self {
            Nvfp4 => {
                let global = (1.0 / amax.max(f32::MIN_POSITIVE)) * 2688.0;
                if global.is_finite() { global } else { 1.0 }
            }
            Nvfp4Modelopt => match amax / 2688.0 {
                0.0 => 1.0,
                global => global,
            },
            _ => 1.0,
        }
    }

    /// The code of a quotient.
    pub(crate) fn code(self, quotient: f32) -> u8 {
        if !self.is_fp4() {
            return nearest_code(quotient);
        }
        let x = quotient.abs().min(6.0);
        let distance = |code: &u8| (x - MAGNITUDES[usize::from(*code)]).abs();
        let nearest = (0..8).map(|code| distance(&code)).fold(f32::MAX, f32::min);
        let mut nearest = (0..8).filter(|code| distance(code) == nearest);
        let first = nearest.next().unwrap();
        let code = match (nearest.next(), self) {
            (None, _) | (Some(_), Mxfp4Modelopt) => first,
            (Some(second), Mxfp4GptOss) => second,
            (Some(second), _) => [first, second].into_iter().find(|c| c % 2 == 0).unwrap(),
        };
        let is_negative = match self {
            Mxfp4GptOss => quotient.is_sign_negative(),
            Mxfp4Modelopt => quotient <= 0.0,
            _ => quotient < 0.0,
        };
        if is_negative { code | 8 } else { code }
    }
}

/// The exponent of the largest power of two that is at most `x`, or of the next one from three quarters
/// of the way to it on; very small where there is none.
fn floor_exponent(x: f32) -> i32 {
    let x = f64::from(x);
    let below = (-126..128).rev().find(|e| power_of_two(*e) <= x);
    match below {
        Some(e) if x >= 1.75 * power_of_two(e) => e + 1,
        Some(e) => e,
        None if x >= 0.75 * power_of_two(-126) => -126,
        None => -200,
    }
}

/// Matrices in codes.
pub(crate) struct Quantized {
    pub(crate) codes: Vec<u8>,
    pub(crate) scales: Vec<u8>,
    /// What codes of each group are multiplied by.
    pub(crate) factors: Vec<f32>,
    pub(crate) global: f32,
}

/// The largest magnitude of a tensor.
pub(crate) fn amax(tensor: &TensorData) -> f32 {
    let values = decode(tensor.dtype, &tensor.bytes);
    values.iter().fold(0.0, |amax, value| amax.max(value.abs()))
}

/// Quantizes `values`, rows of whole groups, with the scale of all that `amax` makes.
pub(crate) fn quantize(values: &[f32], format: Format, amax: f32) -> Quantized {
    let global = format.global(amax);
    let mut made = Quantized {
        codes: Vec::new(),
        scales: Vec::new(),
        factors: Vec::new(),
        global,
    };
    for group in values.chunks(format.group()) {
        let amax = group.iter().fold(0f32, |amax, x| amax.max(x.abs()));
        let (scale, factor) = format.scale(amax, global);
        made.codes
            .extend(group.iter().map(|x| format.code(x / factor)));
        made.scales.push(scale);
        made.factors.push(factor);
    }
    made
}

fn packed(codes: &[u8], format: Format) -> Vec<u8> {
    match format.is_fp4() {
        true => codes.chunks(2).map(|pair| pair[0] | pair[1] << 4).collect(),
        false => codes.to_vec(),
    }
}

/// The tensors that `weight` becomes, as one of weights whose largest magnitude is `amax`.
pub(crate) fn tensors(weight: &TensorData, format: Format, amax: f32) -> Vec<TensorData> {
    let [rows, columns] = weight.shape[..] else {
        panic!("{weight:?}");
    };
    let made = quantize(&decode(weight.dtype, &weight.bytes), format, amax);
    let named = |suffix: &str, dtype, shape: &[usize], bytes| {
        TensorData::new(&format!("{}{suffix}", weight.name), dtype, shape, bytes)
    };
    let of_groups = [rows, columns / format.group()];
    let codes = packed(&made.codes, format);
    let halves = [rows, columns / 2];
    let global = made.global.to_le_bytes().to_vec();
    match format {
        Nvfp4 => vec![
            named("_packed", Dtype::U8, &halves, codes),
            named("_scale", Dtype::F8_E4M3, &of_groups, made.scales),
            named("_global_scale", Dtype::F32, &[1], global),
        ],
        Nvfp4Modelopt => vec![
            named("", Dtype::U8, &halves, codes),
            named("_scale", Dtype::F8_E4M3, &of_groups, made.scales),
            named("_scale_2", Dtype::F32, &[], global),
        ],
        Mxfp8 | Mxfp8Modelopt => vec![
            named("", Dtype::F8_E4M3, &weight.shape, codes),
            named("_scale", Dtype::U8, &of_groups, made.scales),
        ],
        _ => vec![
            named(
                if format == Mxfp4 { "_packed" } else { "" },
                Dtype::U8,
                &halves,
                codes,
            ),
            named("_scale", Dtype::U8, &of_groups, made.scales),
        ],
    }
}

/// The tensors that the experts `weight` `[E, columns, rows]` become in gpt-oss.
pub(crate) fn gpt_oss(weight: &TensorData) -> Vec<TensorData> {
    let [experts, columns, rows] = weight.shape[..] else {
        panic!("{weight:?}");
    };
    let values = decode(weight.dtype, &weight.bytes);
    let at = |e, row, column| values[(e * columns + column) * rows + row];
    let elements = (0..experts).flat_map(|e| (0..rows).map(move |row| (e, row)));
    let turned = elements.flat_map(|(e, row)| (0..columns).map(move |column| (e, row, column)));
    let turned: Vec<f32> = turned.map(|(e, row, column)| at(e, row, column)).collect();
    let made = quantize(&turned, Mxfp4GptOss, 0.0);
    let blocks = [experts, rows, columns / 32, 16];
    let codes = packed(&made.codes, Mxfp4GptOss);
    let name = |suffix| format!("{}{suffix}", weight.name);
    vec![
        TensorData::new(&name("_blocks"), Dtype::U8, &blocks, codes),
        TensorData::new(&name("_scales"), Dtype::U8, &blocks[..3], made.scales),
    ]
}

/// The numbers that the codes of `weight` stand for, in `dtype`.
pub(crate) fn numbers(weight: &TensorData, format: Format, amax: f32, dtype: Dtype) -> TensorData {
    let values = decode(weight.dtype, &weight.bytes);
    let made = quantize(&values, format, amax);
    let codes = made.codes.iter().enumerate();
    let values = codes.map(|(i, code)| format.level(*code) * made.factors[i / format.group()]);
    let values: Vec<f32> = values.collect();
    of_values(&weight.name, dtype, &weight.shape, &values)
}
