//! f32 to blocks.

mod blocks;
mod importance;
mod super_blocks;
mod weighted;

use std::marker::PhantomData;

use super::each::each;
use super::pack;
use super::types::Type;
#[cfg(target_arch = "x86_64")]
use super::vector::{F32x8, F32x16};
use super::vector::{Plain, Vector};
#[cfg(target_arch = "x86_64")]
use crate::kernels::cpu::{run_on_avx2, run_on_avx512};
use crate::kernels::lanes::{Precision, bf16_bits};
use crate::kernels::{CpuPath, Loop};

/// Why a row cannot be encoded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Unencodable {
    /// A NaN or infinity in a column.
    NotFinite { column: usize, value: f32 },
    /// Values of a block are so large that its scale is beyond f16.
    ScaleOverflow { block: usize },
    /// A weight of a column that is negative, NaN, or not below [`WEIGHT_LIMIT`].
    Weight { column: usize, value: f32 },
}

/// Weights of columns must be below this, lest sums overflow.
pub const WEIGHT_LIMIT: f32 = (1u64 << 40) as f32;

/// No type has values of this magnitude. Sums of smaller ones do not overflow where it would matter.
const VALUE_LIMIT: f32 = (1u64 << 30) as f32;

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
        check_values(kind, row, path)?;
        check_weights(weights.unwrap_or_default(), path)?;
    }
    match path {
        CpuPath::Scalar => Encoding::<Plain>::new(kind, row, weights, blocks).run(),
        #[cfg(target_arch = "x86_64")]
        CpuPath::Avx2 => run_on_avx2(Encoding::<F32x8>::new(kind, row, weights, blocks)),
        #[cfg(target_arch = "x86_64")]
        CpuPath::Avx512 => run_on_avx512(Encoding::<F32x16>::new(kind, row, weights, blocks)),
        #[cfg(target_arch = "aarch64")]
        CpuPath::Neon => Encoding::<Plain>::new(kind, row, weights, blocks).run(),
    }
    refuse_infinite_scales(kind, blocks)
}

fn check_values(kind: Type, row: &[f32], path: CpuPath) -> Result<(), Unencodable> {
    if path.run(MagnitudesBelow(row, VALUE_LIMIT)) {
        return Ok(());
    }
    let mut values = row.iter().copied().enumerate();
    let not_finite = values.clone().find(|(_, value)| !value.is_finite());
    let too_large = values.find(|(_, value)| value.abs() >= VALUE_LIMIT);
    match (not_finite, too_large) {
        (Some((column, value)), _) => Err(Unencodable::NotFinite { column, value }),
        (None, Some((column, _))) => Err(Unencodable::ScaleOverflow {
            block: column / kind.block_len(),
        }),
        (None, None) => Ok(()),
    }
}

fn check_weights(weights: &[f32], path: CpuPath) -> Result<(), Unencodable> {
    if path.run(MagnitudesBelow(weights, WEIGHT_LIMIT)) && path.run(AreNotNegative(weights)) {
        return Ok(());
    }
    let mut weights = weights.iter().copied().enumerate();
    match weights.find(|(_, weight)| !(0.0..WEIGHT_LIMIT).contains(weight)) {
        Some((column, value)) => Err(Unencodable::Weight { column, value }),
        None => Ok(()),
    }
}

/// Whether all are below a limit, and no NaN is among them.
struct MagnitudesBelow<'a>(&'a [f32], f32);

impl Loop for MagnitudesBelow<'_> {
    type Output = bool;

    #[inline(always)]
    fn run(self) -> bool {
        let mut largest = 0;
        for x in self.0 {
            largest = largest.max(x.to_bits() & 0x7fff_ffff);
        }
        largest < self.1.to_bits()
    }
}

struct AreNotNegative<'a>(&'a [f32]);

impl Loop for AreNotNegative<'_> {
    type Output = bool;

    #[inline(always)]
    fn run(self) -> bool {
        let mut bits = 0;
        for x in self.0 {
            bits |= x.to_bits();
        }
        bits >> 31 == 0
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
    if places.is_empty() && kind != Type::MXFP4 {
        return Ok(());
    }
    let is_finite = |block: &[u8]| {
        let mut places = places.iter();
        match kind {
            // All ones are NaN.
            Type::MXFP4 => block[0] != u8::MAX,
            _ => places.all(|&at| pack::f16_at(block, at).is_finite()),
        }
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
            (Type::Q8_0, _) => each!(row, blocks, blocks::q8_0),
            (Type::MXFP4, _) => each!(row, blocks, blocks::mxfp4),
            (Type::Q4_0, None) => each!(row, blocks, blocks::q4_0),
            (Type::Q4_1, None) => each!(row, blocks, blocks::q4_1),
            (Type::Q5_0, None) => each!(row, blocks, blocks::q5_0),
            (Type::Q5_1, None) => each!(row, blocks, blocks::q5_1),
            (Type::Q4_0 | Type::Q4_1 | Type::Q5_0 | Type::Q5_1, Some(weights)) => {
                weighted::encode::<V>(kind, row, weights, blocks);
            }
            (_, weights) => super_blocks::encode::<V>(kind, row, weights, blocks),
        }
    }
}
