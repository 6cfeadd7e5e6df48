//! Super-blocks of 256 elements, as many at once as there are lanes.

use super::super::pack::{
    pack_pairs_of_bits, pack_scales, pack_scales_and_mins, put_f16, unpack_scales,
    unpack_scales_and_mins,
};
use super::super::search::{Fit, Scaled, Steps, TINY, descend, fit, fit_positive, fit_scale};
use super::super::types::{SUPER_BLOCK, Type};
use super::super::vector::{MAX_LANES, Vector, nearest, transpose};
use super::importance::{Importance, sum_of_squares};

type Values = [f32; SUPER_BLOCK];

/// Encodes a row of super-blocks.
#[inline(always)]
pub(super) fn encode<V: Vector>(
    kind: Type,
    row: &[f32],
    columns: Option<&[f32]>,
    blocks: &mut [u8],
) {
    let groups = row.chunks(V::LANES * SUPER_BLOCK);
    let blocks = blocks.chunks_mut(V::LANES * kind.block_bytes());
    for (group, (values, blocks)) in groups.zip(blocks).enumerate() {
        let start = group * V::LANES * SUPER_BLOCK;
        let columns = columns.map(|columns| &columns[start..][..values.len()]);
        let values = values.as_chunks().0;
        match kind {
            Type::Q2_K => q2_k::<V>(values, columns, blocks.as_chunks_mut().0),
            Type::Q3_K => q3_k::<V>(values, columns, blocks.as_chunks_mut().0),
            Type::Q4_K => q4_k::<V>(values, columns, blocks.as_chunks_mut().0),
            Type::Q5_K => q5_k::<V>(values, columns, blocks.as_chunks_mut().0),
            Type::Q6_K => q6_k::<V>(values, columns, blocks.as_chunks_mut().0),
            _ => unreachable!("not a type of super-blocks"),
        }
    }
}

/// Scale and minimum of sub-blocks of 16 in four bits, codes of two.
#[inline(always)]
fn q2_k<V: Vector>(values: &[Values], columns: Option<&[f32]>, blocks: &mut [[u8; 84]]) {
    const MOST: f32 = 15.0;
    let steps = match columns {
        Some(_) => Steps::weighted(3.0),
        None => Steps {
            most: 3.0,
            first: -0.5,
            step: 0.1,
            last: 15,
            absolute: true,
            bounded: false,
        },
    };
    let fits = fit_group::<V, 16, 16>(values, columns, 1.0, steps, Weigh::Magnitude);
    let levels = Levels::of_group::<V>(&fits, values.len(), MOST, columns.is_some());
    for (((values, block), levels), fits) in values.iter().zip(blocks).zip(&levels).zip(&fits) {
        let mut bytes = [0; 16];
        for (j, byte) in bytes.iter_mut().enumerate() {
            *byte = levels.scales[j] | levels.mins[j] << 4;
        }
        let d = put_f16(block, 80, levels.d);
        let dmin = put_f16(block, 82, levels.dmin);
        let codes = codes_above_min(
            values,
            fits,
            &steps,
            |j| d * f32::from(bytes[j] & 15),
            |j| dmin * f32::from(bytes[j] >> 4),
        );
        block[..16].copy_from_slice(&bytes);
        block[16..80].copy_from_slice(&pack_pairs_of_bits(&codes));
    }
}

/// Scale and minimum of sub-blocks of 32 in six bits, codes of four.
#[inline(always)]
fn q4_k<V: Vector>(values: &[Values], columns: Option<&[f32]>, blocks: &mut [[u8; 144]]) {
    let steps = Steps {
        most: 15.0,
        first: -1.0,
        step: 0.1,
        last: 20,
        absolute: false,
        bounded: false,
    };
    four_or_five_bits::<V, 144>(values, columns, blocks, steps, |codes, block| {
        put_nibbles_of_64(codes, &mut block[16..]);
    });
}

/// As [`q4_k`], with codes of five bits.
#[inline(always)]
fn q5_k<V: Vector>(values: &[Values], columns: Option<&[f32]>, blocks: &mut [[u8; 176]]) {
    let steps = Steps {
        most: 31.0,
        first: -0.5,
        step: 0.1,
        last: 15,
        absolute: false,
        bounded: false,
    };
    four_or_five_bits::<V, 176>(values, columns, blocks, steps, |codes, block| {
        let (fifth, low) = block[16..].split_at_mut(32);
        for (l, byte) in fifth.iter_mut().enumerate() {
            *byte = (0..8).fold(0, |bits, j| bits | codes[32 * j + l] >> 4 << j);
        }
        put_nibbles_of_64(&codes.map(|code| code & 15), low);
    });
}

#[inline(always)]
fn four_or_five_bits<V: Vector, const B: usize>(
    values: &[Values],
    columns: Option<&[f32]>,
    blocks: &mut [[u8; B]],
    steps: Steps,
    put_codes: impl Fn(&[u8; SUPER_BLOCK], &mut [u8; B]),
) {
    const MOST: f32 = 63.0;
    // Levels that have wrapped around are beyond six bits.
    let is_capped = columns.is_none() || steps.most > 15.0;
    let steps = match columns {
        Some(_) => Steps::weighted(steps.most),
        None => steps,
    };
    let fits = fit_group::<V, 32, 8>(values, columns, 2.0, steps, Weigh::RaisedMagnitude);
    let levels = Levels::of_group::<V>(&fits, values.len(), MOST, columns.is_some());
    for (((values, block), levels), fits) in values.iter().zip(blocks).zip(&levels).zip(&fits) {
        let mut levels = *levels;
        if is_capped {
            levels.scales = levels.scales.map(|scale| scale.min(MOST as u8));
            levels.mins = levels.mins.map(|min| min.min(MOST as u8));
        }
        // Larger ones run into each other.
        let bytes = pack_scales_and_mins(&levels.scales, &levels.mins);
        let (scales, mins) = unpack_scales_and_mins(&bytes);
        let d = put_f16(block, 0, levels.d);
        let dmin = put_f16(block, 2, levels.dmin);
        block[4..16].copy_from_slice(&bytes);
        let codes = codes_above_min(
            values,
            fits,
            &steps,
            |j| d * f32::from(scales[j]),
            |j| dmin * f32::from(mins[j]),
        );
        put_codes(&codes, block);
    }
}

/// Scales of sub-blocks of 16 in six bits, codes of three.
#[inline(always)]
fn q3_k<V: Vector>(values: &[Values], columns: Option<&[f32]>, blocks: &mut [[u8; 110]]) {
    let mut found = [[Scaled::default(); 16]; MAX_LANES];
    let mut descended = [[0u8; SUPER_BLOCK]; MAX_LANES];
    let in_lanes = values.as_flattened().chunks(16 * V::LANES);
    let found_flat = found.as_flattened_mut().chunks_mut(V::LANES);
    match columns {
        Some(columns) => {
            let variances = variances(values, 2.0);
            let importance = Importance::<16> {
                columns,
                variances: &variances[..values.len()],
                blocks_each: 16,
            };
            for (chunk, (values, found)) in in_lanes.zip(found_flat).enumerate() {
                let x = transpose::<V, 16>(values);
                let weights = importance.weights(chunk * V::LANES, &x);
                fit_scale(&x, &weights, 4.0).spread(found);
            }
        }
        None => {
            let codes_flat = descended.as_flattened_mut().chunks_mut(16 * V::LANES);
            for ((values, found), flat) in in_lanes.zip(found_flat).zip(codes_flat) {
                let (scale, codes) = descend(&transpose::<V, 16>(values), 4.0);
                let scale = scale.lanes();
                for (found, scale) in found.iter_mut().zip(scale) {
                    found.scale = scale;
                }
                for (i, codes) in codes.iter().enumerate() {
                    let rows = flat.as_chunks_mut::<16>().0.iter_mut();
                    for (row, code) in rows.zip(codes.lanes()) {
                        row[i] = (code + 4.0) as u8;
                    }
                }
            }
        }
    }
    let levels = match columns {
        Some(_) => scale_levels_by_search::<V>(&found),
        None => found.map(|found| scale_levels_by_largest(&found)),
    };
    for (at, (values, block)) in values.iter().zip(blocks).enumerate() {
        let (d, scales) = levels[at];
        let bytes = pack_scales(&scales);
        let scales = unpack_scales(&bytes);
        let d = put_f16(block, 108, d);
        let codes = codes_around_zero(
            values,
            4.0,
            |j| d * (i32::from(scales[j]) - 32) as f32,
            |j, l| match columns {
                Some(_) => found[at][j].code(values[16 * j + l], 4.0),
                None => descended[at][16 * j + l],
            },
        );
        for (l, byte) in block[..32].iter_mut().enumerate() {
            *byte = (0..8).fold(0, |bits, k| bits | codes[32 * k + l] >> 2 << k);
        }
        let low = codes.map(|code| code & 3);
        block[32..96].copy_from_slice(&pack_pairs_of_bits(&low));
        block[96..108].copy_from_slice(&bytes);
    }
}

/// Scales of sub-blocks of 16 in eight bits, codes of six.
#[inline(always)]
fn q6_k<V: Vector>(values: &[Values], columns: Option<&[f32]>, blocks: &mut [[u8; 210]]) {
    let mut found = [[Scaled::default(); 16]; MAX_LANES];
    let in_lanes = values.as_flattened().chunks(16 * V::LANES);
    let found_flat = found.as_flattened_mut().chunks_mut(V::LANES);
    for (chunk, (values, found)) in in_lanes.zip(found_flat).enumerate() {
        let x = transpose::<V, 16>(values);
        let weights = match columns {
            Some(columns) => transpose::<V, 16>(&columns[16 * V::LANES * chunk..]),
            None => Weigh::Square.weights(&x),
        };
        fit_scale(&x, &weights, 32.0).spread(found);
    }
    for ((values, block), found) in values.iter().zip(blocks).zip(&found) {
        let largest = first_largest(found);
        if largest.abs() < TINY {
            block.fill(0);
            continue;
        }
        let inverse = -128.0 / largest;
        let d = put_f16(block, 208, 1.0 / inverse);
        let scales = found.map(|found| nearest(inverse * found.scale).min(127) as i8);
        let codes = codes_around_zero(
            values,
            32.0,
            |j| d * f32::from(scales[j]),
            |j, l| found[j].code(values[16 * j + l], 32.0),
        );
        let (low, high) = block[..192].split_at_mut(128);
        for (codes, low) in codes
            .as_chunks::<128>()
            .0
            .iter()
            .zip(low.as_chunks_mut::<64>().0)
        {
            for (l, byte) in low.iter_mut().enumerate() {
                *byte = codes[l] & 15 | codes[l + 64] << 4;
            }
        }
        high.copy_from_slice(&pack_pairs_of_bits(&codes.map(|code| code >> 4)));
        block[192..208].copy_from_slice(&scales.map(|scale| scale as u8));
    }
}

/// `factor · Σx² / 256` of every super-block.
#[inline(always)]
fn variances(values: &[Values], factor: f32) -> [f32; MAX_LANES] {
    let mut variances = [0.0; MAX_LANES];
    for (variance, values) in variances.iter_mut().zip(values) {
        *variance = factor * sum_of_squares(values) / SUPER_BLOCK as f32;
    }
    variances
}

/// Fits scales and minima of sub-blocks of `N`, `S` in a super-block. Without weights of columns,
/// `weigh` makes those of a sub-block.
#[inline(always)]
fn fit_group<V: Vector, const N: usize, const S: usize>(
    values: &[Values],
    columns: Option<&[f32]>,
    factor: f32,
    steps: Steps,
    weigh: Weigh,
) -> [[Fit<f32>; S]; MAX_LANES] {
    let mut fits = [[Fit::default(); S]; MAX_LANES];
    let variances = variances(values, factor);
    let importance = columns.map(|columns| Importance::<N> {
        columns,
        variances: &variances[..values.len()],
        blocks_each: S,
    });
    let in_lanes = values.as_flattened().chunks(N * V::LANES);
    let fits_flat = fits.as_flattened_mut().chunks_mut(V::LANES);
    for (chunk, (values, fits)) in in_lanes.zip(fits_flat).enumerate() {
        let x = transpose::<V, N>(values);
        let weights = match &importance {
            Some(importance) => importance.weights(chunk * V::LANES, &x),
            None => weigh.weights(&x),
        };
        fit(&x, &weights, steps).spread(fits);
    }
    fits
}

/// Element `j` of every super-block, one in each lane.
#[inline(always)]
fn in_lanes<V: Vector, const S: usize>(values: &[[f32; S]; MAX_LANES]) -> [V; S] {
    transpose::<V, S>(values.as_flattened())
}

/// The weights of values where columns have none.
#[derive(Clone, Copy)]
enum Weigh {
    /// `|x|`.
    Magnitude,
    /// `|x|` and the square root of the mean square.
    RaisedMagnitude,
    /// `x²`.
    Square,
}

impl Weigh {
    #[inline(always)]
    fn weights<V: Vector, const N: usize>(self, x: &[V; N]) -> [V; N] {
        let mut squares = V::splat(0.0);
        for &x in x {
            squares = squares + x * x;
        }
        let root = (squares / V::splat(N as f32)).sqrt();
        let mut weights = *x;
        for weight in &mut weights {
            *weight = match self {
                Weigh::Magnitude => weight.abs(),
                Weigh::RaisedMagnitude => root + weight.abs(),
                Weigh::Square => *weight * *weight,
            };
        }
        weights
    }
}

/// Scales and minima of a super-block as whole numbers, and what they are multiplied by.
#[derive(Clone, Copy)]
struct Levels<const S: usize> {
    d: f32,
    dmin: f32,
    scales: [u8; S],
    mins: [u8; S],
}

impl<const S: usize> Levels<S> {
    /// Those of the first `count` super-blocks.
    #[inline(always)]
    fn of_group<V: Vector>(
        fits: &[[Fit<f32>; S]; MAX_LANES],
        count: usize,
        most: f32,
        by_search: bool,
    ) -> [Levels<S>; MAX_LANES] {
        let mut levels = [Levels {
            d: 0.0,
            dmin: 0.0,
            scales: [0; S],
            mins: [0; S],
        }; MAX_LANES];
        if !by_search {
            for (levels, fits) in levels.iter_mut().zip(fits).take(count) {
                (levels.d, levels.scales) = levels_by_largest(&fits.map(|fit| fit.scale), most);
                (levels.dmin, levels.mins) = levels_by_largest(&fits.map(|fit| fit.min), most);
            }
            return levels;
        }
        let weights = in_lanes::<V, S>(&fits.map(|fits| fits.map(|fit| fit.weight)));
        let scales = in_lanes::<V, S>(&fits.map(|fits| fits.map(|fit| fit.scale)));
        let mins = in_lanes::<V, S>(&fits.map(|fits| fits.map(|fit| fit.min)));
        let (d, scales) = fit_positive(&scales, &weights, most);
        let (dmin, mins) = fit_positive(&mins, &weights, most);
        let (d, dmin) = (d.lanes(), dmin.lanes());
        for (lane, levels) in levels.iter_mut().enumerate().take(count) {
            (levels.d, levels.dmin) = (d[lane], dmin[lane]);
        }
        for j in 0..S {
            let (scales, mins) = (scales[j].lanes(), mins[j].lanes());
            for (lane, levels) in levels.iter_mut().enumerate().take(count) {
                (levels.scales[j], levels.mins[j]) = (scales[lane] as u8, mins[lane] as u8);
            }
        }
        levels
    }
}

/// Numbers as whole ones, of which the largest is `most`, and what they are multiplied by.
#[inline(always)]
fn levels_by_largest<const S: usize>(values: &[f32; S], most: f32) -> (f32, [u8; S]) {
    let largest = values.iter().fold(0.0, |a, b| if *b > a { *b } else { a });
    let inverse = if largest > 0.0 { most / largest } else { 0.0 };
    // Negative ones, which rounding can make, wrap around.
    (largest / most, values.map(|x| nearest(inverse * x) as u8))
}

/// The first scale of the largest magnitude.
#[inline(always)]
fn first_largest(found: &[Scaled<f32>; 16]) -> f32 {
    let scales = found.iter().map(|found| found.scale);
    scales.fold(0.0, |a: f32, b: f32| if b.abs() > a.abs() { b } else { a })
}

/// Scales as whole numbers from −32 to 31, plus 32; zero if all scales are. And what they are
/// multiplied by.
#[inline(always)]
fn scale_levels_by_largest(found: &[Scaled<f32>; 16]) -> (f32, [u8; 16]) {
    let largest = first_largest(found);
    if largest == 0.0 {
        return (0.0, [0; 16]);
    }
    let inverse = -32.0 / largest;
    let level = |scale: f32| (nearest(inverse * scale) as i8).clamp(-32, 31) + 32;
    (1.0 / inverse, found.map(|found| level(found.scale) as u8))
}

/// As [`scale_levels_by_largest`], by a search.
#[inline(always)]
fn scale_levels_by_search<V: Vector>(
    found: &[[Scaled<f32>; 16]; MAX_LANES],
) -> [(f32, [u8; 16]); MAX_LANES] {
    let scales = in_lanes::<V, 16>(&found.map(|found| found.map(|found| found.scale)));
    let weights = in_lanes::<V, 16>(&found.map(|found| found.map(|found| found.weight)));
    let scaled = fit_scale(&scales, &weights, 32.0);
    let mut blocks = [Scaled::default(); MAX_LANES];
    scaled.spread(&mut blocks[..V::LANES]);
    std::array::from_fn(|at| {
        let block = blocks[at];
        (
            block.scale,
            found[at].map(|found| block.code(found.scale, 32.0)),
        )
    })
}

/// The codes of `(x + min) / scale`, with both of each sub-block as they are stored. Where the scale
/// is zero, the codes of the search stay.
#[inline(always)]
fn codes_above_min<const S: usize>(
    values: &Values,
    fits: &[Fit<f32>; S],
    steps: &Steps,
    scale: impl Fn(usize) -> f32,
    min: impl Fn(usize) -> f32,
) -> [u8; SUPER_BLOCK] {
    let mut codes = [0; SUPER_BLOCK];
    let len = SUPER_BLOCK / S;
    let sub_blocks = values.chunks_exact(len).zip(codes.chunks_exact_mut(len));
    for (j, (values, codes)) in sub_blocks.enumerate() {
        let (scale, min) = (scale(j), min(j));
        for (code, x) in codes.iter_mut().zip(values) {
            *code = if scale == 0.0 {
                fits[j].code(*x, steps)
            } else {
                nearest((x + min) / scale).clamp(0, steps.most as i32) as u8
            };
        }
    }
    codes
}

/// The codes of `x / scale` plus `half`, with the scale of each sub-block of 16 as it is stored.
/// Where it is zero, the codes of the search stay.
#[inline(always)]
fn codes_around_zero(
    values: &Values,
    half: f32,
    scale: impl Fn(usize) -> f32,
    searched: impl Fn(usize, usize) -> u8,
) -> [u8; SUPER_BLOCK] {
    let mut codes = [0; SUPER_BLOCK];
    let half = half as i32;
    let sub_blocks = values.as_chunks::<16>().0.iter();
    for (j, (values, codes)) in sub_blocks.zip(codes.as_chunks_mut::<16>().0).enumerate() {
        let scale = scale(j);
        if scale == 0.0 {
            *codes = std::array::from_fn(|l| searched(j, l));
            continue;
        }
        for (code, x) in codes.iter_mut().zip(values) {
            *code = (nearest(x / scale).clamp(-half, half - 1) + half) as u8;
        }
    }
    codes
}

/// Byte `l` of each 32 holds the codes of elements `l` and `l + 32` of 64.
#[inline(always)]
fn put_nibbles_of_64(codes: &[u8; SUPER_BLOCK], bytes: &mut [u8]) {
    let bytes = bytes.as_chunks_mut::<32>().0;
    for (codes, bytes) in codes.as_chunks::<64>().0.iter().zip(bytes) {
        for (l, byte) in bytes.iter_mut().enumerate() {
            *byte = codes[l] | codes[l + 32] << 4;
        }
    }
}
