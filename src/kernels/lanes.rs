//! Floating point formats as f32 lanes: decoding, encoding, and rounding between operations.
//!
//! An operation on bf16 or f16 is defined as the f32 operation, rounded to the format (to nearest,
//! ties to even), which is how frameworks compute on processors without such arithmetic. So every
//! format is computed in f32 lanes, with [`Round::round`] after each operation that is to happen
//! in the format.

use crate::named::named;
use crate::tensor::Dtype;

/// A format whose every value is exact in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Precision {
    Bf16,
    F16,
    F32,
}

// As people write them: safetensors' names first, then those of torch, NumPy and others.
named!(Precision {
    Bf16: "bf16" | "bfloat16" | "torch.bfloat16" | "torch.bf16",
    F16: "f16"
        | "float16"
        | "fp16"
        | "half"
        | "torch.float16"
        | "torch.half"
        | "torch.f16"
        | "torch.fp16",
    F32: "f32"
        | "float32"
        | "fp32"
        | "float"
        | "torch.float32"
        | "torch.float"
        | "torch.f32"
        | "torch.fp32",
});

impl Precision {
    /// That of a dtype; `None` if it is not one of these.
    pub fn from_dtype(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::BF16 => Some(Precision::Bf16),
            Dtype::F16 => Some(Precision::F16),
            Dtype::F32 => Some(Precision::F32),
            _ => None,
        }
    }

    /// The dtype of tensors of this format.
    pub fn dtype(self) -> Dtype {
        match self {
            Precision::Bf16 => Dtype::BF16,
            Precision::F16 => Dtype::F16,
            Precision::F32 => Dtype::F32,
        }
    }

    /// As torch, and so config.json, calls it.
    pub fn torch_name(self) -> &'static str {
        match self {
            Precision::Bf16 => "bfloat16",
            Precision::F16 => "float16",
            Precision::F32 => "float32",
        }
    }

    /// Bytes of an element.
    pub fn bytes(self) -> usize {
        match self {
            Precision::Bf16 | Precision::F16 => 2,
            Precision::F32 => 4,
        }
    }

    /// The narrowest format that holds the values of both.
    pub fn join(self, other: Self) -> Self {
        if self == other { self } else { Precision::F32 }
    }

    /// The values of little-endian elements; `bytes` has as many as `values`.
    #[inline(always)]
    pub fn decode(self, bytes: &[u8], values: &mut [f32]) {
        debug_assert_eq!(bytes.len(), values.len() * self.bytes());
        match self {
            Precision::Bf16 => decode(bytes, values, |b| bf16_value(u16::from_le_bytes(b))),
            Precision::F16 => decode(bytes, values, |b| f16_value(u16::from_le_bytes(b))),
            Precision::F32 => decode(bytes, values, f32::from_le_bytes),
        }
    }

    /// Writes what `last` makes of the values as little-endian elements, each rounded to nearest,
    /// ties to even. A NaN must be one of the format, as for [`Round::round`].
    ///
    /// To change values in their place first would be slower, more so where some of them stay:
    /// compilers make masked stores of that, for which AMD processors take very long.
    #[inline(always)]
    pub fn encode(self, values: &[f32], bytes: &mut [u8], last: impl Fn(f32) -> f32) {
        debug_assert_eq!(bytes.len(), values.len() * self.bytes());
        match self {
            Precision::Bf16 => encode(values, bytes, |x| {
                let rounded = Bf16::round(last(x));
                ((rounded.to_bits() >> 16) as u16).to_le_bytes()
            }),
            Precision::F16 => encode(values, bytes, |x| f16_bits(last(x)).to_le_bytes()),
            Precision::F32 => encode(values, bytes, |x| last(x).to_le_bytes()),
        }
    }

    /// Rounds every value. A NaN becomes one of the format.
    #[inline(always)]
    pub fn round_all(self, values: &mut [f32]) {
        match self {
            Precision::Bf16 => values
                .iter_mut()
                .for_each(|x| *x = bf16_value(bf16_bits(*x))),
            Precision::F16 => values.iter_mut().for_each(|x| *x = f16_value(f16_bits(*x))),
            Precision::F32 => {}
        }
    }

    /// `x` in this format. A NaN becomes one of the format.
    pub fn round(self, x: f32) -> f32 {
        let mut values = [x];
        self.round_all(&mut values);
        values[0]
    }
}

#[inline(always)]
fn decode<const N: usize>(bytes: &[u8], values: &mut [f32], value: impl Fn([u8; N]) -> f32) {
    let (elements, _) = bytes.as_chunks::<N>();
    for (x, element) in values.iter_mut().zip(elements) {
        *x = value(*element);
    }
}

#[inline(always)]
fn encode<const N: usize>(values: &[f32], bytes: &mut [u8], element: impl Fn(f32) -> [u8; N]) {
    let (elements, _) = bytes.as_chunks_mut::<N>();
    for (to, x) in elements.iter_mut().zip(values) {
        *to = element(*x);
    }
}

/// A [`Precision`] as a type, for loops that are compiled for each.
pub trait Round: Copy + Send + Sync + 'static {
    const PRECISION: Precision;

    /// The nearest value of the format, ties to even; beyond its range, an infinity.
    ///
    /// If `x` is a NaN, it must be one of the format, without a bit below: so are all that arithmetic
    /// on values of the format and on numbers gives. To look for others would take as long as all else.
    fn round(x: f32) -> f32;
}

#[derive(Debug, Clone, Copy)]
pub struct Bf16;

#[derive(Debug, Clone, Copy)]
pub struct F16;

#[derive(Debug, Clone, Copy)]
pub struct F32;

impl Round for Bf16 {
    const PRECISION: Precision = Precision::Bf16;

    #[inline(always)]
    fn round(x: f32) -> f32 {
        let bits = x.to_bits();
        debug_assert!(!is_nan(bits) || bits & 0xffff == 0, "a NaN beyond bf16");
        let half_even = 0x7fff + (bits >> 16 & 1);
        f32::from_bits(bits.wrapping_add(half_even) & 0xffff_0000)
    }
}

impl Round for F16 {
    const PRECISION: Precision = Precision::F16;

    #[inline(always)]
    fn round(x: f32) -> f32 {
        f16_value(f16_bits(x))
    }
}

impl Round for F32 {
    const PRECISION: Precision = Precision::F32;

    #[inline(always)]
    fn round(x: f32) -> f32 {
        x
    }
}

/// `Σ aᵢ·bᵢ` in f64, in an order that depends on the length alone.
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    sum(a, b, |a, b| f64::from(a) * f64::from(b))
}

/// `Σ aᵢ` in f64, in an order that depends on the length alone.
#[inline(always)]
pub fn total(a: &[f32]) -> f64 {
    sum(a, a, |a, _| f64::from(a))
}

/// `Σ |aᵢ|` in f64, in an order that depends on the length alone.
#[inline(always)]
pub fn l1_norm(a: &[f32]) -> f64 {
    sum(a, a, |a, _| f64::from(a.abs()))
}

#[inline(always)]
fn sum(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f64) -> f64 {
    const WIDTH: usize = 16;
    let mut sums = [0.0; WIDTH];
    let (whole_a, rest_a) = a.as_chunks::<WIDTH>();
    let (whole_b, rest_b) = b.as_chunks::<WIDTH>();
    for (a, b) in whole_a.iter().zip(whole_b) {
        for i in 0..WIDTH {
            sums[i] += term(a[i], b[i]);
        }
    }
    for ((sum, a), b) in sums.iter_mut().zip(rest_a).zip(rest_b) {
        *sum += term(*a, *b);
    }
    sums.iter().sum()
}

/// `x`, or if it is a NaN, the quiet one without sign and payload: which of two NaNs the result of
/// an operation takes after is not the same everywhere.
#[inline(always)]
pub fn plain_nan(x: f32) -> f32 {
    if x.is_nan() { f32::NAN } else { x }
}

/// The value of a bf16.
#[inline(always)]
pub fn bf16_value(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The bf16 nearest to `x`, ties to even. A NaN stays one, made quiet.
#[inline(always)]
pub fn bf16_bits(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    let nan = bits >> 16 | 0x40;
    (if is_nan(bits) { nan } else { rounded }) as u16
}

/// The value of an f16. A NaN stays one, made quiet.
#[inline(always)]
pub fn f16_value(bits: u16) -> f32 {
    // The exponent biases differ by 112, and the product is exact, also for subnormals.
    const REBIAS: f32 = f32::from_bits((127 + 112) << 23);
    let bits = u32::from(bits);
    let magnitude = (bits & 0x7fff) << 13;
    let finite = (f32::from_bits(magnitude) * REBIAS).to_bits();
    let quiet = if bits & 0x3ff == 0 { 0 } else { 1 << 22 };
    let special = 0x7f80_0000 | magnitude | quiet;
    let value = if bits & 0x7c00 == 0x7c00 {
        special
    } else {
        finite
    };
    f32::from_bits(value | (bits & 0x8000) << 16)
}

/// The f16 nearest to `x`, ties to even; an infinity from 65520 on. A NaN stays one, made quiet.
#[inline(always)]
pub fn f16_bits(x: f32) -> u16 {
    const MIN_NORMAL: u32 = (127 - 14) << 23;
    const OVERFLOW: u32 = 0x477f_f000; // 65520
    const REBIAS: u32 = 112 << 23;
    let bits = x.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    let half_even = 0xfff + (magnitude >> 13 & 1);
    let normal = magnitude.wrapping_add(half_even).wrapping_sub(REBIAS) >> 13;
    // The unit in the last place of 1/2 is that of the subnormals of f16.
    let subnormal = (f32::from_bits(magnitude) + 0.5)
        .to_bits()
        .wrapping_sub(0.5f32.to_bits());
    let finite = if magnitude < MIN_NORMAL {
        subnormal
    } else {
        normal
    };
    let bounded = if magnitude >= OVERFLOW {
        0x7c00
    } else {
        finite
    };
    let nan = 0x7e00 | (magnitude >> 13 & 0x3ff);
    ((if is_nan(bits) { nan } else { bounded }) | (bits >> 16 & 0x8000)) as u16
}

#[inline(always)]
fn is_nan(bits: u32) -> bool {
    bits & 0x7fff_ffff > 0x7f80_0000
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the `half` crate, which is written for one value at a time, has it.
    #[test]
    fn every_16_bit_value_and_its_neighbors_convert_as_defined() {
        for bits in 0..=u16::MAX {
            let (b, h) = (half::bf16::from_bits(bits), half::f16::from_bits(bits));
            assert_same(bf16_value(bits), b.to_f32());
            assert_same(f16_value(bits), h.to_f32());
            for value in [b.to_f32(), h.to_f32()] {
                for near in -2..=2i32 {
                    for step in [1, 0x0fff, 0x1000, 0x7fff, 0x8000] {
                        let x = f32::from_bits(value.to_bits().wrapping_add_signed(near * step));
                        let (bf16, f16) = (half::bf16::from_f32(x), half::f16::from_f32(x));
                        assert_same(Precision::Bf16.round(x), bf16.to_f32());
                        assert_same(Precision::F16.round(x), f16.to_f32());
                        assert_same(Precision::F32.round(x), x);
                        if !x.is_nan() || x.to_bits() & 0xffff == 0 {
                            assert_same(Bf16::round(x), bf16.to_f32());
                        }
                        assert_same(F16::round(x), f16.to_f32());
                        assert_same(F32::round(x), x);
                    }
                }
            }
        }
    }

    fn assert_same(found: f32, expected: f32) {
        if expected.is_nan() {
            assert!(found.is_nan());
        } else {
            assert_eq!(
                found.to_bits(),
                expected.to_bits(),
                "{found} for {expected}"
            );
        }
    }
}
