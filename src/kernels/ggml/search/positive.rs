//! `x ≈ scale · q`, for scales and minima of sub-blocks, which are not negative (`make_qp_quants`).

use super::super::vector::Vector;
use super::TINY;

/// Fits a scale to `x`, weighted by `weights`, with codes from 0 to `most`. Returns the scale and the
/// codes.
///
/// The best of several candidates by the squared error gives codes, each of which is then changed in
/// turn to what fits best with the others. Codes are bytes: those of negative values, which rounding
/// can make, wrap around.
#[inline(always)]
pub(in super::super) fn fit_positive<V: Vector, const N: usize>(
    x: &[V; N],
    weights: &[V; N],
    most: f32,
) -> (V, [V; N]) {
    /// How often all codes are gone through.
    const PASSES: usize = 5;
    let zero = V::splat(0.0);
    let one = V::splat(1.0);
    let highest = V::splat(most);
    let mut max = zero;
    for &x in x {
        max = max.greater(x);
    }
    let is_tiny = max.less(V::splat(TINY));

    let mut inverse = highest / max;
    let mut error = zero;
    for i in 0..N {
        let code = (inverse * x[i]).round().to_byte();
        error = error + squared_error(x[i], weights[i], one / inverse, code);
    }
    for step in -4..=4 {
        if step == 0 {
            continue;
        }
        let this_inverse = V::splat(0.1 * step as f32 + most) / max;
        let mut this_error = zero;
        for i in 0..N {
            let code = highest.lesser((this_inverse * x[i]).round());
            this_error = this_error + squared_error(x[i], weights[i], one / this_inverse, code);
        }
        let is_better = this_error.less(error);
        error = V::select(is_better, this_error, error);
        inverse = V::select(is_better, this_inverse, inverse);
    }

    let mut codes = [zero; N];
    let (mut sum_lx, mut sum_l2) = (zero, zero);
    for i in 0..N {
        let code = highest.lesser((inverse * x[i]).round());
        codes[i] = code.to_byte();
        sum_lx = sum_lx + weights[i] * x[i] * code;
        sum_l2 = sum_l2 + weights[i] * code * code;
    }
    for _ in 0..PASSES {
        let mut has_changed = false;
        for i in 0..N {
            let weight = weights[i];
            let other_lx = sum_lx - weight * x[i] * codes[i];
            let other_l2 = sum_l2 - weight * codes[i] * codes[i];
            let new = highest.lesser((x[i] * other_l2 / other_lx).round());
            let new_lx = other_lx + weight * x[i] * new;
            let new_l2 = other_l2 + weight * new * new;
            let is_possible = V::both(zero.less(other_lx), zero.less(other_l2));
            let fits_better = (sum_lx * sum_lx * new_l2).less(new_lx * new_lx * sum_l2);
            let changes = V::both(is_possible, V::both(new.differs(codes[i]), fits_better));
            has_changed |= V::any(changes);
            codes[i] = V::select(changes, new.to_byte(), codes[i]);
            sum_lx = V::select(changes, new_lx, sum_lx);
            sum_l2 = V::select(changes, new_l2, sum_l2);
        }
        if !has_changed {
            break;
        }
    }
    let scale = V::select(zero.less(sum_l2), sum_lx / sum_l2, zero);
    for code in &mut codes {
        *code = V::select(is_tiny, zero, *code);
    }
    (V::select(is_tiny, zero, scale), codes)
}

#[inline(always)]
fn squared_error<V: Vector>(x: V, weight: V, scale: V, code: V) -> V {
    let difference = x - scale * code;
    weight * difference * difference
}
