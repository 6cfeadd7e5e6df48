//! Blocks to f32: every product and every sum is rounded, as `ggml-quants.c` has it.

mod blocks;
mod super_blocks;
mod tables;

use std::marker::PhantomData;

use super::each::each;
use super::types::Type;
use super::vector::Vector;
use crate::kernels::Loop;
use crate::kernels::lanes::Precision;

/// Decodes `blocks` to `values`, whose lengths fit, in vectors of `V`.
pub(super) struct Decoding<'a, V> {
    kind: Type,
    blocks: &'a [u8],
    values: &'a mut [f32],
    vector: PhantomData<V>,
}

impl<'a, V> Decoding<'a, V> {
    pub(super) fn new(kind: Type, blocks: &'a [u8], values: &'a mut [f32]) -> Self {
        Decoding {
            kind,
            blocks,
            values,
            vector: PhantomData,
        }
    }
}

impl<V: Vector> Loop for Decoding<'_, V> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Decoding {
            kind,
            blocks,
            values,
            ..
        } = self;
        match kind {
            Type::F32 => Precision::F32.decode(blocks, values),
            Type::F16 => Precision::F16.decode(blocks, values),
            Type::BF16 => Precision::Bf16.decode(blocks, values),
            Type::Q4_0 => each!(blocks, values, blocks::q4_0::<V>),
            Type::Q4_1 => each!(blocks, values, blocks::q4_1::<V>),
            Type::Q5_0 => each!(blocks, values, blocks::q5_0::<V>),
            Type::Q5_1 => each!(blocks, values, blocks::q5_1::<V>),
            Type::Q8_0 => each!(blocks, values, blocks::q8_0::<V>),
            Type::Q2_K => each!(blocks, values, super_blocks::q2_k::<V>),
            Type::Q3_K => each!(blocks, values, super_blocks::q3_k::<V>),
            Type::Q4_K => each!(blocks, values, super_blocks::q4_k::<V>),
            Type::Q5_K => each!(blocks, values, super_blocks::q5_k::<V>),
            Type::Q6_K => each!(blocks, values, super_blocks::q6_k::<V>),
            Type::MXFP4 => each!(blocks, values, tables::mxfp4),
            Type::IQ4_NL => each!(blocks, values, tables::iq4_nl),
            Type::IQ4_XS => each!(blocks, values, tables::iq4_xs),
            Type::TQ1_0 => each!(blocks, values, super_blocks::tq1_0),
            Type::TQ2_0 => each!(blocks, values, super_blocks::tq2_0),
        }
    }
}
