//! Where scales, minima and codes are in a block.

use ckptfs::kernels::ggml::Type;
use half::f16;

/// Bits of a value that lie in a byte: the byte, the lowest bit there, how many, and which bit of
/// the value is the lowest of them.
pub(super) type Field = (usize, u32, u32, u32);

/// Sets the bits of `value`. What it has beyond the last field runs into its neighbours: so do levels
/// that have wrapped around, in llama.cpp.
pub(super) fn put(block: &mut [u8], fields: &[Field], value: u8) {
    for (at, &(byte, shift, width, from)) in fields.iter().enumerate() {
        let mask = match at + 1 == fields.len() {
            true => 0xff,
            false => ((1u32 << width) - 1) as u8,
        };
        block[byte] |= (value >> from & mask) << shift;
    }
}

pub(super) fn get(block: &[u8], fields: &[Field]) -> u8 {
    let mut value = 0;
    for &(byte, shift, width, from) in fields {
        let mask = ((1u32 << width) - 1) as u8;
        value |= (block[byte] >> shift & mask) << from;
    }
    value
}

/// Where the code of element `i` of a block is.
pub(super) fn code_fields(kind: Type, i: usize) -> Vec<Field> {
    let shift = |part: usize, bits: u32| part as u32 * bits;
    let nibble = |at: usize| (at + i % 16, shift(i / 16, 4), 4, 0);
    let nibble_of_64 = |at: usize| (at + 32 * (i / 64) + i % 32, shift(i % 64 / 32, 4), 4, 0);
    let pair = |at: usize, from| {
        let byte = at + 32 * (i / 128) + i % 32;
        (byte, shift(i % 128 / 32, 2), 2, from)
    };
    match kind {
        Type::Q8_0 => vec![(2 + i, 0, 8, 0)],
        Type::Q4_0 => vec![nibble(2)],
        Type::Q4_1 => vec![nibble(4)],
        Type::Q5_0 => vec![nibble(6), (2 + i / 8, i as u32 % 8, 1, 4)],
        Type::Q5_1 => vec![nibble(8), (4 + i / 8, i as u32 % 8, 1, 4)],
        Type::Q2_K => vec![pair(16, 0)],
        Type::Q3_K => vec![pair(32, 0), (i % 32, i as u32 / 32, 1, 2)],
        Type::Q4_K => vec![nibble_of_64(16)],
        Type::Q5_K => vec![nibble_of_64(48), (16 + i % 32, i as u32 / 32, 1, 4)],
        Type::Q6_K => {
            let low = (64 * (i / 128) + i % 64, shift(i % 128 / 64, 4), 4, 0);
            vec![low, pair(128, 4)]
        }
        other => panic!("{other:?} has no codes here"),
    }
}

/// Where the scale of sub-block `j` is.
pub(super) fn scale_fields(kind: Type, j: usize) -> Vec<Field> {
    match kind {
        Type::Q2_K => vec![(j, 0, 4, 0)],
        Type::Q3_K => vec![
            (96 + j % 8, 4 * (j as u32 / 8), 4, 0),
            (104 + j % 4, 2 * (j as u32 / 4), 2, 4),
        ],
        Type::Q4_K | Type::Q5_K if j < 4 => vec![(4 + j, 0, 6, 0)],
        Type::Q4_K | Type::Q5_K => vec![(8 + j, 0, 4, 0), (j, 6, 2, 4)],
        Type::Q6_K => vec![(192 + j, 0, 8, 0)],
        other => panic!("{other:?} has no sub-blocks"),
    }
}

/// Where the minimum of sub-block `j` is.
pub(super) fn min_fields(kind: Type, j: usize) -> Vec<Field> {
    match kind {
        Type::Q2_K => vec![(j, 4, 4, 0)],
        Type::Q4_K | Type::Q5_K if j < 4 => vec![(8 + j, 0, 6, 0)],
        Type::Q4_K | Type::Q5_K => vec![(8 + j, 4, 4, 0), (4 + j, 6, 2, 4)],
        other => panic!("{other:?} has no minima of sub-blocks"),
    }
}

/// Where the f16 scale of a block is, and the f16 minimum.
pub(super) fn f16_places(kind: Type) -> (usize, Option<usize>) {
    match kind {
        Type::Q4_1 | Type::Q5_1 | Type::Q4_K | Type::Q5_K => (0, Some(2)),
        Type::Q2_K => (80, Some(82)),
        Type::Q3_K => (108, None),
        Type::Q6_K => (208, None),
        _ => (0, None),
    }
}

pub(super) fn put_f16(block: &mut [u8], at: usize, x: f32) {
    block[at..at + 2].copy_from_slice(&f16::from_f32(x).to_le_bytes());
}

pub(super) fn get_f16(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Elements of a sub-block; of a block, where there are none.
pub(super) fn sub_block(kind: Type) -> usize {
    match kind {
        Type::Q2_K | Type::Q3_K | Type::Q6_K => 16,
        _ => 32,
    }
}

/// An element of a block as it is stored: `step · (code − zero) − min`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored {
    pub(crate) step: f32,
    pub(crate) min: f32,
    pub(crate) code: i32,
    /// The lowest and the highest code, zero being subtracted.
    pub(crate) range: (i32, i32),
}

impl Stored {
    /// Its value, if its code were `code`.
    pub(crate) fn value_of(&self, code: i32) -> f32 {
        self.step * code as f32 - self.min
    }
}

/// The elements of a block.
pub(crate) fn stored(kind: Type, block: &[u8]) -> Vec<Stored> {
    let (d_at, dmin_at) = f16_places(kind);
    let d = get_f16(block, d_at);
    let dmin = dmin_at.map_or(0.0, |at| get_f16(block, at));
    let element = |i: usize| {
        let j = i / sub_block(kind);
        let raw = get(block, &code_fields(kind, i));
        let scale = || get(block, &scale_fields(kind, j));
        let (step, min, zero, count) = match kind {
            Type::Q8_0 => {
                return Stored {
                    step: d,
                    min: 0.0,
                    code: i32::from(raw as i8),
                    range: (-128, 127),
                };
            }
            Type::Q4_0 => (d, 0.0, 8, 16),
            Type::Q5_0 => (d, 0.0, 16, 32),
            Type::Q4_1 => (d, -dmin, 0, 16),
            Type::Q5_1 => (d, -dmin, 0, 32),
            Type::Q3_K => (d * (f32::from(scale()) - 32.0), 0.0, 4, 8),
            Type::Q6_K => (d * f32::from(scale() as i8), 0.0, 32, 64),
            _ => {
                let min = get(block, &min_fields(kind, j));
                let count = match kind {
                    Type::Q2_K => 4,
                    Type::Q4_K => 16,
                    _ => 32,
                };
                (d * f32::from(scale()), dmin * f32::from(min), 0, count)
            }
        };
        Stored {
            step,
            min,
            code: i32::from(raw) - zero,
            range: (-zero, count - 1 - zero),
        }
    };
    (0..kind.block_len()).map(element).collect()
}
