//! What lanes of f32 can do, and a single f32 as the only lane.

use std::ops::{Add, Div, Mul, Sub};

/// The most lanes that there are.
pub(in crate::kernels::ggml) const MAX_LANES: usize = 16;

/// Adding it rounds a number to a whole one, ties to even; the lowest bits are then the whole number
/// plus 2²².
const ROUNDING: f32 = 12_582_912.0;
/// The bits of 2²³, from which on floats are whole numbers.
pub(super) const WHOLE: u32 = 0x4b00_0000;

/// Lanes of f32. Comparisons with NaN are false.
pub(in crate::kernels::ggml) trait Vector:
    Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self>
{
    const LANES: usize;

    /// A truth for each lane.
    type Mask: Copy;

    fn splat(x: f32) -> Self;

    /// The first [`Self::LANES`] of `values`.
    fn load(values: &[f32; MAX_LANES]) -> Self;

    fn store(self, values: &mut [f32; MAX_LANES]);

    /// The first [`Self::LANES`] of `bytes`: the bits from `shift` on that `mask` has, as numbers.
    ///
    /// # Panics
    /// If there are fewer.
    fn from_bits_of(bytes: &[u8], shift: u32, mask: u8) -> Self;

    /// The first [`Self::LANES`] of `bytes`, as i8.
    ///
    /// # Panics
    /// If there are fewer.
    fn from_signed(bytes: &[u8]) -> Self;

    /// Writes all lanes to the beginning of `values`.
    ///
    /// # Panics
    /// If there is no room for them.
    fn write(self, values: &mut [f32]);

    fn sqrt(self) -> Self;

    fn abs(self) -> Self;

    /// `self` where it is less, `other` elsewhere.
    fn lesser(self, other: Self) -> Self;

    /// `self` where it is greater, `other` elsewhere.
    fn greater(self, other: Self) -> Self;

    fn less(self, other: Self) -> Self::Mask;

    fn differs(self, other: Self) -> Self::Mask;

    fn both(a: Self::Mask, b: Self::Mask) -> Self::Mask;

    fn any(mask: Self::Mask) -> bool;

    /// `yes` where `mask` is true, `no` elsewhere.
    fn select(mask: Self::Mask, yes: Self, no: Self) -> Self;

    /// The bits of `self`, those that `kept` does not have being replaced by those of 2²³.
    fn whole(self, kept: u32) -> Self;

    /// The nearest whole number, ties to even; beyond ±2²² (and for infinities) some other one, the
    /// same as `nearest_int` of llama.cpp has; zero for NaN.
    #[inline(always)]
    fn round(self) -> Self {
        (self + Self::splat(ROUNDING)).whole(0x007f_ffff) - Self::splat(ROUNDING)
    }

    /// A whole number modulo 256.
    #[inline(always)]
    fn to_byte(self) -> Self {
        (self + Self::splat(ROUNDING)).whole(0xff) - Self::splat(f32::from_bits(WHOLE))
    }

    /// The values of the lanes.
    #[inline(always)]
    fn lanes(self) -> [f32; MAX_LANES] {
        let mut values = [0.0; MAX_LANES];
        self.store(&mut values);
        values
    }
}

/// As [`Vector::round`].
#[inline(always)]
pub(in crate::kernels::ggml) fn nearest(x: f32) -> i32 {
    ((x + ROUNDING).to_bits() & 0x007f_ffff) as i32 - 0x0040_0000
}

/// Element `i` of every lane: of `rows`, which follow each other in `values`, at most one for each
/// lane. Lanes without one are zero.
#[inline(always)]
pub(in crate::kernels::ggml) fn transpose<V: Vector, const N: usize>(values: &[f32]) -> [V; N] {
    let mut columns = [[0.0; MAX_LANES]; N];
    let rows = values.as_chunks::<N>().0;
    for (lane, row) in rows.iter().take(V::LANES).enumerate() {
        for (column, value) in columns.iter_mut().zip(row) {
            column[lane] = *value;
        }
    }
    let mut vectors = [V::splat(0.0); N];
    for (vector, column) in vectors.iter_mut().zip(&columns) {
        *vector = V::load(column);
    }
    vectors
}

impl Vector for f32 {
    const LANES: usize = 1;

    type Mask = bool;

    #[inline(always)]
    fn splat(x: f32) -> f32 {
        x
    }

    #[inline(always)]
    fn load(values: &[f32; MAX_LANES]) -> f32 {
        values[0]
    }

    #[inline(always)]
    fn store(self, values: &mut [f32; MAX_LANES]) {
        values[0] = self;
    }

    #[inline(always)]
    fn from_bits_of(bytes: &[u8], shift: u32, mask: u8) -> f32 {
        f32::from(bytes[0] >> shift & mask)
    }

    #[inline(always)]
    fn from_signed(bytes: &[u8]) -> f32 {
        f32::from(bytes[0] as i8)
    }

    #[inline(always)]
    fn write(self, values: &mut [f32]) {
        values[0] = self;
    }

    #[inline(always)]
    fn sqrt(self) -> f32 {
        f32::sqrt(self)
    }

    #[inline(always)]
    fn abs(self) -> f32 {
        f32::abs(self)
    }

    #[inline(always)]
    fn lesser(self, other: f32) -> f32 {
        if self < other { self } else { other }
    }

    #[inline(always)]
    fn greater(self, other: f32) -> f32 {
        if self > other { self } else { other }
    }

    #[inline(always)]
    fn less(self, other: f32) -> bool {
        self < other
    }

    #[inline(always)]
    fn differs(self, other: f32) -> bool {
        self != other
    }

    #[inline(always)]
    fn both(a: bool, b: bool) -> bool {
        a && b
    }

    #[inline(always)]
    fn any(mask: bool) -> bool {
        mask
    }

    #[inline(always)]
    fn select(mask: bool, yes: f32, no: f32) -> f32 {
        if mask { yes } else { no }
    }

    #[inline(always)]
    fn whole(self, kept: u32) -> f32 {
        f32::from_bits(self.to_bits() & kept | WHOLE)
    }
}
