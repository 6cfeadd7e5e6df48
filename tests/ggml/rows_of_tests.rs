//! Rows to encode.

use ckptfs::kernels::ggml::Type;
use proptest::prelude::*;

/// The types that have codes.
pub(crate) const QUANTIZED: [Type; 10] = [
    Type::Q4_0,
    Type::Q4_1,
    Type::Q5_0,
    Type::Q5_1,
    Type::Q8_0,
    Type::Q2_K,
    Type::Q3_K,
    Type::Q4_K,
    Type::Q5_K,
    Type::Q6_K,
];

fn near_normal() -> impl Strategy<Value = f32> {
    prop::array::uniform4(-1.0..1.0f32).prop_map(|parts| parts.iter().sum())
}

fn values() -> impl Strategy<Value = f32> + Clone {
    let special = prop::sample::select(vec![0.0, -0.0, 1.0, -1.0, 0.5, 1e-38, -1e-45, 3e-15]);
    prop_oneof![
        8 => near_normal(),
        1 => special,
        1 => (-8..=8i32).prop_map(|whole| whole as f32),
    ]
    .boxed()
}

/// Sub-blocks of 16 that are each of a size of their own, or constant, or of one sign.
fn part() -> impl Strategy<Value = Vec<f32>> {
    let scale = prop_oneof![
        6 => Just(0.02f32),
        2 => (-12..12i32).prop_map(|exponent| 2.0f32.powi(exponent)),
        1 => (-149..-30i32).prop_map(|exponent| 2.0f32.powi(exponent)),
    ];
    let values = prop::collection::vec(values(), 16);
    (values, scale, 0..10).prop_map(|(mut values, scale, kind)| {
        for x in &mut values {
            *x *= scale;
        }
        let first = values[0];
        match kind {
            0 => values.fill(0.0),
            1 => values.fill(first),
            2 => values.iter_mut().for_each(|x| *x = x.abs()),
            3 => values.iter_mut().for_each(|x| *x = -x.abs()),
            4 => values.iter_mut().for_each(|x| *x = first + *x * 1e-6),
            _ => {}
        }
        values
    })
}

/// One to `most` super-blocks.
pub(crate) fn row(most: usize) -> impl Strategy<Value = Vec<f32>> {
    let super_block = prop::collection::vec(part(), 16).prop_map(|parts| parts.concat());
    prop::collection::vec(super_block, 1..=most).prop_map(|blocks| blocks.concat())
}

/// Weights of columns, more than any row has.
pub(crate) fn weights(count: usize) -> impl Strategy<Value = Vec<f32>> {
    let weight = prop_oneof![
        1 => Just(0.0f32),
        4 => 0.0..2.0f32,
        1 => (-30..30i32).prop_map(|exponent| 2.0f32.powi(exponent)),
    ];
    prop::collection::vec(weight, count)
}
