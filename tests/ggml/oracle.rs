//! The formats in plain code: one sub-block after the other, one bit field after the other.
//!
//! Written from the description of the formats; the library's packing and searches are not used.

use ckptfs::kernels::ggml::Type;
use half::f16;

/// Bits of a value that lie in a byte: the byte, the lowest bit there, how many, and which bit of
/// the value is the lowest of them.
type Field = (usize, u32, u32, u32);

/// Sets the bits of `value`. What it has beyond the last field runs into its neighbours: so do levels
/// that have wrapped around, in llama.cpp.
fn put(block: &mut [u8], fields: &[Field], value: u8) {
    for (at, &(byte, shift, width, from)) in fields.iter().enumerate() {
        let mask = match at + 1 == fields.len() {
            true => 0xff,
            false => ((1u32 << width) - 1) as u8,
        };
        block[byte] |= (value >> from & mask) << shift;
    }
}

fn get(block: &[u8], fields: &[Field]) -> u8 {
    let mut value = 0;
    for &(byte, shift, width, from) in fields {
        let mask = ((1u32 << width) - 1) as u8;
        value |= (block[byte] >> shift & mask) << from;
    }
    value
}

/// Where the code of element `i` of a block is.
fn code_fields(kind: Type, i: usize) -> Vec<Field> {
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
fn scale_fields(kind: Type, j: usize) -> Vec<Field> {
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
fn min_fields(kind: Type, j: usize) -> Vec<Field> {
    match kind {
        Type::Q2_K => vec![(j, 4, 4, 0)],
        Type::Q4_K | Type::Q5_K if j < 4 => vec![(8 + j, 0, 6, 0)],
        Type::Q4_K | Type::Q5_K => vec![(8 + j, 4, 4, 0), (4 + j, 6, 2, 4)],
        other => panic!("{other:?} has no minima of sub-blocks"),
    }
}

/// Where the f16 scale of a block is, and the f16 minimum.
fn f16_places(kind: Type) -> (usize, Option<usize>) {
    match kind {
        Type::Q4_1 | Type::Q5_1 | Type::Q4_K | Type::Q5_K => (0, Some(2)),
        Type::Q2_K => (80, Some(82)),
        Type::Q3_K => (108, None),
        Type::Q6_K => (208, None),
        _ => (0, None),
    }
}

fn put_f16(block: &mut [u8], at: usize, x: f32) {
    block[at..at + 2].copy_from_slice(&f16::from_f32(x).to_le_bytes());
}

fn get_f16(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Elements of a sub-block; of a block, where there are none.
fn sub_block(kind: Type) -> usize {
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

/// The first of the largest magnitudes.
fn first_largest(values: &[f32]) -> f32 {
    let mut largest = 0.0f32;
    for x in values {
        if x.abs() > largest.abs() {
            largest = *x;
        }
    }
    largest
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

/// Rounds by adding 1.5 · 2²³, whatever becomes of numbers that are too large for it.
fn nearest(x: f32) -> i32 {
    ((x + 12_582_912.0).to_bits() & 0x7f_ffff) as i32 - 0x40_0000
}

/// `x ≈ scale · (code − half)`.
fn fit_scale(x: &[f32], weights: &[f32], half: i32) -> (f32, Vec<u8>) {
    let max = first_largest(x);
    if max.abs() < 1e-15 {
        return (0.0, vec![0; x.len()]);
    }
    let try_with = |inverse: f32| {
        let codes: Vec<i32> = x
            .iter()
            .map(|x| nearest(inverse * x).min(half - 1).max(-half))
            .collect();
        let (mut lx, mut l2) = (0.0, 0.0);
        for i in 0..x.len() {
            lx += weights[i] * x[i] * codes[i] as f32;
            l2 += weights[i] * codes[i] as f32 * codes[i] as f32;
        }
        (codes, lx, l2)
    };
    let (mut codes, lx, l2) = try_with(-half as f32 / max);
    let mut scale = if l2 == 0.0 { 0.0 } else { lx / l2 };
    let mut best = scale * lx;
    for step in (-9..=9).filter(|step| *step != 0) {
        let (new, lx, l2) = try_with(-(half as f32 + 0.1 * step as f32) / max);
        if l2 > 0.0 && lx * lx > best * l2 {
            codes = new;
            scale = lx / l2;
            best = scale * lx;
        }
    }
    let codes = codes.iter().map(|code| (code + half) as u8).collect();
    (scale, codes)
}

struct Search {
    most: i32,
    first: f32,
    step: f32,
    last: i32,
    absolute: bool,
    bounded: bool,
}

impl Search {
    fn weighted(most: i32) -> Self {
        Search {
            most,
            first: -0.9,
            step: 0.05,
            last: 36,
            absolute: false,
            bounded: true,
        }
    }
}

/// `x ≈ scale · code − min`.
fn fit_with_min(x: &[f32], weights: &[f32], search: &Search) -> (f32, f32, Vec<u8>) {
    let most = search.most;
    let (mut min, mut max) = (x[0], x[0]);
    let (mut sum_w, mut sum_x) = (weights[0], weights[0] * x[0]);
    for i in 1..x.len() {
        min = if x[i] < min { x[i] } else { min };
        max = if x[i] > max { x[i] } else { max };
        sum_w += weights[i];
        sum_x += weights[i] * x[i];
    }
    if min > 0.0 {
        min = 0.0;
    }
    if min == max {
        return (0.0, -min, vec![0; x.len()]);
    }
    let error = |scale: f32, min: f32, codes: &[i32]| {
        let mut sum = 0.0;
        for i in 0..x.len() {
            let difference = scale * codes[i] as f32 + min - x[i];
            let error = if search.absolute {
                difference.abs()
            } else {
                difference * difference
            };
            sum += weights[i] * error;
        }
        sum
    };
    let inverse = most as f32 / (max - min);
    let mut codes: Vec<i32> = x
        .iter()
        .map(|x| nearest(inverse * (x - min)).clamp(0, most))
        .collect();
    let mut scale = 1.0 / inverse;
    let mut best = error(scale, min, &codes);
    for step in 0..=search.last {
        let inverse = (search.first + search.step * step as f32 + most as f32) / (max - min);
        let code = |x: &f32| {
            let value = inverse * (x - min);
            match search.bounded {
                false => nearest(value).clamp(0, most),
                true if value > 0.0 => nearest(value.min(most as f32)),
                true => 0,
            }
        };
        let new: Vec<i32> = x.iter().map(code).collect();
        let (mut l, mut l2, mut xl) = (0.0, 0.0, 0.0);
        for i in 0..x.len() {
            let code = new[i] as f32;
            l += weights[i] * code;
            l2 += weights[i] * code * code;
            xl += weights[i] * code * x[i];
        }
        let determinant = sum_w * l2 - l * l;
        if determinant > 0.0 {
            let mut new_scale = (sum_w * xl - sum_x * l) / determinant;
            let mut new_min = (l2 * sum_x - l * xl) / determinant;
            if new_min > 0.0 {
                new_min = 0.0;
                new_scale = xl / l2;
            }
            let new_error = error(new_scale, new_min, &new);
            if new_error < best {
                (best, scale, min, codes) = (new_error, new_scale, new_min, new);
            }
        }
    }
    (scale, -min, codes.iter().map(|code| *code as u8).collect())
}

/// `x ≈ scale · code`, for numbers that are not negative.
fn fit_positive(x: &[f32], weights: &[f32], most: i32) -> (f32, Vec<u8>) {
    let max = x.iter().fold(0.0, |a, b| if a > *b { a } else { *b });
    if max < 1e-15 {
        return (0.0, vec![0; x.len()]);
    }
    let error = |inverse: f32, code: &dyn Fn(f32) -> f32| {
        let scale = 1.0 / inverse;
        let mut sum = 0.0;
        for i in 0..x.len() {
            let difference = x[i] - scale * code(inverse * x[i]);
            sum += weights[i] * difference * difference;
        }
        sum
    };
    let mut inverse = most as f32 / max;
    let mut best = error(inverse, &|value| f32::from(nearest(value) as u8));
    for step in (-4..=4).filter(|step| *step != 0) {
        let new = (0.1 * step as f32 + most as f32) / max;
        let new_error = error(new, &|value| nearest(value).min(most) as f32);
        if new_error < best {
            (best, inverse) = (new_error, new);
        }
    }
    let (mut lx, mut l2) = (0.0, 0.0);
    let mut codes = Vec::new();
    for i in 0..x.len() {
        let code = nearest(inverse * x[i]).min(most);
        codes.push(code as u8);
        lx += weights[i] * x[i] * code as f32;
        l2 += weights[i] * code as f32 * code as f32;
    }
    for _ in 0..5 {
        for i in 0..x.len() {
            let code = f32::from(codes[i]);
            let other_lx = lx - weights[i] * x[i] * code;
            let other_l2 = l2 - weights[i] * code * code;
            if other_lx > 0.0 && other_l2 > 0.0 {
                let new = nearest(x[i] * other_l2 / other_lx).min(most);
                let new_lx = other_lx + weights[i] * x[i] * new as f32;
                let new_l2 = other_l2 + weights[i] * new as f32 * new as f32;
                let is_better = new_lx * new_lx * l2 > lx * lx * new_l2;
                if new != i32::from(codes[i]) && is_better {
                    (codes[i], lx, l2) = (new as u8, new_lx, new_l2);
                }
            }
        }
    }
    (if l2 > 0.0 { lx / l2 } else { 0.0 }, codes)
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

/// As [`fit_scale`], with codes that are changed one at a time.
fn descend(x: &[f32], half: i32) -> (f32, Vec<u8>) {
    let max = first_largest(x);
    if max.abs() < 1e-15 {
        return (0.0, vec![0; x.len()]);
    }
    let bounded = |value: f32| nearest(value).min(half - 1).max(-half);
    let mut codes: Vec<i32> = x.iter().map(|x| bounded(-half as f32 / max * x)).collect();
    let (mut lx, mut l2) = (0.0, 0.0);
    for i in 0..x.len() {
        let weight = x[i] * x[i];
        lx += weight * x[i] * codes[i] as f32;
        l2 += weight * codes[i] as f32 * codes[i] as f32;
    }
    for _ in 0..5 {
        for i in 0..x.len() {
            let weight = x[i] * x[i];
            let other_lx = lx - weight * x[i] * codes[i] as f32;
            let other_l2 = l2 - weight * codes[i] as f32 * codes[i] as f32;
            if other_lx > 0.0 {
                let new = bounded(x[i] * other_l2 / other_lx);
                let new_lx = other_lx + weight * x[i] * new as f32;
                let new_l2 = other_l2 + weight * new as f32 * new as f32;
                let is_better = new_lx * new_lx * l2 > lx * lx * new_l2;
                if new != codes[i] && new_l2 > 0.0 && is_better {
                    (codes[i], lx, l2) = (new, new_lx, new_l2);
                }
            }
        }
    }
    let scale = if l2 > 0.0 { lx / l2 } else { 0.0 };
    (
        scale,
        codes.iter().map(|code| (code + half) as u8).collect(),
    )
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
