//! Figures of one block of what was quantized.

use crate::catalog::{AmaxRange, Fidelity};

/// Elements that are added at once; the zeros in the rest of a shorter run change nothing.
pub(super) const RUN: usize = 128;

/// Sums and extreme values of one block. Floating-point ones are kept in lanes: element `i` of a
/// row goes to lane `i % LANES`.
#[derive(Default)]
pub(super) struct BlockFigures {
    pub(super) elements: u64,
    pub(super) saturated: u64,
    pub(super) zero_codes: u64,
    pub(super) flushed: u64,
    signal: [f64; LANES],
    noise: [f64; LANES],
    error: [f64; LANES],
    relative: [f64; LANES],
    amax: [f32; LANES],
}

const LANES: usize = 8;

impl BlockFigures {
    /// Adds a run of `values` and what their codes stand for, without the scale; codes whose numbers are
    /// at least `min_normal` have the precision of their format.
    #[inline]
    pub(super) fn add(
        &mut self,
        values: &[f32; RUN],
        decoded: &[f32; RUN],
        scale: f64,
        min_normal: f32,
    ) {
        let values = values.as_chunks::<LANES>().0;
        let decoded = decoded.as_chunks::<LANES>().0;
        for (values, decoded) in values.iter().zip(decoded) {
            for lane in 0..LANES {
                let value = f64::from(values[lane]);
                let error = (value - f64::from(decoded[lane]) * scale).abs();
                self.signal[lane] += value * value;
                self.noise[lane] += error * error;
                self.error[lane] = larger(self.error[lane], error);
                // Nothing divided by infinity is larger than 0.
                let is_normal = decoded[lane].abs() >= min_normal;
                let divisor = if is_normal {
                    value.abs()
                } else {
                    f64::INFINITY
                };
                self.relative[lane] = larger(self.relative[lane], error / divisor);
                let magnitude = values[lane].abs();
                self.amax[lane] = if magnitude > self.amax[lane] {
                    magnitude
                } else {
                    self.amax[lane]
                };
            }
        }
    }

    /// Adds the block to `fidelity`.
    pub(super) fn finish(&self, fidelity: &mut Fidelity) {
        let amax = self.amax.iter().copied().fold(0.0, f32::max);
        let error = self.error.iter().copied().fold(0.0, f64::max);
        let is_zero = amax == 0.0;
        fidelity.join(&Fidelity {
            elements: self.elements,
            bytes: 0,
            blocks: 1,
            zero_blocks: u64::from(is_zero),
            signal: self.signal.iter().sum(),
            noise: self.noise.iter().sum(),
            largest_relative_error: self.relative.iter().copied().fold(0.0, f64::max),
            largest_block_error: if is_zero {
                0.0
            } else {
                error / f64::from(amax)
            },
            saturated: self.saturated,
            zero_codes: self.zero_codes,
            flushed: self.flushed,
            amax: (!is_zero).then_some(AmaxRange {
                smallest: amax,
                largest: amax,
            }),
        });
    }
}

/// The larger of two numbers, neither of them NaN: unlike `f64::max`, one instruction.
#[inline(always)]
fn larger(a: f64, b: f64) -> f64 {
    if b > a { b } else { a }
}
