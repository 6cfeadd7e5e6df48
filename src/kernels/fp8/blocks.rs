//! Blocks of a matrix, and the loops over the parts of rows that lie in one.

use super::element::Element;

/// Rows and columns of a block.
pub const BLOCK: usize = 128;

/// Encodes `source` block by block: `block` makes what the elements of a block of this scale need, and
/// `encode_part` gives the codes of one row of a block, filled up with zeros. Inlined, so that both
/// are compiled for the processor of the caller.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[inline(always)]
pub(super) fn encode_blocks<T: Element, B: Copy>(
    source: &[u8],
    columns: usize,
    codes: &mut [u8],
    scales: &[f32],
    block: impl Fn(f32) -> B,
    encode_part: impl Fn(&[u8], &mut [u8], &B),
) {
    let mut blocks: Vec<B> = Vec::with_capacity(scales.len());
    for (i, &scale) in scales.iter().enumerate() {
        // Where a row has one scale, its blocks need one thing.
        let made = match i.checked_sub(1) {
            Some(last) if scales[last] == scale => blocks[last],
            _ => block(scale),
        };
        blocks.push(made);
    }
    let rows = source.chunks_exact(columns * T::BYTES);
    for (row, codes) in rows.zip(codes.chunks_exact_mut(columns)) {
        let parts = row.chunks(BLOCK * T::BYTES).zip(codes.chunks_mut(BLOCK));
        for ((part, codes), block) in parts.zip(&blocks) {
            if codes.len() == BLOCK {
                encode_part(part, codes, block);
            } else {
                let mut all = [0; BLOCK];
                encode_part(&padded::<T>(part), &mut all, block);
                codes.copy_from_slice(&all[..codes.len()]);
            }
        }
    }
}

/// `part`, elements of a row, and zeros after it, as many as a block is wide.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) fn padded<T: Element>(part: &[u8]) -> Vec<u8> {
    let mut all = vec![0; BLOCK * T::BYTES];
    all[..part.len()].copy_from_slice(part);
    all
}
