//! NEON: 16 elements of BF16, or 4 of other types as f32, at a time, in the same way as AVX2 does it.

use std::arch::aarch64::*;

use half::bf16;

use super::blocks::{BLOCK, encode_blocks, padded};
use super::element::Element;
use super::rounding::{Rounding, SEGMENTS};
use super::scalar;
use crate::kernels::lanes::Precision;

/// Elements that are encoded together: their codes fill a vector.
const TOGETHER: usize = 16;

/// The largest magnitude of each block, as bits, joined with what `amax` holds.
#[target_feature(enable = "neon")]
pub(super) fn amax_bits<T: Element>(source: &[u8], columns: usize, amax: &mut [u32]) {
    if T::PRECISION == Precision::F32 {
        return scalar::amax_bits::<T>(source, columns, amax);
    }
    // Lane by lane through all rows first, in the order of memory.
    let mut lanes = vec![vdupq_n_u16(0); amax.len()];
    for row in source.chunks_exact(columns * T::BYTES) {
        for (part, lanes) in row.chunks(BLOCK * T::BYTES).zip(&mut lanes) {
            *lanes = if part.len() == BLOCK * T::BYTES {
                amax_of_part(part, *lanes)
            } else {
                amax_of_part(&padded::<T>(part), *lanes)
            };
        }
    }
    for (amax, lanes) in amax.iter_mut().zip(lanes) {
        *amax = u32::from(vmaxvq_u16(lanes)).max(*amax);
    }
}

/// Writes the codes of finite elements.
#[target_feature(enable = "neon")]
pub(super) fn encode<T: Element>(source: &[u8], columns: usize, codes: &mut [u8], scales: &[f32]) {
    let block = |scale| Block::new::<T>(scale);
    let part = |part: &[u8], codes: &mut [u8], block: &Block| encode_part::<T>(part, codes, block);
    encode_blocks::<T, Block>(source, columns, codes, scales, block, part);
}

/// What the elements of a block need.
#[derive(Clone, Copy)]
struct Block {
    /// The addends' bytes: for 16-bit lanes the low ones of all, then the high ones; for 32-bit lanes
    /// as they lie in memory.
    addends: uint8x16x4_t,
    /// Magnitude bits of a lane.
    smallest_normal: u32,
    scale: f32,
}

impl Block {
    #[inline]
    #[target_feature(enable = "neon")]
    fn new<T: Element>(scale: f32) -> Block {
        let rounding = match T::PRECISION {
            Precision::Bf16 => Rounding::new::<T, bf16>(scale),
            Precision::F16 | Precision::F32 => Rounding::new::<T, f32>(scale),
        };
        let mut bytes = [0; 4 * SEGMENTS];
        for (segment, addend) in rounding.addends.into_iter().enumerate() {
            match T::PRECISION {
                Precision::Bf16 => {
                    bytes[segment] = addend as u8;
                    bytes[SEGMENTS + segment] = (addend >> 8) as u8;
                }
                Precision::F16 | Precision::F32 => {
                    bytes[4 * segment..][..4].copy_from_slice(&addend.to_le_bytes());
                }
            }
        }
        Block {
            // SAFETY: `bytes` has 64 bytes.
            addends: unsafe { vld1q_u8_x4(bytes.as_ptr()) },
            smallest_normal: rounding.smallest_normal,
            scale,
        }
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn load(vector: &[u8; 16]) -> uint8x16_t {
    // SAFETY: `vector` has 16 bytes.
    unsafe { vld1q_u8(vector.as_ptr()) }
}

/// The elements of `part` of 16 bits, joined with `amax` lane by lane.
#[inline]
#[target_feature(enable = "neon")]
fn amax_of_part(part: &[u8], mut amax: uint16x8_t) -> uint16x8_t {
    for vector in part.as_chunks().0 {
        let bits = vreinterpretq_u16_u8(load(vector));
        amax = vmaxq_u16(amax, vandq_u16(bits, vdupq_n_u16(0x7fff)));
    }
    amax
}

#[inline]
#[target_feature(enable = "neon")]
fn encode_part<T: Element>(part: &[u8], codes: &mut [u8], block: &Block) {
    let elements = part[..BLOCK * T::BYTES].chunks_exact(TOGETHER * T::BYTES);
    let chunks = codes[..BLOCK].as_chunks_mut::<TOGETHER>().0.iter_mut();
    let smallest = match T::PRECISION {
        Precision::Bf16 => {
            let mut smallest = vdupq_n_u16(u16::MAX);
            for (elements, codes) in elements.zip(chunks) {
                store(codes, codes_of_bf16(elements, block, &mut smallest));
            }
            u32::from(vminvq_u16(smallest))
        }
        Precision::F16 | Precision::F32 => {
            let mut smallest = vdupq_n_u32(u32::MAX);
            for (elements, codes) in elements.zip(chunks) {
                let quarters = [0, 1, 2, 3].map(|quarter| {
                    let x = load_f32::<T>(&elements[4 * quarter * T::BYTES..]);
                    codes_of_f32(x, block, &mut smallest)
                });
                let [a, b, c, d] = quarters;
                let low = vcombine_u16(vmovn_u32(a), vmovn_u32(b));
                let high = vcombine_u16(vmovn_u32(c), vmovn_u32(d));
                store(codes, vcombine_u8(vmovn_u16(low), vmovn_u16(high)));
            }
            vminvq_u32(smallest)
        }
    };
    if smallest < block.smallest_normal {
        divide_part::<T>(part, codes, block);
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn store(vector: &mut [u8; TOGETHER], value: uint8x16_t) {
    // SAFETY: `vector` has 16 bytes.
    unsafe { vst1q_u8(vector.as_mut_ptr(), value) }
}

/// The codes of 16 elements, and the least magnitude.
#[inline]
#[target_feature(enable = "neon")]
fn codes_of_bf16(elements: &[u8], block: &Block, smallest: &mut uint16x8_t) -> uint8x16_t {
    let [first, second] = [0, 1].map(|half| load(&elements.as_chunks().0[half]));
    // The low bytes of all elements have the segment, the high bytes the sign.
    let segment = vandq_u8(
        vshrq_n_u8::<{ 7 - 4 }>(vuzp1q_u8(first, second)),
        vdupq_n_u8(0xf),
    );
    let signs = vandq_u8(vuzp2q_u8(first, second), vdupq_n_u8(0x80));
    let low = vqtbl1q_u8(block.addends.0, segment);
    let high = vqtbl1q_u8(block.addends.1, segment);
    let halves = [
        (first, vzip1q_u8(low, high)),
        (second, vzip2q_u8(low, high)),
    ];
    let [first, second] = halves.map(|(bits, addends)| {
        let magnitudes = vandq_u16(vreinterpretq_u16_u8(bits), vdupq_n_u16(0x7fff));
        *smallest = vminq_u16(*smallest, magnitudes);
        vshrn_n_u16::<{ 7 - 3 }>(vaddq_u16(magnitudes, vreinterpretq_u16_u8(addends)))
    });
    vorrq_u8(vcombine_u8(first, second), signs)
}

/// The first 4 elements as the bits of f32.
#[inline]
#[target_feature(enable = "neon")]
fn load_f32<T: Element>(elements: &[u8]) -> uint32x4_t {
    match T::PRECISION {
        Precision::F32 => vreinterpretq_u32_u8(load(&elements.as_chunks().0[0])),
        _ => {
            // The exponent biases differ by 112, and the product is exact, also for subnormals.
            const REBIAS: f32 = f32::from_bits((127 + 112) << 23);
            let at = elements[..8].as_ptr();
            // SAFETY: there are 8 bytes.
            let bits = vreinterpret_u16_u8(unsafe { vld1_u8(at) });
            let magnitude = vshll_n_u16::<13>(vand_u16(bits, vdup_n_u16(0x7fff)));
            let magnitude = vmulq_n_f32(vreinterpretq_f32_u32(magnitude), REBIAS);
            let sign = vshll_n_u16::<16>(vand_u16(bits, vdup_n_u16(0x8000)));
            vorrq_u32(vreinterpretq_u32_f32(magnitude), sign)
        }
    }
}

/// The codes of 4 numbers, in the low bytes of lanes, and the least magnitude.
#[inline]
#[target_feature(enable = "neon")]
fn codes_of_f32(bits: uint32x4_t, block: &Block, smallest: &mut uint32x4_t) -> uint32x4_t {
    let magnitudes = vandq_u32(bits, vdupq_n_u32(0x7fff_ffff));
    *smallest = vminq_u32(*smallest, magnitudes);
    // The four bytes of an addend lie behind each other.
    let segment = vandq_u32(vshrq_n_u32::<{ 23 - 4 }>(bits), vdupq_n_u32(0xf));
    let index = vmlaq_n_u32(vdupq_n_u32(0x0302_0100), segment, 0x0404_0404);
    let addends = vqtbl4q_u8(block.addends, vreinterpretq_u8_u32(index));
    let sums = vaddq_u32(magnitudes, vreinterpretq_u32_u8(addends));
    let signs = vandq_u32(vshrq_n_u32::<24>(bits), vdupq_n_u32(0x80));
    vorrq_u32(vshrq_n_u32::<{ 23 - 3 }>(sums), signs)
}

/// The codes of a whole part by division.
#[cold]
#[inline(never)]
#[target_feature(enable = "neon")]
fn divide_part<T: Element>(part: &[u8], codes: &mut [u8], block: &Block) {
    scalar::encode_part::<T>(part, codes, |x| x / block.scale);
}
