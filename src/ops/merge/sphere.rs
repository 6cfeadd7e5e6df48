//! Means on a sphere, of any number of tensors, each seen as one long vector: the Karcher mean, and
//! interpolation in the space tangent to the sphere at the weighted mean.
//!
//! Both means are sums `Σ cᵢ·vᵢ` of the vectors, and the coefficients follow from their products with each
//! other alone, which one pass finds in f64. So the result is rounded to the working format once, and not after
//! each of the steps that the formulas have.

use serde_json::Value;

use crate::catalog::{Step, as_written};
use crate::kernels::lanes::{Precision, Round, dot};
use crate::ops::merge::formula::{At, Formula, Lanes, Size};

/// The mean of all inputs, or of their differences from the first of them, which is then the base.
#[derive(Debug, Clone, PartialEq)]
pub struct OnSphere {
    pub vectors: usize,
    pub from_base: bool,
    pub mean: SphericalMean,
}

/// Which mean it is.
#[derive(Debug, Clone, PartialEq)]
pub enum SphericalMean {
    /// The point whose squared angles to all vectors have the smallest sum, found in at most `max_iter`
    /// steps, the last of which is shorter than `tol`; as long as the vectors are on average.
    /// Vectors not longer than `tol` have no direction. <https://arxiv.org/abs/2603.04972>
    Karcher { max_iter: u64, tol: f64 },
    /// The weighted mean of the directions, moved along the weighted mean of the tangents that lead from it to each of
    /// them. <https://goddard.blog/posts/multislerp-wow-what-a-cool-idea>
    Tangent { weights: Vec<f64>, eps: f64 },
}

impl OnSphere {
    /// The vectors of a run, one after the other.
    #[inline(always)]
    fn vectors<R: Round>(&self, inputs: Lanes<'_>) -> Vec<f32> {
        let mut vectors = Vec::with_capacity(self.vectors * inputs.len());
        for input in inputs.iter().skip(usize::from(self.from_base)) {
            if self.from_base {
                let pairs = input.iter().zip(inputs.input(0));
                vectors.extend(pairs.map(|(x, base)| R::round(x - base)));
            } else {
                vectors.extend_from_slice(input);
            }
        }
        vectors
    }
}

impl Formula for OnSphere {
    fn step(&self) -> Step {
        let step = match &self.mean {
            SphericalMean::Karcher { max_iter, tol } => Step::merge("karcher mean")
                .with("max_iter", *max_iter)
                .with("tol", *tol),
            SphericalMean::Tangent { weights, eps } => {
                let weights = weights.iter().map(|weight| as_written(*weight as f32));
                Step::merge("multislerp")
                    .with("weights", weights.collect::<Vec<Value>>())
                    .with("eps", *eps)
            }
        };
        step.with("differences_from_base", self.from_base)
    }

    #[inline(always)]
    fn merge<R: Round>(&self, facts: &[f64], _at: At, inputs: Lanes<'_>, output: &mut [f32]) {
        let vectors = self.vectors::<R>(inputs);
        output.fill(0.0);
        for (vector, coefficient) in vectors.chunks_exact(inputs.len()).zip(facts) {
            let coefficient = *coefficient as f32;
            for (sum, x) in output.iter_mut().zip(vector) {
                *sum = coefficient.mul_add(*x, *sum);
            }
        }
        if self.from_base {
            for (merged, base) in output.iter_mut().zip(inputs.input(0)) {
                *merged = R::round(*merged) + base;
            }
        }
    }

    fn passes(&self, _working: Precision) -> usize {
        1
    }

    /// The products of each vector with itself and those after it.
    fn tally_len(&self, _working: Precision, _pass: usize, _extent: Size) -> usize {
        self.vectors * (self.vectors + 1) / 2
    }

    #[inline(always)]
    fn tally<R: Round>(
        &self,
        _pass: usize,
        _facts: &[f64],
        _at: At,
        inputs: Lanes<'_>,
        tally: &mut [f64],
    ) {
        let vectors = self.vectors::<R>(inputs);
        let vector = |i: usize| &vectors[i * inputs.len()..][..inputs.len()];
        let mut sums = tally.iter_mut();
        for i in 0..self.vectors {
            for j in i..self.vectors {
                *sums.next().expect("a sum for each pair") += dot(vector(i), vector(j));
            }
        }
    }

    /// The facts are the coefficients; NaN if the mean is not defined.
    fn conclude(
        &self,
        _working: Precision,
        _pass: usize,
        _extent: Size,
        tally: &[f64],
        facts: &mut Vec<f64>,
    ) {
        let products = Products {
            count: self.vectors,
            of_pairs: tally,
        };
        facts.extend(match &self.mean {
            SphericalMean::Karcher { max_iter, tol } => products.karcher(*max_iter, *tol),
            SphericalMean::Tangent { weights, eps } => products.tangent(weights, *eps),
        });
    }

    fn check(&self, facts: &[f64]) -> Result<(), String> {
        match facts.iter().any(|coefficient| coefficient.is_nan()) {
            false => Ok(()),
            true => Err("the directions of its models cancel each other out, or a value is not finite; other weights give a mean".to_owned()),
        }
    }
}

/// The products of some vectors with each other. Sums of them are lists of coefficients.
struct Products<'a> {
    count: usize,
    of_pairs: &'a [f64],
}

impl Products<'_> {
    fn of(&self, i: usize, j: usize) -> f64 {
        let (low, high) = (i.min(j), i.max(j));
        let before = low * self.count - low * low.saturating_sub(1) / 2;
        self.of_pairs[before + high - low]
    }

    fn length_of(&self, i: usize) -> f64 {
        self.of(i, i).sqrt()
    }

    /// The product of a sum with vector `i`.
    fn with(&self, sum: &[f64], i: usize) -> f64 {
        let terms = sum.iter().enumerate();
        terms.map(|(j, share)| share * self.of(i, j)).sum()
    }

    /// The length of a sum; 0 if that is what rounding leaves of vectors that cancel each other out.
    fn length(&self, sum: &[f64]) -> f64 {
        let terms = sum.iter().enumerate();
        let square: f64 = terms.map(|(i, share)| share * self.with(sum, i)).sum();
        let terms = sum.iter().enumerate();
        let most: f64 = terms
            .map(|(i, share)| share.abs() * self.length_of(i))
            .sum();
        let rounding = 4.0 * self.count as f64 * f64::EPSILON * most * most;
        if square <= rounding {
            0.0
        } else {
            square.sqrt()
        }
    }

    fn karcher(&self, max_iter: u64, tol: f64) -> Vec<f64> {
        let all = self.count as f64;
        let valid: Vec<usize> = (0..self.count)
            .filter(|i| self.length_of(*i) > tol || self.length_of(*i).is_nan())
            .collect();
        let mut mean = vec![0.0; self.count];
        let Some(first) = valid.first() else {
            return mean;
        };
        let share = 1.0 / valid.len() as f64;
        for i in &valid {
            mean[*i] = share / self.length_of(*i);
        }
        let length = self.length(&mean);
        if length < tol {
            mean.fill(0.0);
            mean[*first] = 1.0 / self.length_of(*first);
        } else {
            scale(&mut mean, 1.0 / length);
        }
        for _ in 0..max_iter {
            let mut tangent = vec![0.0; self.count];
            for i in &valid {
                let cosine = (self.with(&mean, *i) / self.length_of(*i)).clamp(-1.0, 1.0);
                let angle = cosine.acos();
                if angle < tol {
                    continue;
                }
                let factor = share * angle / angle.sin();
                for (tangent, mean) in tangent.iter_mut().zip(&mean) {
                    *tangent -= factor * cosine * mean;
                }
                tangent[*i] += factor / self.length_of(*i);
            }
            let length = self.length(&tangent);
            if length < tol {
                break;
            }
            for (mean, tangent) in mean.iter_mut().zip(&tangent) {
                *mean = length.cos() * *mean + length.sin() / length * tangent;
            }
            let length = self.length(&mean);
            if length > tol {
                scale(&mut mean, 1.0 / length);
            }
        }
        let lengths: f64 = (0..self.count).map(|i| self.length_of(i)).sum();
        scale(&mut mean, lengths / all);
        mean
    }

    fn tangent(&self, weights: &[f64], eps: f64) -> Vec<f64> {
        let units: Vec<f64> = (0..self.count)
            .map(|i| 1.0 / (self.length_of(i) + eps))
            .collect();
        let mut mean: Vec<f64> = weights.iter().zip(&units).map(|(w, u)| w * u).collect();
        let length = self.length(&mean);
        if length < eps {
            let is_nothing = (0..self.count).all(|i| self.of(i, i) == 0.0);
            return match self.count == 2 || is_nothing {
                // On the straight line.
                true => weights.to_vec(),
                false => vec![f64::NAN; self.count],
            };
        }
        scale(&mut mean, 1.0 / length);
        let mut tangent = vec![0.0; self.count];
        for (i, (weight, unit)) in weights.iter().zip(&units).enumerate() {
            let cosine = unit * self.with(&mean, i);
            for (tangent, mean) in tangent.iter_mut().zip(&mean) {
                *tangent -= weight * cosine * mean;
            }
            tangent[i] += weight * unit;
        }
        let way = self.length(&tangent) + eps;
        let lengths = weights.iter().enumerate();
        let length: f64 = lengths.map(|(i, weight)| weight * self.length_of(i)).sum();
        let moved = mean.iter().zip(&tangent);
        moved
            .map(|(mean, tangent)| length * (mean * way.cos() + tangent * way.sin() / way))
            .collect()
    }
}

fn scale(sum: &mut [f64], factor: f64) {
    sum.iter_mut().for_each(|share| *share *= factor);
}
