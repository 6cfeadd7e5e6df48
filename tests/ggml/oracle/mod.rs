//! The formats in plain code: one sub-block after the other, one bit field after the other.
//!
//! Written from the description of the formats; the library's packing and searches are not used.

mod layout;
mod search;

use ckptfs::kernels::ggml::Type;

use layout::{code_fields, f16_places, min_fields, put, put_f16, scale_fields, sub_block};
use search::{Search, descend, first_largest, fit_positive, fit_scale, fit_with_min, nearest};

pub(crate) use layout::stored;

/// The blocks of a row.
pub(crate) fn encode(kind: Type, row: &[f32], weights: Option<&[f32]>) -> Vec<u8> {
    let mut blocks = vec![0; kind.row_bytes(row.len()).expect("whole blocks")];
    let len = kind.block_len();
    let variance = row.iter().fold(0.0, |sum, x| sum + x * x) / row.len() as f32;
    for (b, block) in blocks.chunks_mut(kind.block_bytes()).enumerate() {
        let values = &row[b * len..][..len];
        let weights = weights.map(|weights| &weights[b * len..][..len]);
        match (kind, weights) {
            (Type::Q8_0, _) => q8_0(values, block),
            (Type::Q4_0 | Type::Q5_0 | Type::Q4_1 | Type::Q5_1, None) => plain(kind, values, block),
            (Type::Q4_0 | Type::Q5_0 | Type::Q4_1 | Type::Q5_1, Some(weights)) => {
                let weights = important(values, weights, variance);
                weighted(kind, values, &weights, block);
            }
            (Type::Q2_K | Type::Q4_K | Type::Q5_K, weights) => {
                with_minima(kind, values, weights, block);
            }
            (Type::Q3_K, weights) => q3_k(values, weights, block),
            (Type::Q6_K, weights) => q6_k(values, weights, block),
            (other, _) => panic!("{other:?} is not quantized"),
        }
    }
    blocks
}

fn put_codes(kind: Type, block: &mut [u8], codes: &[u8]) {
    for (i, code) in codes.iter().enumerate() {
        put(block, &code_fields(kind, i), *code);
    }
}

/// `w · √(σ² + x²)`.
fn important(values: &[f32], weights: &[f32], variance: f32) -> Vec<f32> {
    let pairs = values.iter().zip(weights);
    pairs.map(|(x, w)| w * (variance + x * x).sqrt()).collect()
}

fn inverse_of(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// As x86 converts to i32, and then to i8: what has no i32 is 0.
fn whole(x: f32) -> i32 {
    if x.abs() < 2.0f32.powi(31) {
        x as i32
    } else {
        0
    }
}

fn q8_0(values: &[f32], block: &mut [u8]) {
    let d = first_largest(values).abs() / 127.0;
    put_f16(block, 0, d);
    let codes = values
        .iter()
        .map(|x| whole((x * inverse_of(d)).round()) as i8 as u8);
    put_codes(Type::Q8_0, block, &codes.collect::<Vec<_>>());
}

fn plain(kind: Type, values: &[f32], block: &mut [u8]) {
    let count = if matches!(kind, Type::Q4_0 | Type::Q4_1) {
        16.0
    } else {
        32.0
    };
    let codes: Vec<u8> = if matches!(kind, Type::Q4_0 | Type::Q5_0) {
        let d = first_largest(values) / -(count / 2.0);
        put_f16(block, 0, d);
        let code = |x: &f32| whole(x * inverse_of(d) + (count / 2.0 + 0.5));
        values
            .iter()
            .map(|x| code(x).min(count as i32 - 1) as u8)
            .collect()
    } else {
        let min = values
            .iter()
            .fold(values[0], |a, b| if *b < a { *b } else { a });
        let max = values
            .iter()
            .fold(values[0], |a, b| if *b > a { *b } else { a });
        let d = (max - min) / (count - 1.0);
        put_f16(block, 0, d);
        put_f16(block, 2, min);
        let code = |x: &f32| whole((x - min) * inverse_of(d) + 0.5);
        values
            .iter()
            .map(|x| code(x).min(count as i32 - 1) as u8)
            .collect()
    };
    put_codes(kind, block, &codes);
}

fn weighted(kind: Type, values: &[f32], weights: &[f32], block: &mut [u8]) {
    match kind {
        Type::Q4_0 | Type::Q5_0 => {
            let half = if kind == Type::Q4_0 { 8 } else { 16 };
            let (d, codes) = fit_scale(values, weights, half);
            put_f16(block, 0, d);
            put_codes(kind, block, &codes);
        }
        _ => {
            let most = if kind == Type::Q4_1 { 15 } else { 31 };
            let (d, min, codes) = fit_with_min(values, weights, &Search::weighted(most));
            put_f16(block, 0, d);
            put_f16(block, 2, -min);
            put_codes(kind, block, &codes);
        }
    }
}

/// Codes on the grid that is stored; those of the search where it has no step.
fn put_nearest_codes(kind: Type, block: &mut [u8], values: &[f32], searched: &[u8]) {
    let grid = stored(kind, block);
    let mut codes = Vec::new();
    for (i, x) in values.iter().enumerate() {
        let (low, high) = grid[i].range;
        codes.push(match grid[i].step {
            0.0 => searched[i],
            step => (nearest((x + grid[i].min) / step).clamp(low, high) - low) as u8,
        });
    }
    put_codes(kind, block, &codes);
}

/// Q2_K, Q4_K and Q5_K.
fn with_minima(kind: Type, values: &[f32], columns: Option<&[f32]>, block: &mut [u8]) {
    let len = sub_block(kind);
    let (most, first, last, levels) = match kind {
        Type::Q2_K => (3, -0.5, 15, 15),
        Type::Q4_K => (15, -1.0, 20, 63),
        _ => (31, -0.5, 15, 63),
    };
    let is_two_bits = kind == Type::Q2_K;
    let squares = values.iter().fold(0.0, |sum, x| sum + x * x);
    let variance = if is_two_bits {
        squares / 256.0
    } else {
        2.0 * squares / 256.0
    };
    let search = match columns {
        Some(_) => Search::weighted(most),
        None => Search {
            most,
            first,
            step: 0.1,
            last,
            absolute: is_two_bits,
            bounded: false,
        },
    };
    let (mut scales, mut mins, mut sums, mut searched) = (vec![], vec![], vec![], vec![]);
    for (j, x) in values.chunks(len).enumerate() {
        let weights: Vec<f32> = match columns {
            Some(columns) => important(x, &columns[len * j..], variance),
            None => {
                let squares = x.iter().fold(0.0, |sum, x| sum + x * x);
                let raised = if is_two_bits {
                    0.0
                } else {
                    (squares / len as f32).sqrt()
                };
                x.iter().map(|x| raised + x.abs()).collect()
            }
        };
        let (scale, min, codes) = fit_with_min(x, &weights, &search);
        scales.push(scale);
        mins.push(min);
        sums.push(weights.iter().fold(0.0, |sum, weight| sum + weight));
        searched.extend(codes);
    }
    let level = |values: &[f32]| match columns {
        Some(_) => fit_positive(values, &sums, levels),
        None => {
            let max = values
                .iter()
                .fold(0.0f32, |a, b| if *b > a { *b } else { a });
            let inverse = if max > 0.0 { levels as f32 / max } else { 0.0 };
            let levels_of = values.iter().map(|value| nearest(inverse * value) as u8);
            (max / levels as f32, levels_of.collect())
        }
    };
    let ((d, mut scales), (dmin, mut mins)) = (level(&scales), level(&mins));
    // Levels that have wrapped around are cut off, but not everywhere.
    if kind == Type::Q5_K || kind == Type::Q4_K && columns.is_none() {
        let levels = scales.iter_mut().chain(&mut mins);
        levels.for_each(|level| *level = (*level).min(63));
    }
    let (d_at, dmin_at) = f16_places(kind);
    put_f16(block, d_at, d);
    put_f16(block, dmin_at.unwrap(), dmin);
    for j in 0..scales.len() {
        put(block, &scale_fields(kind, j), scales[j]);
        put(block, &min_fields(kind, j), mins[j]);
    }
    put_nearest_codes(kind, block, values, &searched);
}

fn q3_k(values: &[f32], columns: Option<&[f32]>, block: &mut [u8]) {
    let squares = values.iter().fold(0.0, |sum, x| sum + x * x);
    let variance = 2.0 * squares / 256.0;
    let (mut scales, mut sums, mut searched) = (vec![], vec![], vec![]);
    for (j, x) in values.chunks(16).enumerate() {
        let (scale, codes) = match columns {
            Some(columns) => {
                let weights = important(x, &columns[16 * j..], variance);
                sums.push(weights.iter().fold(0.0, |sum, weight| sum + weight));
                fit_scale(x, &weights, 4)
            }
            None => descend(x, 4),
        };
        scales.push(scale);
        searched.extend(codes);
    }
    let (d, levels) = if columns.is_some() {
        fit_scale(&scales, &sums, 32)
    } else if first_largest(&scales) == 0.0 {
        (0.0, vec![0; 16])
    } else {
        let inverse = -32.0 / first_largest(&scales);
        let level = |scale: &f32| (nearest(inverse * scale).clamp(-32, 31) + 32) as u8;
        (1.0 / inverse, scales.iter().map(level).collect())
    };
    put_f16(block, 108, d);
    for (j, level) in levels.iter().enumerate() {
        put(block, &scale_fields(Type::Q3_K, j), *level);
    }
    put_nearest_codes(Type::Q3_K, block, values, &searched);
}

fn q6_k(values: &[f32], columns: Option<&[f32]>, block: &mut [u8]) {
    let (mut scales, mut searched) = (vec![], vec![]);
    for (j, x) in values.chunks(16).enumerate() {
        let squares: Vec<f32> = x.iter().map(|x| x * x).collect();
        let weights = columns.map_or(&*squares, |columns| &columns[16 * j..][..16]);
        let (scale, codes) = fit_scale(x, weights, 32);
        scales.push(scale);
        searched.extend(codes);
    }
    let largest = first_largest(&scales);
    if largest.abs() < 1e-15 {
        return;
    }
    let inverse = -128.0 / largest;
    put_f16(block, 208, 1.0 / inverse);
    for (j, scale) in scales.iter().enumerate() {
        let level = nearest(inverse * scale).min(127) as i8 as u8;
        put(block, &scale_fields(Type::Q6_K, j), level);
    }
    put_nearest_codes(Type::Q6_K, block, values, &searched);
}
