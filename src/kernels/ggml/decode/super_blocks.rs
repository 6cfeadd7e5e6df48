//! Super-blocks of 256 elements: scales of sub-blocks are whole numbers times one f16.

use super::super::pack::{f16_at, unpack_pairs_of_bits, unpack_scales, unpack_scales_and_mins};
use super::super::vector::Vector;

/// The bytes from `at` on.
#[inline(always)]
fn bytes<const N: usize>(block: &[u8], at: usize) -> &[u8; N] {
    block[at..].first_chunk().expect("within the block")
}

/// `(d · s) · q − (dmin · m)`, with a scale and a minimum of four bits for every 16 elements.
#[inline(always)]
pub(super) fn q2_k<V: Vector>(block: &[u8; 84], values: &mut [f32; 256]) {
    let (d, dmin) = (f16_at(block, 80), f16_at(block, 82));
    for (j, values) in values.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let scale = V::splat(d * f32::from(block[j] & 15));
        let min = V::splat(dmin * f32::from(block[j] >> 4));
        let codes = Codes::of_two_bits(bytes(block, 16), j);
        for at in (0..16).step_by(V::LANES) {
            (scale * codes.get::<V>(at) - min).write(&mut values[at..]);
        }
    }
}

/// `(d · (s − 32)) · (q − 4)`, with a scale of six bits for every 16 elements. The third bits of
/// codes are apart: bit `k` of byte `l` is that of element `32 k + l`.
#[inline(always)]
pub(super) fn q3_k<V: Vector>(block: &[u8; 110], values: &mut [f32; 256]) {
    let d = f16_at(block, 108);
    let scales = unpack_scales(bytes(block, 96));
    for (j, values) in values.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let scale = V::splat(d * (i32::from(scales[j]) - 32) as f32);
        let low = Codes::of_two_bits(bytes(block, 32), j);
        let high = Codes::new(&block[16 * (j % 2)..], j / 2, 1);
        for at in (0..16).step_by(V::LANES) {
            let code = high.get::<V>(at) * V::splat(4.0) + low.get::<V>(at);
            (scale * (code - V::splat(4.0))).write(&mut values[at..]);
        }
    }
}

/// `(d · s) · q − (dmin · m)`, with a scale and a minimum of six bits for every 32 elements.
#[inline(always)]
pub(super) fn q4_k<V: Vector>(block: &[u8; 144], values: &mut [f32; 256]) {
    let (scales, mins) = scales_and_mins(bytes(block, 0));
    for (j, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, min) = (V::splat(scales[j]), V::splat(mins[j]));
        let codes = Codes::new(&block[16 + 32 * (j / 2)..], 4 * (j % 2), 15);
        for at in (0..32).step_by(V::LANES) {
            (scale * codes.get::<V>(at) - min).write(&mut values[at..]);
        }
    }
}

/// As [`q4_k`], with the fifth bits of codes apart: bit `j` of byte `l` is that of element
/// `32 j + l`.
#[inline(always)]
pub(super) fn q5_k<V: Vector>(block: &[u8; 176], values: &mut [f32; 256]) {
    let (scales, mins) = scales_and_mins(bytes(block, 0));
    for (j, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, min) = (V::splat(scales[j]), V::splat(mins[j]));
        let low = Codes::new(&block[48 + 32 * (j / 2)..], 4 * (j % 2), 15);
        let high = Codes::new(&block[16..], j, 1);
        for at in (0..32).step_by(V::LANES) {
            let code = high.get::<V>(at) * V::splat(16.0) + low.get::<V>(at);
            (scale * code - min).write(&mut values[at..]);
        }
    }
}

/// `(d · s) · (q − 32)`, with an i8 scale for every 16 elements. Codes of 128 elements are in 64 bytes (those of elements `l`
/// and `l + 64` in byte `l`) and, but for their low four bits, in 32.
#[inline(always)]
pub(super) fn q6_k<V: Vector>(block: &[u8; 210], values: &mut [f32; 256]) {
    let d = f16_at(block, 208);
    for (j, values) in values.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let scale = V::splat(d * f32::from(block[192 + j] as i8));
        let low = Codes::new(&block[64 * (j / 8) + 16 * (j % 4)..], j % 8 / 4 * 4, 15);
        let high = Codes::of_two_bits(bytes(block, 128), j);
        for at in (0..16).step_by(V::LANES) {
            let code = high.get::<V>(at) * V::splat(16.0) + low.get::<V>(at);
            (scale * (code - V::splat(32.0))).write(&mut values[at..]);
        }
    }
}

/// Codes of elements that follow each other, one in a byte: in the bits from `shift` on that `mask` has.
struct Codes<'a> {
    bytes: &'a [u8],
    shift: u32,
    mask: u8,
}

impl<'a> Codes<'a> {
    #[inline(always)]
    fn new(bytes: &'a [u8], shift: usize, mask: u8) -> Self {
        Codes {
            bytes,
            shift: shift as u32,
            mask,
        }
    }

    /// Those of the elements from `16 j` on: byte `l` of each 32 holds the codes of elements `l`, `l + 32`, `l + 64` and
    /// `l + 96` of 128, lowest first.
    #[inline(always)]
    fn of_two_bits(bytes: &'a [u8; 64], j: usize) -> Self {
        Codes::new(&bytes[32 * (j / 8) + 16 * (j % 2)..], j % 8 / 2 * 2, 3)
    }

    /// Those from the one at `at` on, as numbers.
    #[inline(always)]
    fn get<V: Vector>(&self, at: usize) -> V {
        V::from_bits_of(&self.bytes[at..], self.shift, self.mask)
    }
}

/// `d · s` and `dmin · m` of every 32 elements, from the beginning of a block of Q4_K or Q5_K.
#[inline(always)]
fn scales_and_mins(head: &[u8; 16]) -> ([f32; 8], [f32; 8]) {
    let (d, dmin) = (f16_at(head, 0), f16_at(head, 2));
    let (scales, mins) = unpack_scales_and_mins(bytes(head, 4));
    (
        scales.map(|scale| d * f32::from(scale)),
        mins.map(|min| dmin * f32::from(min)),
    )
}

/// `(q − 1) · d`, codes of two bits.
#[inline(always)]
pub(super) fn tq2_0(block: &[u8; 66], values: &mut [f32; 256]) {
    let codes = unpack_pairs_of_bits(bytes(block, 0));
    let d = f16_at(block, 64);
    for (value, code) in values.iter_mut().zip(codes) {
        *value = (i32::from(code) - 1) as f32 * d;
    }
}

/// `(q − 1) · d`, five codes of base three in a byte, which is their number times 256/243, rounded
/// up: of 32 bytes, of 16, and four of four.
#[inline(always)]
pub(super) fn tq1_0(block: &[u8; 54], values: &mut [f32; 256]) {
    let d = f16_at(block, 52);
    let (first, rest) = values.split_at_mut(160);
    let (second, third) = rest.split_at_mut(80);
    for (bytes, values) in [
        (&block[..32], first),
        (&block[32..48], second),
        (&block[48..52], third),
    ] {
        let mut power = 1u8;
        for values in values.chunks_exact_mut(bytes.len()) {
            for (value, byte) in values.iter_mut().zip(bytes) {
                let code = (u16::from(byte.wrapping_mul(power)) * 3) >> 8;
                *value = (i32::from(code) - 1) as f32 * d;
            }
            power = power.wrapping_mul(3);
        }
    }
}
