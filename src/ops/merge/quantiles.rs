//! The values at some ranks of a whole tensor, found by counting, without sorting it.

/// Ranks are counted from the smallest value up. A value is known by its upper 16 bits after the first
/// pass, and by all 32 after the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quantiles<const N: usize>;

/// Bits that are counted by in each pass.
const BITS: u32 = 16;

impl<const N: usize> Quantiles<N> {
    pub(super) const PASSES: usize = 2;

    /// As [`crate::catalog::Survey::tally_len`].
    pub(super) fn tally_len(self, pass: usize) -> usize {
        [1, N][pass] << BITS
    }

    /// Counts `values`. `facts` are its own, of the pass before.
    #[inline(always)]
    pub(super) fn tally(self, pass: usize, facts: &[f64], values: &[f32], tally: &mut [f64]) {
        if pass == 0 {
            for value in values {
                tally[(ordered(*value) >> BITS) as usize] += 1.0;
            }
            return;
        }
        let (known, _) = facts.as_chunks::<2>();
        for (known, tally) in known.iter().zip(tally.chunks_exact_mut(1 << BITS)) {
            let upper = known[0] as u32;
            for value in values {
                let bits = ordered(*value);
                if bits >> BITS == upper {
                    tally[(bits & 0xffff) as usize] += 1.0;
                }
            }
        }
    }

    /// After the first pass, the upper bits of each value and how many values with the same come before it; after the
    /// second, the values at `ranks`.
    pub(super) fn conclude(
        self,
        pass: usize,
        facts: &[f64],
        ranks: [u64; N],
        tally: &[f64],
    ) -> Vec<f64> {
        if pass == 0 {
            let found = ranks.map(|rank| find(tally, rank as f64));
            return found
                .iter()
                .flat_map(|(upper, within)| [*upper as f64, *within])
                .collect();
        }
        let (known, _) = facts.as_chunks::<2>();
        let pairs = known.iter().zip(tally.chunks_exact(1 << BITS));
        let values = pairs.map(|(known, tally)| {
            let (lower, _) = find(tally, known[1]);
            f64::from(value((known[0] as u32) << BITS | lower as u32))
        });
        values.collect()
    }
}

/// The digit of the value at `rank`, and its rank among those with the same digit.
fn find(counts: &[f64], mut rank: f64) -> (usize, f64) {
    let mut digit = 0;
    while digit + 1 < counts.len() && counts[digit] <= rank {
        rank -= counts[digit];
        digit += 1;
    }
    (digit, rank)
}

/// Numbers that order like values.
#[inline(always)]
fn ordered(value: f32) -> u32 {
    let bits = value.to_bits();
    let sign = ((bits as i32) >> 31) as u32;
    bits ^ (sign | 0x8000_0000)
}

/// The value of such a number.
fn value(ordered: u32) -> f32 {
    let sign = if ordered >> 31 == 1 {
        0x8000_0000
    } else {
        u32::MAX
    };
    f32::from_bits(ordered ^ sign)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_order_like_values_and_stand_for_them() {
        let values = [
            f32::NEG_INFINITY,
            -2.5,
            -1e-40,
            -0.0,
            0.0,
            1e-40,
            1.0,
            1.5,
            f32::INFINITY,
        ];
        for pair in values.windows(2) {
            assert!(ordered(pair[0]) < ordered(pair[1]), "{pair:?}");
        }
        for x in values {
            assert_eq!(value(ordered(x)).to_bits(), x.to_bits());
        }
    }
}
