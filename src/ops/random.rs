//! Random numbers that are a pure function of a key and a position: the same for any range, any number of
//! threads, on any machine.
//!
//! They are SplitMix64 (Steele, Lea, Flood 2014, <https://doi.org/10.1145/2660193.2660195>) as a
//! counter-based generator: its output function on `key + position · γ`.

/// A row of numbers without end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct RandomNumbers {
    key: u64,
}

impl RandomNumbers {
    /// Those of `tensor` of model number `model`.
    pub(super) fn new(seed: u64, model: u64, tensor: &str) -> Self {
        let mut key = mix(mix(seed).wrapping_add(model));
        for bytes in tensor.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            key = mix(key ^ u64::from_le_bytes(word));
        }
        RandomNumbers {
            key: mix(key ^ tensor.len() as u64),
        }
    }

    /// The number at `position`.
    #[inline(always)]
    pub(super) fn at(self, position: u64) -> u64 {
        const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
        mix(self.key.wrapping_add(position.wrapping_mul(GAMMA)))
    }

    /// The number at `position` as one from 0 to 1, without 1.
    pub(super) fn share(self, position: u64) -> f64 {
        (self.at(position) >> 11) as f64 / 2f64.powi(53)
    }

    /// A number of the standard normal distribution, from the numbers at `2 · position` and the next, by Box
    /// and Muller's transform.
    pub(super) fn normal(self, position: u64) -> f64 {
        let first = 1.0 - self.share(2 * position);
        let turn = self.share(2 * position + 1);
        (-2.0 * first.ln()).sqrt() * (std::f64::consts::TAU * turn).cos()
    }
}

#[inline(always)]
fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
