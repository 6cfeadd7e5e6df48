//! A random choice of elements that is a pure function of a key and the element's position: the
//! same for any range, any number of threads, on any machine.
//!
//! The choice is SplitMix64 (Steele, Lea, Flood 2014, <https://doi.org/10.1145/2660193.2660195>) as
//! a counter-based generator: its output function on `key + position · γ`.

/// Chooses each element with the same probability, independently.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RandomMask {
    key: u64,
    /// An element is chosen if the upper 32 bits of its number are below this.
    bound: u64,
}

impl RandomMask {
    /// Chooses elements of `tensor` of model number `model` with probability `density`, to a 2³²nd.
    pub fn new(seed: u64, model: u64, tensor: &str, density: f64) -> Self {
        let mut key = mix(mix(seed).wrapping_add(model));
        for bytes in tensor.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            key = mix(key ^ u64::from_le_bytes(word));
        }
        RandomMask {
            key: mix(key ^ tensor.len() as u64),
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
        const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
        mix(self.key.wrapping_add(position.wrapping_mul(GAMMA))) >> 32 < self.bound
    }
}

#[inline(always)]
fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
