//! `x ≈ scale · q + min` (`make_qkx2_quants`, `make_qkx3_quants`).

use super::super::vector::Vector;

/// Which candidates are tried, and how they are judged.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Steps {
    /// Codes are 0 to this.
    pub(in super::super) most: f32,
    /// Candidate `s` spreads values over `most + first + s · step` codes.
    pub(in super::super) first: f32,
    pub(in super::super) step: f32,
    /// The last `s`.
    pub(in super::super) last: u32,
    /// The error is the weighted sum of magnitudes of differences, not of their squares.
    pub(in super::super) absolute: bool,
    /// Values are kept within the codes before they are rounded, not after. This makes a difference
    /// only for numbers that `nearest_int` cannot round.
    pub(in super::super) bounded: bool,
}

impl Steps {
    /// Those for weights of columns.
    pub(in super::super) const fn weighted(most: f32) -> Steps {
        Steps {
            most,
            first: -0.9,
            step: 0.05,
            last: 36,
            absolute: false,
            bounded: true,
        }
    }

    #[inline(always)]
    fn error<V: Vector>(&self, difference: V) -> V {
        if self.absolute {
            difference.abs()
        } else {
            difference * difference
        }
    }

    /// The code of a candidate: `value` rounded, within the codes.
    #[inline(always)]
    fn code<V: Vector>(&self, value: V) -> V {
        let most = V::splat(self.most);
        if self.bounded {
            value.greater(V::splat(0.0)).lesser(most).round()
        } else {
            rounded_within(value, most)
        }
    }
}

#[inline(always)]
fn rounded_within<V: Vector>(value: V, most: V) -> V {
    value.round().greater(V::splat(0.0)).lesser(most)
}

/// What was found for a sub-block.
#[derive(Debug, Clone, Copy, Default)]
pub(in super::super) struct Fit<V> {
    pub(in super::super) scale: V,
    /// What is subtracted: the minimum with its sign changed, not negative.
    pub(in super::super) min: V,
    /// The code of `x` is `inverse · (x − base)`, rounded.
    pub(in super::super) inverse: V,
    pub(in super::super) base: V,
    /// The sum of the weights.
    pub(in super::super) weight: V,
}

impl Fit<f32> {
    /// The code of `x`.
    #[inline(always)]
    pub(in super::super) fn code(&self, x: f32, steps: &Steps) -> u8 {
        steps.code(self.inverse * (x - self.base)) as u8
    }
}

impl<V: Vector> Fit<V> {
    /// Those of the first lanes, one for each of `fits`.
    #[inline(always)]
    pub(in super::super) fn spread(&self, fits: &mut [Fit<f32>]) {
        let (scale, min) = (self.scale.lanes(), self.min.lanes());
        let (inverse, base) = (self.inverse.lanes(), self.base.lanes());
        let weight = self.weight.lanes();
        for (lane, fit) in fits.iter_mut().enumerate() {
            *fit = Fit {
                scale: scale[lane],
                min: min[lane],
                inverse: inverse[lane],
                base: base[lane],
                weight: weight[lane],
            };
        }
    }
}

/// Fits scale and minimum to `x`, weighted by `weights`.
///
/// The minimum is never above zero. The first candidate takes the span of the values; each of the
/// others gives codes, for which scale and minimum follow by least squares. The best so far counts,
/// and its minimum is where the codes of the next one begin.
#[inline(always)]
pub(in super::super) fn fit<V: Vector, const N: usize>(
    x: &[V; N],
    weights: &[V; N],
    steps: Steps,
) -> Fit<V> {
    let zero = V::splat(0.0);
    let one = V::splat(1.0);
    let most = V::splat(steps.most);

    let (mut lowest, mut max) = (x[0], x[0]);
    let mut sum_w = weights[0];
    let mut sum_x = sum_w * x[0];
    for i in 1..N {
        lowest = x[i].lesser(lowest);
        max = x[i].greater(max);
        sum_w = sum_w + weights[i];
        sum_x = sum_x + weights[i] * x[i];
    }
    let lowest = V::select(zero.less(lowest), zero, lowest);
    let is_spread = lowest.differs(max);

    let mut min = lowest;
    let inverse = most / (max - min);
    let mut scale = one / inverse;
    let mut error = zero;
    for i in 0..N {
        let code = rounded_within(inverse * (x[i] - min), most);
        error = error + weights[i] * steps.error(scale * code + min - x[i]);
    }

    // All codes of an infinite one are zero, as those that `nearest_int` cannot round.
    let mut inverse = V::select(inverse.less(V::splat(f32::INFINITY)), inverse, zero);
    let mut base = min;
    let mut codes = [zero; N];
    for step in 0..=steps.last {
        let codes_spanned = steps.first + steps.step * step as f32 + steps.most;
        let this_inverse = V::splat(codes_spanned) / (max - min);
        let (mut sum_l, mut sum_l2, mut sum_xl) = (zero, zero, zero);
        for i in 0..N {
            let code = steps.code(this_inverse * (x[i] - min));
            codes[i] = code;
            let weighted = weights[i] * code;
            sum_l = sum_l + weighted;
            sum_l2 = sum_l2 + weighted * code;
            sum_xl = sum_xl + weighted * x[i];
        }
        let determinant = sum_w * sum_l2 - sum_l * sum_l;
        let free_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
        let free_min = (sum_l2 * sum_x - sum_l * sum_xl) / determinant;
        let is_positive = zero.less(free_min);
        let this_min = V::select(is_positive, zero, free_min);
        let this_scale = V::select(is_positive, sum_xl / sum_l2, free_scale);
        let mut this_error = zero;
        for i in 0..N {
            let difference = this_scale * codes[i] + this_min - x[i];
            this_error = this_error + weights[i] * steps.error(difference);
        }
        let is_better = V::both(zero.less(determinant), this_error.less(error));
        inverse = V::select(is_better, this_inverse, inverse);
        base = V::select(is_better, min, base);
        error = V::select(is_better, this_error, error);
        scale = V::select(is_better, this_scale, scale);
        min = V::select(is_better, this_min, min);
    }

    Fit {
        scale: V::select(is_spread, scale, zero),
        min: V::splat(-0.0) - V::select(is_spread, min, lowest),
        inverse: V::select(is_spread, inverse, zero),
        base: V::select(is_spread, base, zero),
        weight: sum_w,
    }
}
