//! Blocks of 32 elements by the weights of their columns.

use super::super::pack::{pack_fifth_bits, pack_nibbles, put_f16};
use super::super::search::{Scaled, Steps, fit, fit_scale};
use super::super::types::Type;
use super::super::vector::{MAX_LANES, Vector, transpose};
use super::importance::{Importance, mean_square};

const BLOCK: usize = 32;

/// Encodes a row of Q4_0, Q4_1, Q5_0 or Q5_1.
#[inline(always)]
pub(super) fn encode<V: Vector>(kind: Type, row: &[f32], columns: &[f32], blocks: &mut [u8]) {
    let variance = mean_square(row);
    let importance = Importance::<BLOCK> {
        columns,
        variances: &[variance],
        blocks_each: usize::MAX,
    };
    let together = blocks.chunks_mut(V::LANES * kind.block_bytes());
    for (chunk, (values, blocks)) in row.chunks(V::LANES * BLOCK).zip(together).enumerate() {
        let x = transpose::<V, BLOCK>(values);
        let weights = importance.weights(chunk * V::LANES, &x);
        let blocks = blocks.chunks_exact_mut(kind.block_bytes());
        let values = values.as_chunks::<BLOCK>().0.iter();
        match kind {
            Type::Q4_0 | Type::Q5_0 => {
                let half = if kind == Type::Q4_0 { 8.0 } else { 16.0 };
                let mut found = [Scaled::default(); MAX_LANES];
                fit_scale(&x, &weights, half).spread(&mut found);
                for ((values, block), found) in values.zip(blocks).zip(found) {
                    put_f16(block, 0, found.scale);
                    put_codes(kind, &mut block[2..], &values.map(|x| found.code(x, half)));
                }
            }
            _ => {
                let most = if kind == Type::Q4_1 { 15.0 } else { 31.0 };
                let steps = Steps::weighted(most);
                let mut fits = [Default::default(); MAX_LANES];
                fit(&x, &weights, steps).spread(&mut fits);
                for ((values, block), fit) in values.zip(blocks).zip(fits) {
                    put_f16(block, 0, fit.scale);
                    put_f16(block, 2, -fit.min);
                    put_codes(kind, &mut block[4..], &values.map(|x| fit.code(x, &steps)));
                }
            }
        }
    }
}

/// Writes codes of four bits, or of five.
#[inline(always)]
fn put_codes(kind: Type, bytes: &mut [u8], codes: &[u8; BLOCK]) {
    if matches!(kind, Type::Q4_0 | Type::Q4_1) {
        bytes.copy_from_slice(&pack_nibbles(codes));
    } else {
        bytes[..4].copy_from_slice(&pack_fifth_bits(codes));
        bytes[4..].copy_from_slice(&pack_nibbles(&codes.map(|code| code & 15)));
    }
}
