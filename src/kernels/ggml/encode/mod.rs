//! f32 to blocks.

mod blocks;
mod importance;
mod super_blocks;
mod weighted;

use std::marker::PhantomData;

use super::pack;
use super::types::Type;
use super::vector::Vector;
#[cfg(target_arch = "x86_64")]
use super::vector::{F32x8, F32x16};
use crate::kernels::lanes::{Precision, bf16_bits};
use crate::kernels::{CpuPath, Loop};

/// Why a row cannot be encoded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Unencodable {
    /// A NaN or infinity in a column, or of the weights of the columns.
    NotFinite { column: usize, value: f32 },
    /// Values of a block are so large that its scale is beyond f16.
    ScaleOverflow { block: usize },
}

/// As [`encode_row`](super::encode_row), whose lengths were checked.
pub(super) fn encode(
    kind: Type,
    row: &[f32],
    weights: Option<&[f32]>,
    blocks: &mut [u8],
    path: CpuPath,
) -> Result<(), Unencodable> {
    assert!(kind.is_encodable(), "{} is only decoded", kind.name());
    let is_float = matches!(kind, Type::F32 | Type::F16 | Type::BF16);
    if !is_float {
        refuse_not_finite(row, path)?;
        refuse_not_finite(weights.unwrap_or_default(), path)?;
    }
    match path {
        CpuPath::Scalar => path.run(Encoding::<f32>::new(kind, row, weights, blocks)),
        #[cfg(target_arch = "x86_64")]
        CpuPath::Avx2 => path.run(Encoding::<F32x8>::new(kind, row, weights, blocks)),
        #[cfg(target_arch = "x86_64")]
        CpuPath::Avx512 => path.run(Encoding::<F32x16>::new(kind, row, weights, blocks)),
        #[cfg(target_arch = "aarch64")]
        CpuPath::Neon => path.run(Encoding::<f32>::new(kind, row, weights, blocks)),
    }
    refuse_infinite_scales(kind, blocks)
}

fn refuse_not_finite(values: &[f32], path: CpuPath) -> Result<(), Unencodable> {
    if path.run(AreFinite(values)) {
        return Ok(());
    }
    let mut values = values.iter().copied().enumerate();
    match values.find(|(_, value)| !value.is_finite()) {
        Some((column, value)) => Err(Unencodable::NotFinite { column, value }),
        None => Ok(()),
    }
}

struct AreFinite<'a>(&'a [f32]);

impl Loop for AreFinite<'_> {
    type Output = bool;

    #[inline(always)]
    fn run(self) -> bool {
        let magnitudes = self.0.iter().map(|x| x.to_bits() & 0x7fff_ffff);
        magnitudes.fold(0, u32::max) < f32::INFINITY.to_bits()
    }
}

/// Where a block of a type has its f16 scales.
fn scales_at(kind: Type) -> &'static [usize] {
    match kind {
        Type::Q4_0 | Type::Q5_0 | Type::Q8_0 => &[0],
        Type::Q4_1 | Type::Q5_1 | Type::Q4_K | Type::Q5_K => &[0, 2],
        Type::Q2_K => &[80, 82],
        Type::Q3_K => &[108],
        Type::Q6_K => &[208],
        _ => &[],
    }
}

fn refuse_infinite_scales(kind: Type, blocks: &[u8]) -> Result<(), Unencodable> {
    let places = scales_at(kind);
    if places.is_empty() {
        return Ok(());
    }
    let is_finite = |block: &[u8]| {
        let mut places = places.iter();
        places.all(|&at| pack::f16_at(block, at).is_finite())
    };
    let mut blocks = blocks.chunks_exact(kind.block_bytes());
    match blocks.position(|block| !is_finite(block)) {
        Some(block) => Err(Unencodable::ScaleOverflow { block }),
        None => Ok(()),
    }
}

/// Encodes `row`, whose values are finite unless `kind` is a float, in vectors of `V`.
struct Encoding<'a, V> {
    kind: Type,
    row: &'a [f32],
    weights: Option<&'a [f32]>,
    blocks: &'a mut [u8],
    vector: PhantomData<V>,
}

impl<'a, V> Encoding<'a, V> {
    fn new(kind: Type, row: &'a [f32], weights: Option<&'a [f32]>, blocks: &'a mut [u8]) -> Self {
        Encoding {
            kind,
            row,
            weights,
            blocks,
            vector: PhantomData,
        }
    }
}

impl<V: Vector> Loop for Encoding<'_, V> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let (kind, row, blocks) = (self.kind, self.row, self.blocks);
        match (kind, self.weights) {
            (Type::F32, _) => Precision::F32.encode(row, blocks, |x| x),
            (Type::F16, _) => Precision::F16.encode(row, blocks, |x| x),
            (Type::BF16, _) => {
                for (x, bytes) in row.iter().zip(blocks.as_chunks_mut::<2>().0) {
                    *bytes = bf16_bits(*x).to_le_bytes();
                }
            }
            (Type::Q8_0, _) => each(row, blocks, blocks::q8_0),
            (Type::Q4_0, None) => each(row, blocks, blocks::q4_0),
            (Type::Q4_1, None) => each(row, blocks, blocks::q4_1),
            (Type::Q5_0, None) => each(row, blocks, blocks::q5_0),
            (Type::Q5_1, None) => each(row, blocks, blocks::q5_1),
            (Type::Q4_0 | Type::Q4_1 | Type::Q5_0 | Type::Q5_1, Some(weights)) => {
                weighted::encode::<V>(kind, row, weights, blocks);
            }
            (_, weights) => super_blocks::encode::<V>(kind, row, weights, blocks),
        }
    }
}

/// Encodes block after block, of `E` elements and `B` bytes.
#[inline(always)]
fn each<const E: usize, const B: usize>(
    values: &[f32],
    blocks: &mut [u8],
    encode: impl Fn(&[f32; E], &mut [u8; B]),
) {
    let values = values.as_chunks::<E>().0;
    for (values, block) in values.iter().zip(blocks.as_chunks_mut::<B>().0) {
        encode(values, block);
    }
}
