//! Choosing elements by the rank of their magnitude in the whole tensor, without sorting it.
//!
//! Elements are ranked from the largest magnitude down; of equal magnitudes, the one at the lower
//! position comes first. A *cut* at rank `r` divides the `r` first from the others. It is found by
//! counting: how many elements have each leading part of the magnitude's bits, then which elements
//! of the magnitude at the cut come before it.

use crate::kernels::lanes::{Precision, Round, f16_bits};
use crate::ops::merge::formula::{At, Size};

/// A cut to be found: the `rank` first elements of vector number `vector`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Cut {
    pub(super) vector: usize,
    pub(super) rank: Rank,
}

/// How many elements come before a cut.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Rank {
    Fixed(u64),
    /// This share of the elements that are not zero, computed in f32 and rounded down.
    OfNonZero(f32),
}

/// A cut that was found: these magnitudes, and at the magnitude `bits` these positions, come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    bits: u32,
    /// Positions before this.
    end: u64,
}

impl Found {
    /// The same, as it concerns the `len` elements from `at`.
    pub(super) fn in_run(&self, at: At, len: usize) -> FoundInRun {
        let end = self.end.saturating_sub(at.element).min(len as u64);
        FoundInRun {
            bits: self.bits,
            end: end as u32,
        }
    }
}

/// [`Found`], with positions in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FoundInRun {
    bits: u32,
    end: u32,
}

impl FoundInRun {
    /// Whether an element of the run comes before the cut.
    #[inline(always)]
    pub(super) fn precedes<R: Round>(&self, value: f32, place: u32) -> bool {
        // No shortcuts, so that it is vector code.
        let bits = magnitude_bits::<R>(value);
        (bits > self.bits) | ((bits == self.bits) & (place < self.end))
    }
}

/// Numbers that order like the magnitudes of values of the format `R`.
#[inline(always)]
fn magnitude_bits<R: Round>(x: f32) -> u32 {
    match R::PRECISION {
        Precision::Bf16 => (x.to_bits() & 0x7fff_ffff) >> 16,
        Precision::F16 => u32::from(f16_bits(x) & 0x7fff),
        Precision::F32 => x.to_bits() & 0x7fff_ffff,
    }
}

/// The bits that are counted by in each pass: from the top of the magnitude's bits down.
fn digits(working: Precision) -> &'static [u32] {
    match working {
        Precision::Bf16 | Precision::F16 => &[15],
        Precision::F32 => &[16, 15],
    }
}

/// The number of bits below digit number `digit`.
fn bits_below(working: Precision, digit: usize) -> u32 {
    digits(working)[digit + 1..].iter().sum()
}

/// Cuts through several vectors of the same length, found together.
///
/// The passes are: one for each digit, the first of which counts what is not zero too; one that
/// counts, in each band, the elements whose magnitude is that of a cut; and one over the bands of the
/// cuts, each of which ends at its cut.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cuts(pub(super) Vec<Cut>);

/// What is known of a cut, as facts: the magnitude's bits so far, how many elements that begin with
/// these bits come before the cut, the band it lies in and how many in this band, and the end.
const FACTS: usize = 5;
const BITS: usize = 0;
const WITHIN: usize = 1;
const BAND: usize = 2;
const IN_BAND: usize = 3;
const END: usize = 4;

impl Cuts {
    /// As [`crate::catalog::Survey::passes`].
    pub(super) fn passes(&self, working: Precision) -> usize {
        if self.0.is_empty() {
            0
        } else {
            digits(working).len() + 2
        }
    }

    /// The number of facts, once all are known.
    pub(super) fn facts(&self) -> usize {
        self.0.len() * FACTS
    }

    /// The cut number `i`.
    #[inline(always)]
    pub(super) fn found(&self, i: usize, facts: &[f64]) -> Found {
        let facts = &facts[i * FACTS..][..FACTS];
        Found {
            bits: facts[BITS] as u32,
            end: facts[END] as u64,
        }
    }

    /// As [`crate::catalog::Survey::tally_len`].
    pub(super) fn tally_len(&self, pass: usize, working: Precision, extent: Size) -> usize {
        let each = match digits(working).get(pass) {
            // With a place for the number of elements that are not zero.
            Some(bits) => (1 << bits) + usize::from(pass == 0),
            None if pass == digits(working).len() => extent.bands as usize,
            None => 2,
        };
        self.0.len() * each
    }

    /// As [`crate::catalog::Survey::wants`].
    pub(super) fn wants(&self, pass: usize, working: Precision, facts: &[f64], band: u64) -> bool {
        let (cuts, _) = facts.as_chunks::<FACTS>();
        match pass.checked_sub(digits(working).len()) {
            None => true,
            Some(0) => cuts.iter().any(|cut| cut[END].is_nan()),
            Some(_) => cuts
                .iter()
                .any(|cut| cut[END].is_nan() && cut[BAND] == band as f64),
        }
    }

    /// Counts the elements of a run of vector number `vector`.
    #[inline(always)]
    pub(super) fn tally<R: Round>(
        &self,
        pass: usize,
        facts: &[f64],
        at: At,
        vector: usize,
        values: &[f32],
        tally: &mut [f64],
    ) {
        let digits = digits(R::PRECISION);
        let each = tally.len() / self.0.len();
        let cuts = self.0.iter().zip(tally.chunks_exact_mut(each)).enumerate();
        for (i, (cut, tally)) in cuts.filter(|(_, (cut, _))| cut.vector == vector) {
            let known = facts.get(i * FACTS..(i + 1) * FACTS).unwrap_or(&[]);
            if pass < digits.len() {
                let below = bits_below(R::PRECISION, pass);
                let mask = (1 << digits[pass]) - 1;
                for x in values {
                    let bits = magnitude_bits::<R>(*x);
                    let begins = pass == 0 || bits >> (below + digits[pass]) == known[BITS] as u32;
                    if begins {
                        tally[(bits >> below & mask) as usize] += 1.0;
                    }
                }
                if pass == 0 && matches!(cut.rank, Rank::OfNonZero(_)) {
                    let others = values.iter().filter(|x| **x != 0.0);
                    tally[each - 1] += others.count() as f64;
                }
                continue;
            }
            if !known[END].is_nan() {
                continue;
            }
            let target = known[BITS] as u32;
            if pass == digits.len() {
                let equal = values.iter().filter(|x| magnitude_bits::<R>(**x) == target);
                tally[at.band as usize] += equal.count() as f64;
            } else if known[BAND] == at.band as f64 {
                // The count so far, and the end once the count is full.
                for (x, position) in values.iter().zip(at.element..) {
                    if magnitude_bits::<R>(*x) == target && tally[0] < known[IN_BAND] {
                        tally[0] += 1.0;
                        tally[1] = (position + 1) as f64;
                    }
                }
            }
        }
    }

    /// As [`crate::catalog::Survey::conclude`]; `facts` are those of the cuts, and are added to in
    /// the first pass.
    pub(super) fn conclude(
        &self,
        pass: usize,
        working: Precision,
        extent: Size,
        tally: &[f64],
        facts: &mut Vec<f64>,
    ) {
        let each = tally.len() / self.0.len();
        if pass == 0 {
            for (cut, tally) in self.0.iter().zip(tally.chunks_exact(each)) {
                let rank = match cut.rank {
                    Rank::Fixed(rank) => rank,
                    Rank::OfNonZero(share) => (tally[each - 1] as f32 * share) as u64,
                };
                let rank = rank.min(extent.elements) as f64;
                facts.extend([0.0, rank, 0.0, 0.0, f64::NAN]);
            }
        }
        let (cuts, _) = facts.as_chunks_mut::<FACTS>();
        for (cut, tally) in cuts.iter_mut().zip(tally.chunks_exact(each)) {
            if let Some(bits) = digits(working).get(pass) {
                // The largest first.
                let mut within = cut[WITHIN];
                let mut digit = (1 << bits) - 1;
                while digit > 0 && tally[digit] < within {
                    within -= tally[digit];
                    digit -= 1;
                }
                cut[BITS] = cut[BITS] * f64::from(1u32 << bits) + digit as f64;
                cut[WITHIN] = within;
                if pass + 1 == digits(working).len() {
                    cut[END] = if within >= tally[digit] {
                        extent.elements as f64
                    } else {
                        f64::NAN
                    };
                }
            } else if !cut[END].is_nan() {
                // All or none of its magnitude come before the cut.
            } else if pass == digits(working).len() {
                cut[IN_BAND] = cut[WITHIN];
                let mut band = 0;
                while tally[band] < cut[IN_BAND] {
                    cut[IN_BAND] -= tally[band];
                    band += 1;
                }
                cut[BAND] = band as f64;
            } else {
                cut[END] = tally[1];
            }
        }
    }
}
