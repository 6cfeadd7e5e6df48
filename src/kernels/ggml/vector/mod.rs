//! f32 in lanes, which do not know of each other: an algorithm that is written for one value runs for
//! several at once, each in the order of the algorithm.
//!
//! Everything on the way from a [`Loop`](crate::kernels::Loop) to these must be inlined for the
//! instructions to be used, which is not sure of closures that handle vectors: there are none.

#[cfg(target_arch = "x86_64")]
mod x86;

use std::ops::{Add, Div, Mul, Sub};

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{F32x4, F32x8, F32x16};

/// The lanes that every processor of its kind has.
#[cfg(target_arch = "x86_64")]
pub(super) type Plain = F32x4;
#[cfg(not(target_arch = "x86_64"))]
pub(super) type Plain = f32;

/// The most lanes that there are.
pub(super) const MAX_LANES: usize = 16;

/// Adding it rounds a number to a whole one, ties to even; the lowest bits are then the whole number
/// plus 2²².
const ROUNDING: f32 = 12_582_912.0;
/// The bits of 2²³, from which on floats are whole numbers.
const WHOLE: u32 = 0x4b00_0000;

/// Lanes of f32. Comparisons with NaN are false.
pub(super) trait Vector:
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
pub(super) fn nearest(x: f32) -> i32 {
    ((x + ROUNDING).to_bits() & 0x007f_ffff) as i32 - 0x0040_0000
}

/// Element `i` of every lane: of `rows`, which follow each other in `values`, at most one for each
/// lane. Lanes without one are zero.
#[inline(always)]
pub(super) fn transpose<V: Vector, const N: usize>(values: &[f32]) -> [V; N] {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{CpuPath, Loop};

    /// All that lanes can do with two numbers, and with a byte.
    struct Everything<V> {
        a: [f32; MAX_LANES],
        b: [f32; MAX_LANES],
        vector: std::marker::PhantomData<V>,
    }

    impl<V: Vector> Loop for Everything<V> {
        type Output = Vec<[u32; MAX_LANES]>;

        #[inline(always)]
        fn run(self) -> Self::Output {
            let mut results = Vec::new();
            for at in (0..MAX_LANES).step_by(V::LANES) {
                let mut part = [[0.0; MAX_LANES]; 2];
                part[0][..V::LANES].copy_from_slice(&self.a[at..at + V::LANES]);
                part[1][..V::LANES].copy_from_slice(&self.b[at..at + V::LANES]);
                let (a, b) = (V::load(&part[0]), V::load(&part[1]));
                let bytes = [part[0].map(|x| x as u8), part[1].map(|x| x.to_bits() as u8)];
                let yes = V::splat(1.0);
                let no = V::splat(2.0);
                let mut written = [0.0; MAX_LANES];
                a.write(&mut written);
                let all = [
                    a + b,
                    a - b,
                    a * b,
                    a / b,
                    a.sqrt(),
                    a.abs(),
                    a.lesser(b),
                    a.greater(b),
                    a.round(),
                    a.to_byte(),
                    V::select(a.less(b), yes, no),
                    V::select(a.differs(b), yes, no),
                    V::select(V::both(a.less(b), a.differs(yes)), a, b),
                    V::load(&written),
                    V::from_bits_of(&bytes[0], 0, 15),
                    V::from_bits_of(&bytes[1], 4, 15),
                    V::from_bits_of(&bytes[1], 3, 1),
                    V::from_signed(&bytes[1]),
                ];
                results.resize(all.len(), [0; MAX_LANES]);
                for (result, lanes) in results.iter_mut().zip(all) {
                    for (result, lane) in result[at..].iter_mut().zip(&lanes.lanes()[..V::LANES]) {
                        *result = if lane.is_nan() {
                            u32::MAX
                        } else {
                            lane.to_bits()
                        };
                    }
                }
                assert_eq!(V::any(a.less(b)), lanes_differ::<V>(a.less(b)));
            }
            results
        }
    }

    fn lanes_differ<V: Vector>(mask: V::Mask) -> bool {
        let chosen = V::select(mask, V::splat(1.0), V::splat(0.0)).lanes();
        chosen.contains(&1.0)
    }

    fn everything<V: Vector>(
        path: CpuPath,
        a: [f32; MAX_LANES],
        b: [f32; MAX_LANES],
    ) -> Vec<[u32; MAX_LANES]> {
        let vector = std::marker::PhantomData::<V>;
        path.run(Everything { a, b, vector })
    }

    #[test]
    fn lanes_do_what_single_numbers_do() {
        let special = [
            0.0,
            -0.0,
            1.0,
            -1.5,
            2.5,
            -3.5,
            0.1,
            1e-40,
            1e38,
            -1e38,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::NAN,
            4_194_303.5,
            254.5,
            -7.25,
        ];
        for shift in 0..MAX_LANES {
            let mut other = special;
            other.rotate_left(shift);
            let expected = everything::<f32>(CpuPath::Scalar, special, other);
            assert_eq!(
                everything::<Plain>(CpuPath::Scalar, special, other),
                expected
            );
            #[cfg(target_arch = "x86_64")]
            for &path in CpuPath::available() {
                let found = match path {
                    CpuPath::Scalar => continue,
                    CpuPath::Avx2 => everything::<F32x8>(path, special, other),
                    CpuPath::Avx512 => everything::<F32x16>(path, special, other),
                };
                assert_eq!(found, expected, "{path:?}");
            }
        }
    }
}
