//! A random choice of elements that is a pure function of a key and the element's position.

use crate::ops::random::RandomNumbers;

/// Chooses each element with the same probability, independently.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RandomMask {
    numbers: RandomNumbers,
    /// An element is chosen if the upper 32 bits of its number are below this.
    bound: u64,
}

impl RandomMask {
    /// Chooses elements of `tensor` of model number `model` with probability `density`, to a 2³²nd.
    pub fn new(seed: u64, model: u64, tensor: &str, density: f64) -> Self {
        RandomMask {
            numbers: RandomNumbers::new(seed, model, tensor),
            bound: (density.clamp(0.0, 1.0) * 2f64.powi(32)).round() as u64,
        }
    }

    /// The probability with which it chooses an element.
    pub fn density(&self) -> f64 {
        self.bound as f64 / 2f64.powi(32)
    }

    /// Whether the element at `position` is chosen.
    #[inline(always)]
    pub fn contains(&self, position: u64) -> bool {
        self.numbers.at(position) >> 32 < self.bound
    }

    /// Whether the element at `position` is chosen if it has a probability of its own, to a 2³²nd.
    #[inline(always)]
    pub fn contains_with(&self, position: u64, probability: f32) -> bool {
        let bound = (f64::from(probability) * 2f64.powi(32)).round();
        ((self.numbers.at(position) >> 32) as f64) < bound
    }
}
