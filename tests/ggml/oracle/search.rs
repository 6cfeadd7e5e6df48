//! Scales, minima and codes that fit a sub-block best.

/// The first of the largest magnitudes.
pub(super) fn first_largest(values: &[f32]) -> f32 {
    let mut largest = 0.0f32;
    for x in values {
        if x.abs() > largest.abs() {
            largest = *x;
        }
    }
    largest
}

/// Rounds by adding 1.5 · 2²³, whatever becomes of numbers that are too large for it.
pub(super) fn nearest(x: f32) -> i32 {
    ((x + 12_582_912.0).to_bits() & 0x7f_ffff) as i32 - 0x40_0000
}

/// `x ≈ scale · (code − half)`.
pub(super) fn fit_scale(x: &[f32], weights: &[f32], half: i32) -> (f32, Vec<u8>) {
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

pub(super) struct Search {
    pub(super) most: i32,
    pub(super) first: f32,
    pub(super) step: f32,
    pub(super) last: i32,
    pub(super) absolute: bool,
    pub(super) bounded: bool,
}

impl Search {
    pub(super) fn weighted(most: i32) -> Self {
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
pub(super) fn fit_with_min(x: &[f32], weights: &[f32], search: &Search) -> (f32, f32, Vec<u8>) {
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
pub(super) fn fit_positive(x: &[f32], weights: &[f32], most: i32) -> (f32, Vec<u8>) {
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

/// As [`fit_scale`], with codes that are changed one at a time.
pub(super) fn descend(x: &[f32], half: i32) -> (f32, Vec<u8>) {
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
