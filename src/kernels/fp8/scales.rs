//! The scale of a block, by the largest magnitude in it.

use super::element::Element;
use crate::kernels::float8::E4M3_MAX;
use crate::named::named;

/// How a block's scale is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ScaleFormat {
    /// A power of two, as `scale_fmt: "ue8m0"` promises.
    #[default]
    Ue8m0,
    /// Any f32.
    Float32,
}

named!(ScaleFormat {
    Ue8m0: "ue8m0",
    Float32: "float32" | "f32" | "fp32" | "float",
});

/// The smallest normal f32, the lower bound of every scale.
const MIN_SCALE: f32 = f32::MIN_POSITIVE;

/// The smallest power of two `s ≥ 2⁻¹²⁶` with `amax / s ≤ 448`; 1 for `amax = 0`.
pub fn power_of_two_scale(amax: f32) -> f32 {
    const EXPONENT_OF_MAX: u32 = 8;
    const MANTISSA_OF_MAX: u32 = 0b11 << 21; // 448 = 1.75 · 2⁸
    if amax == 0.0 {
        return 1.0;
    }
    let bits = amax.to_bits();
    let exponent = bits >> 23;
    let round_up = u32::from(bits & 0x7f_ffff > MANTISSA_OF_MAX);
    let scale_exponent = (exponent + round_up).saturating_sub(EXPONENT_OF_MAX).max(1);
    f32::from_bits(scale_exponent << 23)
}

/// `f32(f64(amax) / 448)`, at least 2⁻¹²⁶; 1 for `amax = 0`.
pub fn exact_scale(amax: f32) -> f32 {
    if amax == 0.0 {
        return 1.0;
    }
    ((f64::from(amax) / f64::from(E4M3_MAX)) as f32).max(MIN_SCALE)
}

/// The number nearest to `amax / 448`, divided in f32, that elements `T` can hold; where that is zero, the
/// distance from 1 to the next of them. So `calculate_qparams` of compressed-tensors has it (0.17).
pub fn nearest_scale<T: Element>(amax: f32) -> f32 {
    let scale = T::round(amax / E4M3_MAX);
    if scale == 0.0 { T::EPSILON } else { scale }
}

/// `1 / scale`, where multiplying by it gives exactly what dividing by `scale` gives: where
/// `scale` is a power of two (and at most 2¹²⁶, as every scale is).
pub(super) fn exact_reciprocal(scale: f32) -> Option<f32> {
    const MANTISSA: u32 = 0x7f_ffff;
    (scale.to_bits() & MANTISSA == 0).then(|| scale.recip())
}
