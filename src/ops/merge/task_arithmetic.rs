//! Task arithmetic and what is built on it: TIES, DARE, breadcrumbs.
//!
//! The base plus `λ · Σ wᵢ·sᵢ(xᵢ − base)`, divided by `Σ wᵢ` where it is normalized, each operation
//! in the working format. `sᵢ` keeps a part of the differences and makes zeros of the others:
//!
//! | method | keeps | consensus |
//! |---|---|---|
//! | task_arithmetic, <https://arxiv.org/abs/2212.04089> | all | no |
//! | ties, <https://arxiv.org/abs/2306.01708> | the largest magnitudes | yes |
//! | dare_linear, dare_ties, <https://arxiv.org/abs/2311.03099> | a random choice | no, yes |
//! | breadcrumbs, breadcrumbs_ties, <https://arxiv.org/abs/2312.06795> | magnitudes between | no, yes |
//! | della_linear, della, <https://arxiv.org/abs/2406.11617> | a random choice, rather larger magnitudes of a row | no, yes |
//!
//! With consensus only those differences count, of each element, whose sign is that of their
//! weighted sum (plus where it is 0), and only their weights. With rescaling, what was kept is
//! multiplied by `Σ |δ| / Σ |kept δ|`.
//!
//! DELLA keeps an element with the probability `density − ε + 2ε·(rank − 1)/(n − 1)`, where `rank` counts
//! the `n` magnitudes of its row from the smallest up, of equal ones the lower position first.

use serde_json::{Value, json};

use crate::catalog::{Step, as_written};
use crate::kernels::lanes::{Precision, Round, l1_norm};
use crate::ops::merge::formula::{At, Formula, Lanes, Size};
use crate::ops::merge::random_mask::RandomMask;
use crate::ops::merge::ranks::{Cut, Cuts, Rank};

/// Inputs: the base, then the models. `ROWS` if something is kept by rank in its row.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskArithmetic<const ROWS: bool = false> {
    weights: Vec<f32>,
    kept: Vec<Kept>,
    cuts: Cuts,
    combination: Combination,
}

/// A model's part.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Task {
    pub weight: f64,
    pub keep: Keep,
}

/// Which differences are kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Keep {
    All,
    /// The `⌊density · n⌋` largest magnitudes of `n`, but at least one.
    Largest {
        density: f64,
    },
    /// The `⌊density · n⌋` largest magnitudes below the `⌊gamma · n⌋` largest (or below fewer, if
    /// there are not that many).
    Between {
        density: f64,
        gamma: f64,
    },
    /// Those of a mask.
    Random(RandomMask),
    /// Those of a mask, each with a probability from `density − epsilon`, of the smallest magnitude of
    /// its row, to `density + epsilon`, of the largest.
    RandomByRank {
        mask: RandomMask,
        density: f64,
        epsilon: f64,
    },
}

/// How the models' parts are combined.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Combination {
    pub consensus: bool,
    pub normalize: bool,
    pub rescale: bool,
    pub lambda: f64,
}

/// [`Keep`], with the positions of its cuts among all.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kept {
    All,
    None,
    /// What comes before the second cut, but not before the first.
    Ranks(Option<usize>, Option<usize>),
    Random(RandomMask),
    RandomByRank {
        mask: RandomMask,
        least: f32,
        epsilon: f32,
    },
}

/// Sums below this are not divided by.
const LEAST_NORM: f32 = 1e-7;

impl<const ROWS: bool> TaskArithmetic<ROWS> {
    /// The merge of tensors of `elements` elements.
    ///
    /// # Panics
    /// If something is kept by rank in its row, and this is not of rows.
    pub fn new(tasks: &[Task], combination: Combination, elements: u64) -> Self {
        let mut cuts = Vec::new();
        let kept = tasks.iter().enumerate().map(|(vector, task)| {
            let part = |share: f64| ((share * elements as f64) as u64).min(elements);
            let mut ranks = |from: u64, to: u64| {
                let mut cut = |rank: u64| {
                    let rank = Rank::Fixed(rank);
                    cuts.push(Cut { vector, rank });
                    cuts.len() - 1
                };
                if from == to {
                    Kept::None
                } else {
                    Kept::Ranks(
                        (from > 0).then(|| cut(from)),
                        (to < elements).then(|| cut(to)),
                    )
                }
            };
            match task.keep {
                Keep::All => Kept::All,
                Keep::Random(mask) => Kept::Random(mask),
                Keep::RandomByRank { density, .. } if density >= 1.0 => Kept::All,
                Keep::RandomByRank { density, .. } if density <= 0.0 => Kept::None,
                Keep::RandomByRank {
                    mask,
                    density,
                    epsilon,
                } => {
                    assert!(ROWS, "ranks are those of whole rows");
                    Kept::RandomByRank {
                        mask,
                        least: (density - epsilon) as f32,
                        epsilon: epsilon as f32,
                    }
                }
                Keep::Largest { density } | Keep::Between { density, .. } if density >= 1.0 => {
                    Kept::All
                }
                Keep::Largest { density } if density <= 0.0 || elements == 0 => Kept::None,
                Keep::Largest { density } => ranks(0, part(density).max(1)),
                Keep::Between { density, gamma } => {
                    let count = part(density);
                    let smallest = elements.saturating_sub(count + part(gamma));
                    ranks(elements - smallest - count, elements - smallest)
                }
            }
        });
        TaskArithmetic {
            kept: kept.collect(),
            weights: tasks.iter().map(|task| task.weight as f32).collect(),
            cuts: Cuts(cuts),
            combination,
        }
    }

    /// The number of the pass that finds what to rescale by, if there is one.
    fn rescaling_pass(&self, working: Precision) -> Option<usize> {
        let some_kept = |kept: &Kept| !matches!(kept, Kept::All | Kept::None);
        let rescales = self.combination.rescale && self.kept.iter().any(some_kept);
        rescales.then(|| self.cuts.passes(working))
    }

    /// The differences of model `i` from the base, as `change` makes them of each one and its place
    /// in the run; zeros of what is not kept.
    #[inline(always)]
    fn differences<R: Round>(
        &self,
        i: usize,
        facts: &[f64],
        at: At,
        inputs: Lanes<'_>,
        deltas: &mut [f32],
        change: impl Fn(f32) -> f32 + Copy,
    ) {
        let run = inputs.len();
        match self.kept[i] {
            Kept::All => differences::<R>(i, inputs, deltas, |delta, _| change(delta)),
            Kept::None => deltas.fill(change(0.0)),
            Kept::Random(mask) => differences::<R>(i, inputs, deltas, |delta, place| {
                change(masked(delta, mask.contains(at.element + u64::from(place))))
            }),
            Kept::RandomByRank {
                mask,
                least,
                epsilon,
            } => {
                differences::<R>(i, inputs, deltas, |delta, _| delta);
                let most = (run - 1) as f32;
                for (rank, place) in ascending(deltas).into_iter().enumerate() {
                    let share = rank as f32 / most;
                    let probability = least + share * 2.0 * epsilon;
                    let kept = mask.contains_with(at.element + place as u64, probability);
                    deltas[place] = change(masked(deltas[place], kept));
                }
            }
            Kept::Ranks(from, to) => {
                let found = |cut: usize| self.cuts.found(cut, facts).in_run(at, run);
                match (from.map(found), to.map(found)) {
                    (None, None) => differences::<R>(i, inputs, deltas, |delta, _| change(delta)),
                    (Some(from), None) => differences::<R>(i, inputs, deltas, |delta, place| {
                        change(masked(delta, !from.precedes::<R>(delta, place)))
                    }),
                    (None, Some(to)) => differences::<R>(i, inputs, deltas, |delta, place| {
                        change(masked(delta, to.precedes::<R>(delta, place)))
                    }),
                    (Some(from), Some(to)) => {
                        differences::<R>(i, inputs, deltas, |delta, place| {
                            let kept =
                                to.precedes::<R>(delta, place) & !from.precedes::<R>(delta, place);
                            change(masked(delta, kept))
                        });
                    }
                }
            }
        }
    }

    /// The merged elements of `N` places from `from` of a run, of the weighted differences of each
    /// model: `stride` from one model's to the next one's.
    #[inline(always)]
    fn combined<R: Round, const N: usize>(
        &self,
        differences: &[f32],
        stride: usize,
        base: &[f32],
        from: usize,
    ) -> [f32; N] {
        let Combination {
            consensus,
            normalize,
            lambda,
            ..
        } = self.combination;
        let places = |run: &[f32]| *run[from..].first_chunk::<N>().expect("places of the run");
        let each = || differences.chunks_exact(stride).map(places);
        let mut sums = [0.0; N];
        for deltas in each() {
            for i in 0..N {
                sums[i] += deltas[i];
            }
        }
        let mut divisors = [0.0; N];
        if consensus {
            let mut signs = [0.0; N];
            for (sign, sum) in signs.iter_mut().zip(&mut sums) {
                *sign = if R::round(*sum) >= 0.0 { 1.0 } else { -1.0 };
                *sum = 0.0;
            }
            for (deltas, weight) in each().zip(&self.weights) {
                let weight = R::round(*weight);
                for i in 0..N {
                    let share = f32::from(u8::from(deltas[i] * signs[i] > 0.0));
                    sums[i] += deltas[i] * share;
                    divisors[i] += weight * share;
                }
            }
            for divisor in &mut divisors {
                let rounded = R::round(*divisor);
                *divisor = if rounded == 0.0 { 1.0 } else { rounded };
            }
        } else if normalize {
            let sum = R::round(self.weights.iter().map(|weight| R::round(*weight)).sum());
            divisors.fill(if sum.abs() < 1e-8 { 1.0 } else { sum });
        }
        let bases = places(base);
        for (sum, (divisor, base)) in sums.iter_mut().zip(divisors.iter().zip(&bases)) {
            let mut change = R::round(*sum);
            if normalize {
                change = R::round(change / divisor);
            }
            if lambda != 1.0 {
                change = R::round(change * lambda as f32);
            }
            *sum = base + change;
        }
        sums
    }
}

/// The places of `values` from the smallest magnitude up, of equal ones the lower place first.
fn ascending(values: &[f32]) -> Vec<usize> {
    let mut keys: Vec<u64> = (0u64..)
        .zip(values)
        .map(|(place, value)| u64::from(value.abs().to_bits()) << 32 | place)
        .collect();
    keys.sort_unstable();
    let place = |key: u64| (key & u64::from(u32::MAX)) as usize;
    keys.into_iter().map(place).collect()
}

/// `delta`, or a zero of its sign if it is not kept.
#[inline(always)]
fn masked(delta: f32, kept: bool) -> f32 {
    delta * f32::from(u8::from(kept))
}

/// What `change` makes of the differences of model `i` from the base and their places in the run.
#[inline(always)]
fn differences<R: Round>(
    i: usize,
    inputs: Lanes<'_>,
    deltas: &mut [f32],
    change: impl Fn(f32, u32) -> f32,
) {
    let pairs = inputs.input(i + 1).iter().zip(inputs.input(0));
    for ((delta, (x, base)), place) in deltas.iter_mut().zip(pairs).zip(0..) {
        *delta = change(R::round(x - base), place);
    }
}

impl<const ROWS: bool> Formula for TaskArithmetic<ROWS> {
    const WHOLE_ROWS: bool = ROWS;

    fn step(&self) -> Step {
        let weights: Vec<Value> = self.weights.iter().map(|w| as_written(*w)).collect();
        let rank = |cut: Option<usize>| {
            cut.map(|cut| match self.cuts.0[cut].rank {
                Rank::Fixed(rank) => rank,
                Rank::OfNonZero(_) => unreachable!("the ranks of this method are known"),
            })
        };
        let kept = self.kept.iter().map(|kept| match kept {
            Kept::All => json!("all"),
            Kept::None => json!("none"),
            Kept::Ranks(from, to) => json!({"ranks": [rank(*from), rank(*to)]}),
            Kept::Random(mask) => json!({"random": mask.density()}),
            Kept::RandomByRank {
                mask,
                least,
                epsilon,
            } => json!({"random": mask.density(), "of_the_smallest": as_written(*least), "epsilon": as_written(*epsilon)}),
        });
        Step::merge("task arithmetic")
            .with("weights", weights)
            .with("keeps", kept.collect::<Vec<_>>())
            .with("consensus", self.combination.consensus)
            .with("normalize", self.combination.normalize)
            .with("rescale", self.combination.rescale)
            .with("lambda", self.combination.lambda)
    }

    #[inline(always)]
    fn merge<R: Round>(&self, facts: &[f64], at: At, inputs: Lanes<'_>, output: &mut [f32]) {
        /// Elements that are combined at a time, in registers.
        const WIDTH: usize = 32;
        let len = inputs.len();
        let ratios = &facts[self.cuts.facts().min(facts.len())..];
        let mut all = vec![0.0; self.weights.len() * len];
        for (i, deltas) in all.chunks_exact_mut(len).enumerate() {
            let weight = R::round(self.weights[i]);
            match ratios.get(i).map(|ratio| *ratio as f32) {
                None => self.differences::<R>(i, facts, at, inputs, deltas, |delta| {
                    R::round(delta * weight)
                }),
                Some(ratio) => self.differences::<R>(i, facts, at, inputs, deltas, |delta| {
                    R::round(R::round(delta * ratio) * weight)
                }),
            }
        }
        let base = inputs.input(0);
        let (whole, rest) = output.as_chunks_mut::<WIDTH>();
        let ends_at = whole.len() * WIDTH;
        for (i, merged) in whole.iter_mut().enumerate() {
            *merged = self.combined::<R, WIDTH>(&all, len, base, i * WIDTH);
        }
        for (i, merged) in rest.iter_mut().enumerate() {
            [*merged] = self.combined::<R, 1>(&all, len, base, ends_at + i);
        }
    }

    fn passes(&self, working: Precision) -> usize {
        let rescaling = self.rescaling_pass(working);
        rescaling.map_or(self.cuts.passes(working), |pass| pass + 1)
    }

    fn tally_len(&self, working: Precision, pass: usize, extent: Size) -> usize {
        if Some(pass) == self.rescaling_pass(working) {
            return 2 * self.kept.len();
        }
        self.cuts.tally_len(pass, working, extent)
    }

    fn wants(&self, working: Precision, pass: usize, facts: &[f64], band: u64) -> bool {
        Some(pass) == self.rescaling_pass(working) || self.cuts.wants(pass, working, facts, band)
    }

    #[inline(always)]
    fn tally<R: Round>(
        &self,
        pass: usize,
        facts: &[f64],
        at: At,
        inputs: Lanes<'_>,
        tally: &mut [f64],
    ) {
        let rescaling = Some(pass) == self.rescaling_pass(R::PRECISION);
        let mut deltas = vec![0.0; inputs.len()];
        for (i, kept) in self.kept.iter().enumerate() {
            if matches!(kept, Kept::All | Kept::None) {
                continue;
            }
            differences::<R>(i, inputs, &mut deltas, |delta, _| delta);
            if rescaling {
                tally[2 * i] += l1_norm(&deltas);
                self.differences::<R>(i, facts, at, inputs, &mut deltas, |delta| delta);
                tally[2 * i + 1] += l1_norm(&deltas);
            } else {
                self.cuts.tally::<R>(pass, facts, at, i, &deltas, tally);
            }
        }
    }

    /// The facts of the cuts, then what to multiply the differences of each model by.
    fn conclude(
        &self,
        working: Precision,
        pass: usize,
        extent: Size,
        tally: &[f64],
        facts: &mut Vec<f64>,
    ) {
        if Some(pass) != self.rescaling_pass(working) {
            return self.cuts.conclude(pass, working, extent, tally, facts);
        }
        // Sums of f16 could be beyond its range.
        let round = |x: f32| match working {
            Precision::Bf16 => working.round(x),
            Precision::F16 | Precision::F32 => x,
        };
        for sums in tally.chunks_exact(2) {
            let [all, kept] = [sums[0], sums[1]].map(|sum| round(sum as f32));
            let ratio = if all < LEAST_NORM || kept < LEAST_NORM {
                1.0
            } else {
                round(all / kept)
            };
            facts.push(f64::from(ratio));
        }
    }
}
