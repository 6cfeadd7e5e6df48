//! Each method against its definition, written out for one element at a time.

use ckptfs::catalog::{Catalog, Opened, Tensor};
use ckptfs::format;
use ckptfs::kernels::lanes::Precision;
use ckptfs::ops::merge::{
    Between, Combination, Formula, Keep, ModelStock, ModelStockByRow, NearSwap, NuSlerp,
    NuSlerpByColumn, NuSlerpByRow, PointwiseKernel, RandomMask, Slerp, Task, TaskArithmetic,
};
use ckptfs::read::Reader;
use ckptfs::recipe::ViewRequest;
use half::{bf16, f16};
use safetensors::Dtype;

use crate::common::Workspace;
use crate::common::checkpoint::{Checkpoint, TensorData, of_values};
use crate::common::values::{Random, decode};

/// What `formula` makes of `inputs`, read whole, in the dtype of the inputs.
pub(crate) fn merged(inputs: &[TensorData], formula: impl Formula) -> Vec<f32> {
    let workspace = Workspace::new();
    let base = workspace.write("base", &Checkpoint::single(inputs.iter().cloned()));
    let catalog = Catalog::from_base(Opened::stored(format::Checkpoint::open(&base).unwrap()));
    let tensors: Vec<Tensor> = inputs
        .iter()
        .map(|input| catalog.tensors[&*input.name].clone())
        .collect();
    let dtype = inputs[0].dtype;
    let working = Precision::from_dtype(dtype).unwrap();
    let tensor = PointwiseKernel::tensor(&"merged".into(), formula, tensors, working, dtype);
    let reader = Reader::new(ViewRequest::new(&base).plan().unwrap().view, 16 << 20);
    let mut bytes = vec![0; tensor.len() as usize];
    reader.read_tensor(&tensor, 0, &mut bytes).unwrap();
    decode(dtype, &bytes)
}

pub(crate) fn round(dtype: Dtype, x: f32) -> f32 {
    match dtype {
        Dtype::BF16 => bf16::from_f32(x).to_f32(),
        Dtype::F16 => f16::from_f32(x).to_f32(),
        _ => x,
    }
}

/// A base and two models near it, with many equal differences.
pub(crate) fn models(dtype: Dtype, shape: &[usize]) -> (Vec<TensorData>, Vec<Vec<f32>>) {
    let count: usize = shape.iter().product();
    let mut random = Random::new(count as u64);
    let mut number = |bound: usize| random.below(2 * bound) as f32 - bound as f32;
    let base: Vec<f32> = (0..count).map(|_| number(64) / 32.0).collect();
    let near = |number: &mut dyn FnMut(usize) -> f32| -> Vec<f32> {
        base.iter().map(|x| x + number(40) / 128.0).collect()
    };
    let models = [near(&mut number), near(&mut number)];
    let tensors: Vec<TensorData> = [&base, &models[0], &models[1]]
        .iter()
        .zip(["base", "a", "b"])
        .map(|(values, name)| of_values(name, dtype, shape, values))
        .collect();
    let values = tensors.iter().map(|t| decode(dtype, &t.bytes)).collect();
    (tensors, values)
}

pub(crate) fn assert_same(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(
            found.to_bits(),
            expected.to_bits(),
            "element {i}: {found} for {expected}"
        );
    }
}

/// One unit in the last place apart at most, or, of values near zero, what the terms that cancel
/// out there (none above 2) can be off by.
pub(crate) fn assert_near(dtype: Dtype, found: &[f32], expected: &[f64]) {
    let relative = match dtype {
        Dtype::BF16 => 2f64.powi(-7),
        _ => 2f64.powi(-22),
    };
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let off = (f64::from(*found) - expected).abs();
        let most = (expected.abs() * relative).max(2f64.powi(-20));
        assert!(off <= most, "element {i}: {found} for {expected}");
    }
}

/// Positions from the largest magnitude down, the lower position first of equal ones.
pub(crate) fn ranking(values: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*b].abs().total_cmp(&values[*a].abs()).then(a.cmp(b)));
    order
}

/// Task arithmetic as its definition has it, with what each model keeps given as masks.
pub(crate) fn naive(
    dtype: Dtype,
    values: &[Vec<f32>],
    weights: &[f64],
    combination: Combination,
    masks: &[Vec<bool>],
) -> Vec<f32> {
    let round = |x| round(dtype, x);
    // Sums of f16 may be beyond its range, so they stay in f32.
    let of_sums = |x| if dtype == Dtype::F16 { x } else { round(x) };
    let mut parts = Vec::new();
    for (model, mask) in values[1..].iter().zip(masks) {
        let delta: Vec<f32> = model
            .iter()
            .zip(&values[0])
            .map(|(x, b)| round(x - b))
            .collect();
        let kept: Vec<f32> = delta
            .iter()
            .zip(mask)
            .map(|(d, k)| if *k { *d } else { 0.0 })
            .collect();
        let l1 = |v: &[f32]| of_sums(v.iter().map(|x| f64::from(x.abs())).sum::<f64>() as f32);
        let ratio = of_sums(l1(&delta) / l1(&kept));
        let rescales = combination.rescale && mask.contains(&false) && mask.contains(&true);
        parts.push(
            kept.iter()
                .map(|x| if rescales { round(x * ratio) } else { *x })
                .collect::<Vec<_>>(),
        );
    }
    let weights: Vec<f32> = weights.iter().map(|w| round(*w as f32)).collect();
    (0..values[0].len())
        .map(|i| {
            let weighted: Vec<f32> = parts
                .iter()
                .zip(&weights)
                .map(|(p, w)| round(p[i] * w))
                .collect();
            let majority = if round(weighted.iter().sum()) >= 0.0 {
                1.0
            } else {
                -1.0
            };
            let (mut sum, mut divisor) = (0.0, 0.0);
            for (x, w) in weighted.iter().zip(&weights) {
                if !combination.consensus || *x != 0.0 && x.signum() == majority {
                    sum += x;
                    divisor += w;
                }
            }
            let (mut change, divisor) = (round(sum), round(divisor));
            if combination.normalize && divisor != 0.0 {
                change = round(change / divisor);
            }
            if combination.lambda != 1.0 {
                change = round(change * combination.lambda as f32);
            }
            round(values[0][i] + change)
        })
        .collect()
}

pub(crate) const PLAIN: Combination = Combination {
    consensus: false,
    normalize: false,
    rescale: false,
    lambda: 1.0,
};

/// Several bands, the last one not full.
pub(crate) const LARGE: [usize; 2] = [1100, 1001];

#[test]
fn task_arithmetic_adds_weighted_differences() {
    for dtype in [Dtype::BF16, Dtype::F16, Dtype::F32] {
        let (tensors, values) = models(dtype, &[40, 129]);
        let all = vec![vec![true; values[0].len()]; 2];
        for normalize in [false, true] {
            for (weights, lambda) in [([0.3, 0.9], 1.0), ([1.0, -1.0], 0.7)] {
                let combination = Combination {
                    normalize,
                    lambda,
                    ..PLAIN
                };
                let tasks = weights.map(|weight| Task {
                    weight,
                    keep: Keep::All,
                });
                let formula: TaskArithmetic =
                    TaskArithmetic::new(&tasks, combination, values[0].len() as u64);
                let expected = naive(dtype, &values, &weights, combination, &all);
                assert_same(&merged(&tensors, formula), &expected);
            }
        }
    }
}

#[test]
fn ties_keeps_the_largest_magnitudes_and_the_elected_signs() {
    for dtype in [Dtype::BF16, Dtype::F16, Dtype::F32] {
        for (shape, densities) in [
            (&LARGE[..], [0.3, 0.501]),
            (&[3, 7], [0.01, 1.0]),
            (&[21], [0.99, 0.0]),
        ] {
            let (tensors, values) = models(dtype, shape);
            let masks: Vec<Vec<bool>> = values[1..]
                .iter()
                .zip(densities)
                .map(|(model, density)| {
                    let deltas: Vec<f32> = model
                        .iter()
                        .zip(&values[0])
                        .map(|(x, b)| round(dtype, x - b))
                        .collect();
                    let kept = match density {
                        0.0 => 0,
                        1.0 => deltas.len(),
                        _ => ((density * deltas.len() as f64) as usize).max(1),
                    };
                    let mut mask = vec![false; deltas.len()];
                    ranking(&deltas)[..kept]
                        .iter()
                        .for_each(|i| mask[*i] = true);
                    mask
                })
                .collect();
            for rescale in [false, true] {
                let combination = Combination {
                    consensus: true,
                    normalize: true,
                    rescale,
                    lambda: 1.0,
                };
                let tasks = [0, 1].map(|i| Task {
                    weight: [0.7, 0.4][i],
                    keep: Keep::Largest {
                        density: densities[i],
                    },
                });
                let formula: TaskArithmetic =
                    TaskArithmetic::new(&tasks, combination, values[0].len() as u64);
                let expected = naive(dtype, &values, &[0.7, 0.4], combination, &masks);
                assert_same(&merged(&tensors, formula), &expected);
            }
        }
    }
}

#[test]
fn breadcrumbs_drops_the_largest_magnitudes_and_the_smallest() {
    for dtype in [Dtype::BF16, Dtype::F32] {
        let (tensors, values) = models(dtype, &LARGE);
        let count = values[0].len();
        for (density, gamma) in [(0.6, 0.05), (0.95, 0.2), (0.0, 0.1)] {
            let masks: Vec<Vec<bool>> = values[1..]
                .iter()
                .map(|model| {
                    let deltas: Vec<f32> = model
                        .iter()
                        .zip(&values[0])
                        .map(|(x, b)| round(dtype, x - b))
                        .collect();
                    let kept = (density * count as f64) as usize;
                    let smallest = count.saturating_sub(kept + (gamma * count as f64) as usize);
                    let mut mask = vec![false; count];
                    let order = ranking(&deltas);
                    order[count - smallest - kept..count - smallest]
                        .iter()
                        .for_each(|i| mask[*i] = true);
                    mask
                })
                .collect();
            let tasks = [0.7, 0.4].map(|weight| Task {
                weight,
                keep: Keep::Between { density, gamma },
            });
            let formula: TaskArithmetic = TaskArithmetic::new(&tasks, PLAIN, count as u64);
            let expected = naive(dtype, &values, &[0.7, 0.4], PLAIN, &masks);
            assert_same(&merged(&tensors, formula), &expected);
        }
    }
}

#[test]
fn dare_keeps_what_its_mask_names_and_rescales() {
    let (tensors, values) = models(Dtype::BF16, &LARGE);
    let count = values[0].len();
    let masks = [0, 1].map(|model| RandomMask::new(42, model, "merged", 0.25));
    let flags: Vec<Vec<bool>> = masks
        .iter()
        .map(|mask| (0..count as u64).map(|i| mask.contains(i)).collect())
        .collect();
    for (consensus, rescale) in [(false, true), (true, true), (true, false)] {
        let combination = Combination {
            consensus,
            rescale,
            ..PLAIN
        };
        let tasks = masks.map(|mask| Task {
            weight: 0.6,
            keep: Keep::Random(mask),
        });
        let formula: TaskArithmetic = TaskArithmetic::new(&tasks, combination, count as u64);
        let expected = naive(Dtype::BF16, &values, &[0.6, 0.6], combination, &flags);
        assert_same(&merged(&tensors, formula), &expected);
    }
}

/// Bounds of six standard deviations: a sound generator misses one of them once in 10⁸ runs, and
/// this one has fixed seeds.
#[test]
fn a_random_mask_chooses_independently_with_its_probability() {
    const COUNT: u64 = 1 << 20;
    let within = |found: u64, probability: f64, what: &str| {
        let mean = COUNT as f64 * probability;
        let deviation = (mean * (1.0 - probability)).sqrt();
        assert!(
            (found as f64 - mean).abs() < 6.0 * deviation,
            "{what}: {found} of {COUNT}"
        );
    };
    for density in [0.1, 0.5, 0.9] {
        let mask = RandomMask::new(1, 0, "model.layers.0.mlp.up_proj.weight", density);
        let others = [
            RandomMask::new(2, 0, "model.layers.0.mlp.up_proj.weight", density),
            RandomMask::new(1, 1, "model.layers.0.mlp.up_proj.weight", density),
            RandomMask::new(1, 0, "model.layers.1.mlp.up_proj.weight", density),
        ];
        let chosen = |mask: &RandomMask, at| u64::from(mask.contains(at));
        within(
            (0..COUNT).map(|i| chosen(&mask, i)).sum(),
            density,
            "density",
        );
        for lag in [1, 2, 64, 4096] {
            let both = (0..COUNT)
                .map(|i| chosen(&mask, i) & chosen(&mask, i + lag))
                .sum();
            within(both, density * density, "neighbors");
        }
        for other in others {
            let both = (0..COUNT)
                .map(|i| chosen(&mask, i) & chosen(&other, i))
                .sum();
            within(both, density * density, "another mask");
        }
        let far = 1 << 40;
        within(
            (far..far + COUNT).map(|i| chosen(&mask, i)).sum(),
            density,
            "far away",
        );
    }
    assert!((0..1000).all(|i| !RandomMask::new(0, 0, "x", 0.0).contains(i)));
    assert!((0..1000).all(|i| RandomMask::new(0, 0, "x", 1.0).contains(i)));
}

#[test]
fn nearswap_moves_what_is_near() {
    for dtype in [Dtype::BF16, Dtype::F32] {
        let (tensors, values) = models(dtype, &[50, 101]);
        let r = |x| round(dtype, x);
        let t = 0.03;
        let expected: Vec<f32> = values[0]
            .iter()
            .zip(&values[1])
            .map(|(a, b)| {
                let distance = r(a - b).abs().max(r(1e-6));
                let w = r(r(1.0 / distance) * t).clamp(0.0, 1.0);
                r(r(w * b) + r(r(1.0 - w) * a))
            })
            .collect();
        assert_same(&merged(&tensors[..2], NearSwap { t }), &expected);
    }
}

pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Spherical interpolation in f64.
fn arc(a: &[f64], b: &[f64], t: f64) -> Vec<f64> {
    let cosine = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
    let angle = cosine.clamp(-1.0, 1.0).acos();
    let [of_a, of_b] = [(1.0 - t) * angle, t * angle].map(|x| x.sin() / angle.sin());
    a.iter().zip(b).map(|(a, b)| of_a * a + of_b * b).collect()
}

pub(crate) fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|x| f64::from(*x)).collect()
}

/// Two tensors at a wide angle.
fn apart(dtype: Dtype, shape: &[usize]) -> (Vec<TensorData>, Vec<Vec<f64>>) {
    let count: usize = shape.iter().product();
    let mut random = Random::new(99);
    let tensors: Vec<TensorData> = ["a", "b"]
        .iter()
        .map(|name| {
            let values: Vec<f32> = (0..count)
                .map(|_| random.below(2001) as f32 / 1000.0 - 0.6)
                .collect();
            of_values(name, dtype, shape, &values)
        })
        .collect();
    let values = tensors
        .iter()
        .map(|t| wide(&decode(dtype, &t.bytes)))
        .collect();
    (tensors, values)
}

#[test]
fn slerp_is_the_arc_between_whole_tensors_or_the_line_if_they_are_in_line() {
    for dtype in [Dtype::BF16, Dtype::F32] {
        let (tensors, values) = apart(dtype, &LARGE);
        for t in [0.0, 0.25, 1.0] {
            let expected = arc(&values[0], &values[1], f64::from(t));
            assert_near(dtype, &merged(&tensors, Slerp { t }), &expected);
        }
        let (tensors, values) = models(dtype, &[16, 16]);
        let twice: Vec<f32> = values[0].iter().map(|x| 2.0 * x).collect();
        let pair = [
            tensors[0].clone(),
            of_values("twice", dtype, &[16, 16], &twice),
        ];
        let expected: Vec<f64> = values[0].iter().map(|x| 1.25 * f64::from(*x)).collect();
        assert_near(dtype, &merged(&pair, Slerp { t: 0.25 }), &expected);
    }
}

#[test]
fn nuslerp_sees_a_tensor_its_rows_or_its_columns_as_vectors() {
    const ROWS: usize = 60;
    const COLUMNS: usize = 70;
    let (tensors, values) = apart(Dtype::F32, &[ROWS, COLUMNS]);
    let between = Between {
        t: 0.3,
        base: false,
    };
    let whole = arc(&values[0], &values[1], 0.3);
    assert_near(Dtype::F32, &merged(&tensors, NuSlerp(between)), &whole);

    let rows = |values: &[f64]| {
        values
            .chunks(COLUMNS)
            .map(<[f64]>::to_vec)
            .collect::<Vec<_>>()
    };
    let columns = |values: &[f64]| {
        (0..COLUMNS)
            .map(|j| values.iter().skip(j).step_by(COLUMNS).copied().collect())
            .collect::<Vec<Vec<f64>>>()
    };
    let by_row: Vec<f64> = rows(&values[0])
        .iter()
        .zip(rows(&values[1]))
        .flat_map(|(a, b)| arc(a, &b, 0.3))
        .collect();
    assert_near(
        Dtype::F32,
        &merged(&tensors, NuSlerpByRow(between)),
        &by_row,
    );

    let by_column: Vec<Vec<f64>> = columns(&values[0])
        .iter()
        .zip(columns(&values[1]))
        .map(|(a, b)| arc(a, &b, 0.3))
        .collect();
    let by_column: Vec<f64> = (0..ROWS * COLUMNS)
        .map(|i| by_column[i % COLUMNS][i / COLUMNS])
        .collect();
    assert_near(
        Dtype::F32,
        &merged(&tensors, NuSlerpByColumn(between)),
        &by_column,
    );
}

#[test]
fn nuslerp_sees_what_runs_along_the_first_dimension_of_any_tensor_as_vectors() {
    const SHAPE: [usize; 4] = [6, 3, 4, 5];
    const APART: usize = 60;
    let (tensors, values) = apart(Dtype::F32, &SHAPE);
    let between = Between {
        t: 0.3,
        base: false,
    };
    let mut expected = vec![0.0; SHAPE[0] * APART];
    for start in 0..APART {
        let [a, b] = [0, 1].map(|i| {
            let vector = values[i].iter().skip(start).step_by(APART);
            vector.copied().collect::<Vec<f64>>()
        });
        for (i, merged) in arc(&a, &b, between.t).into_iter().enumerate() {
            expected[start + i * APART] = merged;
        }
    }
    let found = merged(&tensors, NuSlerpByColumn(between));
    assert_near(Dtype::F32, &found, &expected);
}

#[test]
fn nuslerp_of_differences_from_a_base() {
    let (tensors, values) = models(Dtype::F32, &[30, 41]);
    let delta = |i: usize| -> Vec<f64> {
        let pairs = values[i].iter().zip(&values[0]);
        pairs
            .map(|(x, base)| f64::from(*x) - f64::from(*base))
            .collect()
    };
    let merged_deltas = arc(&delta(1), &delta(2), 0.6);
    let expected: Vec<f64> = merged_deltas
        .iter()
        .zip(&values[0])
        .map(|(d, base)| d + f64::from(*base))
        .collect();
    let between = Between { t: 0.6, base: true };
    assert_near(Dtype::F32, &merged(&tensors, NuSlerp(between)), &expected);
}

/// The definition in f64, of one vector.
fn stock(base: &[f64], models: [&[f64]; 2]) -> Vec<f64> {
    let [a, b] = models.map(|m| m.iter().zip(base).map(|(x, b)| x - b).collect::<Vec<_>>());
    let cosine = dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt();
    let t = 2.0 * cosine / (1.0 + cosine);
    (0..base.len())
        .map(|i| t * (models[0][i] + models[1][i]) / 2.0 + (1.0 - t) * base[i])
        .collect()
}

#[test]
fn model_stock_goes_as_far_as_the_angle_says() {
    let (tensors, values) = models(Dtype::F32, &[37, 53]);
    let values: Vec<Vec<f64>> = values.iter().map(|v| wide(v)).collect();
    let whole = stock(&values[0], [&values[1], &values[2]]);
    assert_near(
        Dtype::F32,
        &merged(&tensors, ModelStock { models: 2 }),
        &whole,
    );
    let by_row: Vec<f64> = (0..37)
        .flat_map(|row| {
            let [base, a, b] = [0, 1, 2].map(|i| &values[i][row * 53..(row + 1) * 53]);
            stock(base, [a, b])
        })
        .collect();
    assert_near(
        Dtype::F32,
        &merged(&tensors, ModelStockByRow { models: 2 }),
        &by_row,
    );
}
