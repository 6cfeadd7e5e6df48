//! Types whose codes of four bits are places in a table of values.

use super::super::pack::{MXFP4, f16_at, half_power};

const IQ4: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];

/// `s/2 · 2v`, with `s` the power of two of the first byte (E8M0).
#[inline(always)]
pub(super) fn mxfp4(block: &[u8; 17], values: &mut [f32; 32]) {
    let (low, high) = values.split_at_mut(16);
    look_up(&MXFP4, &block[1..], half_power(block[0]), low, high);
}

/// `d · v`.
#[inline(always)]
pub(super) fn iq4_nl(block: &[u8; 18], values: &mut [f32; 32]) {
    let (low, high) = values.split_at_mut(16);
    look_up(&IQ4, &block[2..], f16_at(block, 0), low, high);
}

/// `d · (s − 32) · v`, with a scale of six bits for every 32 elements: the low four in bytes 4 to 7,
/// the high two in bytes 2 and 3.
#[inline(always)]
pub(super) fn iq4_xs(block: &[u8; 136], values: &mut [f32; 256]) {
    let d = f16_at(block, 0);
    let high_bits = u16::from_le_bytes([block[2], block[3]]);
    let parts = block[8..].as_chunks::<16>().0.iter();
    for (j, (codes, values)) in parts.zip(values.as_chunks_mut::<32>().0).enumerate() {
        let low = block[4 + j / 2] >> (4 * (j % 2)) & 15;
        let scale = i32::from(low) | i32::from(high_bits >> (2 * j) & 3) << 4;
        let (first, second) = values.split_at_mut(16);
        look_up(&IQ4, codes, d * (scale - 32) as f32, first, second);
    }
}

/// The values of 16 bytes of codes: low nibbles, then high ones.
#[inline(always)]
fn look_up(table: &[i8; 16], codes: &[u8], scale: f32, low: &mut [f32], high: &mut [f32]) {
    for ((code, low), high) in codes.iter().zip(low).zip(high) {
        *low = f32::from(table[usize::from(code & 15)]) * scale;
        *high = f32::from(table[usize::from(code >> 4)]) * scale;
    }
}
