//! The weights of values, from those of their columns.

use super::super::vector::{MAX_LANES, Vector, transpose};

/// `w · √(σ² + x²)`, with `w` of the column and `σ²` of the surroundings.
pub(super) struct Importance<'a, const N: usize> {
    pub(super) columns: &'a [f32],
    pub(super) variances: &'a [f32],
    /// Sub-blocks of one variance.
    pub(super) blocks_each: usize,
}

impl<const N: usize> Importance<'_, N> {
    /// Those of `x`, sub-blocks of which `first` is in the first lane.
    #[inline(always)]
    pub(super) fn weights<V: Vector>(&self, first: usize, x: &[V; N]) -> [V; N] {
        let mut weights = transpose::<V, N>(&self.columns[first * N..]);
        let mut variances = [0.0; MAX_LANES];
        for (lane, variance) in variances.iter_mut().enumerate() {
            let at = (first + lane) / self.blocks_each;
            *variance = self.variances[at.min(self.variances.len() - 1)];
        }
        let variance = V::load(&variances);
        for (weight, x) in weights.iter_mut().zip(x) {
            *weight = *weight * (variance + *x * *x).sqrt();
        }
        weights
    }
}

/// The sum of squares in order, over their number.
#[inline(always)]
pub(super) fn mean_square(values: &[f32]) -> f32 {
    sum_of_squares(values) / values.len() as f32
}

#[inline(always)]
pub(super) fn sum_of_squares(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |sum, x| sum + x * x)
}
