//! How far the numbers of two tensors are from each other.

use serde::Serialize;

use crate::catalog::Tensor;
use crate::error::Result;
use crate::jobs::{Progress, check_going_on};
use crate::kernels::numbers::decode;
use crate::read::Reader;

/// Figures of the difference `b - a` of two tensors of the same shape, in f64.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Values {
    pub elements: u64,
    /// Elements that are not the same number (-0 is 0, and every NaN is the same).
    pub differing: u64,
    /// Pairs that are not the same, one of which is NaN or infinity; they are in no figure below.
    pub not_finite: u64,
    /// NaN in these pairs, in the first tensor and in the second.
    pub nan: [u64; 2],
    /// Infinities in these pairs, likewise.
    pub infinite: [u64; 2],
    /// The largest magnitude of a difference.
    pub max_abs: f64,
    /// The square root of the sum of the squared differences.
    pub l2: f64,
    /// The same of the first tensor's numbers.
    pub norm_a: f64,
}

impl Values {
    /// [`Values::l2`] relative to [`Values::norm_a`]; `None` if that is 0.
    pub fn relative(&self) -> Option<f64> {
        (self.norm_a > 0.0).then(|| self.l2 / self.norm_a)
    }

    /// Makes it the figures of these tensors and `other` ones together.
    pub fn join(&mut self, other: &Values) {
        self.elements += other.elements;
        self.differing += other.differing;
        self.not_finite += other.not_finite;
        for i in 0..2 {
            self.nan[i] += other.nan[i];
            self.infinite[i] += other.infinite[i];
        }
        self.max_abs = self.max_abs.max(other.max_abs);
        self.l2 = self.l2.hypot(other.l2);
        self.norm_a = self.norm_a.hypot(other.norm_a);
    }
}

/// Elements that are compared at once.
const CHUNK: u64 = 1 << 18;

/// Streams two tensors of the same shape, of dtypes that are known; reports `bytes_to_report`
/// spread over all of them.
pub(super) fn compare(
    sides: [(&Tensor, &Reader); 2],
    bytes_to_report: u64,
    progress: &dyn Progress,
) -> Result<Values> {
    let size = |tensor: &Tensor| tensor.dtype.bitsize() as u64 / 8;
    let elements = sides[0].0.len() / size(sides[0].0);
    let mut values = Values {
        elements,
        ..Values::default()
    };
    let (mut squares, mut squares_a) = (0.0, 0.0);
    let mut bytes = [Vec::new(), Vec::new()];
    let mut numbers = [Vec::new(), Vec::new()];
    let reported = |at: u64| {
        let share = u128::from(bytes_to_report) * u128::from(at) / u128::from(elements);
        share as u64
    };
    let mut at = 0;
    while at < elements {
        check_going_on(progress)?;
        let count = CHUNK.min(elements - at);
        for (i, (tensor, reader)) in sides.into_iter().enumerate() {
            let size = size(tensor);
            bytes[i].resize((count * size) as usize, 0);
            reader.read_tensor(tensor, at * size, &mut bytes[i])?;
            decode(tensor.dtype, &bytes[i], &mut numbers[i]);
        }
        progress.advance(reported(at + count) - reported(at));
        for (&a, &b) in numbers[0].iter().zip(&numbers[1]) {
            if a == b || a.is_nan() && b.is_nan() {
                if a.is_finite() {
                    squares_a += a * a;
                }
                continue;
            }
            values.differing += 1;
            if a.is_finite() && b.is_finite() {
                let difference: f64 = b - a;
                values.max_abs = values.max_abs.max(difference.abs());
                squares += difference * difference;
                squares_a += a * a;
            } else {
                values.not_finite += 1;
                for (i, number) in [a, b].into_iter().enumerate() {
                    values.nan[i] += u64::from(number.is_nan());
                    values.infinite[i] += u64::from(number.is_infinite());
                }
            }
        }
        at += count;
    }
    values.l2 = squares.sqrt();
    values.norm_a = squares_a.sqrt();
    Ok(values)
}
