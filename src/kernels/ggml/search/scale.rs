//! `x ≈ scale · q`, with codes of both signs (`make_qx_quants`, `make_q3_quants`).

use super::super::vector::Vector;
use super::TINY;

/// What was found for a sub-block.
#[derive(Debug, Clone, Copy, Default)]
pub(in super::super) struct Scaled<V> {
    pub(in super::super) scale: V,
    /// The code of `x` is `inverse · x`, rounded; zero if all values are next to nothing.
    pub(in super::super) inverse: V,
    /// The sum of the weights.
    pub(in super::super) weight: V,
}

impl Scaled<f32> {
    /// The code of `x`, plus `half`.
    #[inline(always)]
    pub(in super::super) fn code(&self, x: f32, half: f32) -> u8 {
        if self.inverse == 0.0 {
            return 0;
        }
        (code(self.inverse * x, half) + half) as u8
    }
}

impl<V: Vector> Scaled<V> {
    /// Those of the first lanes, one for each of `found`.
    #[inline(always)]
    pub(in super::super) fn spread(&self, found: &mut [Scaled<f32>]) {
        let (scale, inverse) = (self.scale.lanes(), self.inverse.lanes());
        let weight = self.weight.lanes();
        for (lane, found) in found.iter_mut().enumerate() {
            *found = Scaled {
                scale: scale[lane],
                inverse: inverse[lane],
                weight: weight[lane],
            };
        }
    }
}

/// The first value of the largest magnitude of each lane, and whether that is not [`TINY`].
#[inline(always)]
fn first_largest<V: Vector, const N: usize>(x: &[V; N]) -> (V, V::Mask) {
    let (mut max, mut amax) = (V::splat(0.0), V::splat(0.0));
    for &x in x {
        let is_larger = amax.less(x.abs());
        max = V::select(is_larger, x, max);
        amax = V::select(is_larger, x.abs(), amax);
    }
    // A float is not below another exactly if the float below that one is less.
    let below = f32::from_bits(TINY.to_bits() - 1);
    (max, V::splat(below).less(amax))
}

/// Fits a scale to `x`, weighted by `weights`. Codes are `−half` to `half − 1`.
///
/// Each candidate maps the largest magnitude near the code `−half`; the scale follows by least
/// squares. The first one that fits best counts.
#[inline(always)]
pub(in super::super) fn fit_scale<V: Vector, const N: usize>(
    x: &[V; N],
    weights: &[V; N],
    half: f32,
) -> Scaled<V> {
    let zero = V::splat(0.0);
    let (max, is_large) = first_largest(x);
    let mut products = *weights;
    let mut weight = zero;
    for i in 0..N {
        products[i] = weights[i] * x[i];
        weight = weight + weights[i];
    }
    let mut inverse = V::splat(-half) / max;
    let (sum_lx, sum_l2) = sums(x, weights, &products, inverse, half);
    let mut scale = V::select(sum_l2.differs(zero), sum_lx / sum_l2, zero);
    let mut best = scale * sum_lx;
    for step in -9..=9 {
        if step == 0 {
            continue;
        }
        let this_inverse = V::splat(-(half + 0.1 * step as f32)) / max;
        let (sum_lx, sum_l2) = sums(x, weights, &products, this_inverse, half);
        let is_better = V::both(zero.less(sum_l2), (best * sum_l2).less(sum_lx * sum_lx));
        scale = V::select(is_better, sum_lx / sum_l2, scale);
        best = V::select(is_better, scale * sum_lx, best);
        inverse = V::select(is_better, this_inverse, inverse);
    }
    Scaled {
        scale: V::select(is_large, scale, zero),
        inverse: V::select(is_large, inverse, zero),
        weight,
    }
}

/// `Σ w·x·q` and `Σ w·q²`, with `w·x` in `products`.
#[inline(always)]
fn sums<V: Vector, const N: usize>(
    x: &[V; N],
    weights: &[V; N],
    products: &[V; N],
    inverse: V,
    half: f32,
) -> (V, V) {
    let (mut sum_lx, mut sum_l2) = (V::splat(0.0), V::splat(0.0));
    for i in 0..N {
        let code = code(inverse * x[i], half);
        sum_lx = sum_lx + products[i] * code;
        sum_l2 = sum_l2 + weights[i] * code * code;
    }
    (sum_lx, sum_l2)
}

/// Fits a scale to `x`, weighted by squares, with codes of `−half` to `half − 1`: from the codes that
/// the largest magnitude gives, each is changed in turn to what fits best with the others. Returns
/// the scale and the codes.
#[inline(always)]
pub(in super::super) fn descend<V: Vector, const N: usize>(x: &[V; N], half: f32) -> (V, [V; N]) {
    /// How often all codes are gone through.
    const PASSES: usize = 5;
    let zero = V::splat(0.0);
    let (max, is_large) = first_largest(x);
    let inverse = V::splat(-half) / max;
    let mut codes = [zero; N];
    let (mut sum_lx, mut sum_l2) = (zero, zero);
    for i in 0..N {
        let weight = x[i] * x[i];
        codes[i] = code(inverse * x[i], half);
        sum_lx = sum_lx + weight * x[i] * codes[i];
        sum_l2 = sum_l2 + weight * codes[i] * codes[i];
    }
    for _ in 0..PASSES {
        let mut has_changed = false;
        for i in 0..N {
            let weight = x[i] * x[i];
            let other_lx = sum_lx - weight * x[i] * codes[i];
            let other_l2 = sum_l2 - weight * codes[i] * codes[i];
            let new = code(x[i] * other_l2 / other_lx, half);
            let is_new = V::both(zero.less(other_lx), new.differs(codes[i]));
            // Most codes stay, and then the next need not wait for this one's sums.
            if !V::any(is_new) {
                continue;
            }
            let new_lx = other_lx + weight * x[i] * new;
            let new_l2 = other_l2 + weight * new * new;
            let fits_better = (sum_lx * sum_lx * new_l2).less(new_lx * new_lx * sum_l2);
            let changes = V::both(is_new, V::both(zero.less(new_l2), fits_better));
            has_changed |= V::any(changes);
            codes[i] = V::select(changes, new, codes[i]);
            sum_lx = V::select(changes, new_lx, sum_lx);
            sum_l2 = V::select(changes, new_l2, sum_l2);
        }
        if !has_changed {
            break;
        }
    }
    let scale = V::select(zero.less(sum_l2), sum_lx / sum_l2, zero);
    // The code of values that are next to nothing is the lowest one.
    for code in &mut codes {
        *code = V::select(is_large, *code, V::splat(-half));
    }
    (V::select(is_large, scale, zero), codes)
}

#[inline(always)]
fn code<V: Vector>(value: V, half: f32) -> V {
    let code = value.round();
    code.lesser(V::splat(half - 1.0)).greater(V::splat(-half))
}
