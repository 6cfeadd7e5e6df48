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
//!
//! With consensus only those differences count, of each element, whose sign is that of their
//! weighted sum (plus where it is 0), and only their weights. With rescaling, what was kept is
//! multiplied by `Σ |δ| / Σ |kept δ|`.

use serde_json::{Value, json};

use crate::catalog::{Step, as_written};
use crate::kernels::lanes::{Precision, Round, l1_norm};
use crate::ops::merge::formula::{At, Extent, Formula, Lanes};
use crate::ops::merge::random_mask::RandomMask;
use crate::ops::merge::ranks::{Cut, Cuts};

/// Inputs: the base, then the models.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskArithmetic {
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
}

/// Sums below this are not divided by.
const LEAST_NORM: f32 = 1e-7;

impl TaskArithmetic {
    /// The merge of tensors of `elements` elements.
    pub fn new(tasks: &[Task], combination: Combination, elements: u64) -> Self {
        let mut cuts = Vec::new();
        let kept = tasks.iter().enumerate().map(|(vector, task)| {
            let part = |share: f64| ((share * elements as f64) as u64).min(elements);
            let mut ranks = |from: u64, to: u64| {
                let mut cut = |rank: u64| {
                    cuts.push(Cut { vector, rank });
                    cuts.len() - 1
                };
                match from == to {
                    true => Kept::None,
                    false => Kept::Ranks(
                        (from > 0).then(|| cut(from)),
                        (to < elements).then(|| cut(to)),
                    ),
                }
            };
            match task.keep {
                Keep::All => Kept::All,
                Keep::Random(mask) => Kept::Random(mask),
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
        let some_kept = |kept: &Kept| matches!(kept, Kept::Ranks(..) | Kept::Random(_));
        let rescales = self.combination.rescale && self.kept.iter().any(some_kept);
        rescales.then(|| self.cuts.passes(working))
    }

    /// The differences of model `i` from the base.
    #[inline(always)]
    fn differences<R: Round>(i: usize, inputs: Lanes<'_>, deltas: &mut [f32]) {
        let pairs = inputs.input(i + 1).iter().zip(inputs.input(0));
        for (delta, (x, base)) in deltas.iter_mut().zip(pairs) {
            *delta = R::round(x - base);
        }
    }

    /// Makes zeros of what is not kept.
    #[inline(always)]
    fn mask<R: Round>(&self, i: usize, facts: &[f64], at: At, deltas: &mut [f32]) {
        let masked = |delta: f32, kept: bool| delta * f32::from(u8::from(kept));
        let places = deltas.iter_mut().zip(at.element..);
        match self.kept[i] {
            Kept::All => {}
            Kept::None => deltas.fill(0.0),
            Kept::Random(mask) => {
                for (delta, position) in places {
                    *delta = masked(*delta, mask.contains(position));
                }
            }
            Kept::Ranks(from, to) => {
                let [from, to] = [from, to].map(|cut| cut.map(|cut| self.cuts.found(cut, facts)));
                if let Some(to) = to {
                    for (delta, position) in deltas.iter_mut().zip(at.element..) {
                        let kept = to.precedes::<R>(*delta, position)
                            && from.is_none_or(|from| !from.precedes::<R>(*delta, position));
                        *delta = masked(*delta, kept);
                    }
                } else if let Some(from) = from {
                    for (delta, position) in places {
                        *delta = masked(*delta, !from.precedes::<R>(*delta, position));
                    }
                }
            }
        }
    }
}

impl Formula for TaskArithmetic {
    fn step(&self) -> Step {
        let weights: Vec<Value> = self.weights.iter().map(|w| as_written(*w)).collect();
        let rank = |cut: Option<usize>| cut.map(|cut| self.cuts.0[cut].rank);
        let kept = self.kept.iter().map(|kept| match kept {
            Kept::All => json!("all"),
            Kept::None => json!("none"),
            Kept::Ranks(from, to) => json!({"ranks": [rank(*from), rank(*to)]}),
            Kept::Random(mask) => json!({"random": mask.density()}),
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
        let Combination {
            consensus,
            normalize,
            lambda,
            ..
        } = self.combination;
        let len = inputs.len();
        let ratios = &facts[self.cuts.facts().min(facts.len())..];
        let mut all = vec![0.0; self.weights.len() * len];
        for (i, deltas) in all.chunks_exact_mut(len).enumerate() {
            Self::differences::<R>(i, inputs, deltas);
            self.mask::<R>(i, facts, at, deltas);
            if let Some(ratio) = ratios.get(i) {
                let ratio = *ratio as f32;
                deltas.iter_mut().for_each(|x| *x = R::round(*x * ratio));
            }
            let weight = R::round(self.weights[i]);
            deltas.iter_mut().for_each(|x| *x = R::round(*x * weight));
        }

        let mut divisors = vec![0.0; len];
        if consensus {
            let mut sums = vec![0.0; len];
            for deltas in all.chunks_exact(len) {
                for (sum, delta) in sums.iter_mut().zip(deltas) {
                    *sum += delta;
                }
            }
            output.fill(0.0);
            for (deltas, weight) in all.chunks_exact(len).zip(&self.weights) {
                let weight = R::round(*weight);
                let totals = output.iter_mut().zip(&mut divisors);
                for ((delta, sum), (mixed, divisor)) in deltas.iter().zip(&sums).zip(totals) {
                    let agrees = if R::round(*sum) >= 0.0 {
                        *delta > 0.0
                    } else {
                        *delta < 0.0
                    };
                    let share = f32::from(u8::from(agrees));
                    *mixed += delta * share;
                    *divisor += weight * share;
                }
            }
            for divisor in &mut divisors {
                let rounded = R::round(*divisor);
                *divisor = if rounded == 0.0 { 1.0 } else { rounded };
            }
        } else {
            output.fill(0.0);
            for deltas in all.chunks_exact(len) {
                for (mixed, delta) in output.iter_mut().zip(deltas) {
                    *mixed += delta;
                }
            }
            let sum = R::round(self.weights.iter().map(|weight| R::round(*weight)).sum());
            divisors.fill(if sum.abs() < 1e-8 { 1.0 } else { sum });
        }

        for ((mixed, divisor), base) in output.iter_mut().zip(&divisors).zip(inputs.input(0)) {
            let mut change = R::round(*mixed);
            if normalize {
                change = R::round(change / divisor);
            }
            if lambda != 1.0 {
                change = R::round(change * lambda as f32);
            }
            *mixed = base + change;
        }
    }

    fn passes(&self, working: Precision) -> usize {
        let rescaling = self.rescaling_pass(working);
        rescaling.map_or(self.cuts.passes(working), |pass| pass + 1)
    }

    fn tally_len(&self, working: Precision, pass: usize, extent: Extent) -> usize {
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
            Self::differences::<R>(i, inputs, &mut deltas);
            if rescaling {
                tally[2 * i] += l1_norm(&deltas);
                self.mask::<R>(i, facts, at, &mut deltas);
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
        extent: Extent,
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
            let ratio = match all < LEAST_NORM || kept < LEAST_NORM {
                true => 1.0,
                false => round(all / kept),
            };
            facts.push(f64::from(ratio));
        }
    }
}
