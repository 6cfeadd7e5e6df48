//! The figures that say how far quantized values are from their sources. `docs/FIDELITY.md`
//! defines and discusses them.

/// How well a set of quantized elements stands for its sources. With `x` a source value, `c` its
/// code, `s` the scale of its block and `x̂ = c · s` (exact in f64).
///
/// Figures of disjoint sets are [joined](Fidelity::join) without loss: every field is a count, a
/// sum or an extreme value.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Fidelity {
    pub elements: u64,
    /// Bytes that codes, scales and zero points take.
    pub bytes: u64,
    pub blocks: u64,
    /// Blocks that hold nothing but zeros.
    pub zero_blocks: u64,
    /// Σ x².
    pub signal: f64,
    /// Σ (x − x̂)².
    pub noise: f64,
    /// The largest |x − x̂| / |x| among elements whose code is a normal number; of
    /// integers, whose code is not zero.
    pub largest_relative_error: f64,
    /// The largest |x − x̂| / amax, with `amax` the largest |x| of the element's block.
    pub largest_block_error: f64,
    /// Codes of the largest magnitude; of integers, codes at either end of the range.
    pub saturated: u64,
    /// Codes of zero, of either sign.
    pub zero_codes: u64,
    /// Codes of zero where x is not zero.
    pub flushed: u64,
    /// Over the blocks that are not zero; `None` if there are none.
    pub amax: Option<AmaxRange>,
}

/// The smallest and the largest `amax` among blocks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AmaxRange {
    pub smallest: f32,
    pub largest: f32,
}

impl Fidelity {
    /// The signal-to-quantization-noise ratio in decibels, 10 · log₁₀(Σx² / Σ(x − x̂)²); `None` if
    /// there is no noise.
    pub fn sqnr_db(&self) -> Option<f64> {
        (self.noise > 0.0).then(|| 10.0 * (self.signal / self.noise).log10())
    }

    /// Bits that an element takes; `None` if there are no elements.
    pub fn bits_per_weight(&self) -> Option<f64> {
        (self.elements > 0).then(|| self.bytes as f64 * 8.0 / self.elements as f64)
    }

    /// The share of codes of the largest magnitude, of either end of the range.
    pub fn saturated_share(&self) -> f64 {
        self.share(self.saturated)
    }

    /// The share of codes of zero.
    pub fn zero_share(&self) -> f64 {
        self.share(self.zero_codes)
    }

    /// The share of elements that are not zero and have a code of zero.
    pub fn flushed_share(&self) -> f64 {
        self.share(self.flushed)
    }

    /// 0 if there are no elements.
    fn share(&self, count: u64) -> f64 {
        count as f64 / self.elements.max(1) as f64
    }

    /// Adds the elements of `other`, which has none of these.
    pub fn join(&mut self, other: &Fidelity) {
        self.elements += other.elements;
        self.bytes += other.bytes;
        self.blocks += other.blocks;
        self.zero_blocks += other.zero_blocks;
        self.signal += other.signal;
        self.noise += other.noise;
        self.largest_relative_error = self
            .largest_relative_error
            .max(other.largest_relative_error);
        self.largest_block_error = self.largest_block_error.max(other.largest_block_error);
        self.saturated += other.saturated;
        self.zero_codes += other.zero_codes;
        self.flushed += other.flushed;
        self.amax = match (self.amax, other.amax) {
            (Some(a), Some(b)) => Some(AmaxRange {
                smallest: a.smallest.min(b.smallest),
                largest: a.largest.max(b.largest),
            }),
            (a, b) => a.or(b),
        };
    }
}
