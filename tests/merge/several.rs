//! The methods that take any number of models, and Arcee Fusion, against their definitions: on vectors where the
//! methods work with products of vectors, and with sorted lists where they count.

use ckptfs::catalog::{Catalog, Opened, Tensor};
use ckptfs::format;
use ckptfs::kernels::lanes::Precision;
use ckptfs::ops::merge::{
    ArceeFusion, Combination, Keep, OnSphere, PointwiseKernel, Ram, RamRescale, RandomMask, Sce,
    SphericalMean, Task, TaskArithmetic,
};
use ckptfs::read::Reader;
use ckptfs::recipe::ViewRequest;
use safetensors::Dtype;

use crate::common::checkpoint::{Checkpoint, TensorData, of_values};
use crate::common::values::{Random, decode};
use crate::common::{Workspace, assert_names, message};
use crate::methods::{LARGE, assert_near, assert_same, dot, merged, models, naive, round, wide};

/// The differences of each model, of which `values` are the first after the base's.
fn deltas(dtype: Dtype, values: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let of = |model: &Vec<f32>| {
        let pairs = model.iter().zip(&values[0]);
        pairs.map(|(x, base)| round(dtype, x - base)).collect()
    };
    values[1..].iter().map(of).collect()
}

/// A base and three models: the two of `models`, and the mean of them.
fn three(dtype: Dtype, shape: &[usize]) -> (Vec<TensorData>, Vec<Vec<f32>>) {
    let (mut tensors, mut values) = models(dtype, shape);
    let pairs = values[1].iter().zip(&values[0]);
    let third: Vec<f32> = pairs.map(|(a, base)| a * 0.25 + base * 0.5).collect();
    let third = of_values("c", dtype, shape, &third);
    values.push(decode(dtype, &third.bytes));
    tensors.push(third);
    (tensors, values)
}

#[test]
fn ram_takes_lone_differences_whole_and_the_mean_of_others() {
    const EPSILON: f32 = 0.06;
    for dtype in [Dtype::BF16, Dtype::F32] {
        let (tensors, values) = three(dtype, &LARGE);
        let deltas = deltas(dtype, &values);
        let has = |delta: f32| delta.abs() > round(dtype, EPSILON);
        let counts: Vec<usize> = (0..values[0].len())
            .map(|i| deltas.iter().filter(|delta| has(delta[i])).count())
            .collect();
        let rescale = RamRescale { r: 0.3, alpha: 0.4 };
        let factor = |delta: &Vec<f32>| {
            let kept = || (0..delta.len()).filter(|i| has(delta[*i]));
            let shared = kept().filter(|i| counts[*i] > 1).count() as f32;
            let unique = kept().filter(|i| counts[*i] == 1).count() as f32;
            1.0 + rescale.r * (shared / unique.max(EPSILON)).clamp(0.0, rescale.alpha)
        };
        for rescaled in [false, true] {
            let factors: Vec<f32> = deltas
                .iter()
                .map(|delta| if rescaled { factor(delta) } else { 1.0 })
                .collect();
            let expected: Vec<f32> = (0..counts.len())
                .map(|i| {
                    let mut change = 0.0;
                    for (delta, factor) in deltas.iter().zip(&factors) {
                        change += match (has(delta[i]), counts[i]) {
                            (false, _) => 0.0,
                            (true, 1) => delta[i] * factor,
                            (true, count) => round(dtype, delta[i] / count as f32),
                        };
                    }
                    let change = if rescaled {
                        change
                    } else {
                        round(dtype, change)
                    };
                    round(dtype, values[0][i] + change)
                })
                .collect();
            let formula = Ram {
                models: 3,
                epsilon: EPSILON,
                rescale: rescaled.then_some(rescale),
            };
            assert_same(&merged(&tensors, formula), &expected);
        }
    }
}

#[test]
fn sce_selects_by_variance_weighs_by_squares_and_erases_minorities() {
    for dtype in [Dtype::BF16, Dtype::F32] {
        let (tensors, values) = three(dtype, &LARGE);
        let count = values[0].len();
        for select_topk in [0.0, 0.4, 1.0] {
            let mut deltas = deltas(dtype, &values);
            let variances: Vec<f32> = (0..count)
                .map(|i| {
                    let each: Vec<f64> = deltas.iter().map(|delta| f64::from(delta[i])).collect();
                    let mean = each.iter().sum::<f64>() / 3.0;
                    let squares = each.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>();
                    round(dtype, (squares / 3.0) as f32)
                })
                .collect();
            if select_topk < 1.0 {
                let varying = variances
                    .iter()
                    .filter(|variance| **variance != 0.0)
                    .count();
                let kept = (varying as f32 * select_topk) as usize;
                let mut order: Vec<usize> = (0..count).collect();
                order.sort_by(|a, b| variances[*b].total_cmp(&variances[*a]).then(a.cmp(b)));
                for i in &order[kept..] {
                    deltas.iter_mut().for_each(|delta| delta[*i] *= 0.0);
                }
            }
            let mean = |delta: &Vec<f32>| {
                let squares = delta.iter().map(|x| f64::from(round(dtype, x * x)));
                round(dtype, (squares.sum::<f64>() / count as f64) as f32)
            };
            let means: Vec<f32> = deltas.iter().map(mean).collect();
            let sum = round(dtype, means.iter().sum());
            let weights = means.iter().map(|mean| match sum < 1e-6 {
                true => round(dtype, 1.0 / 3.0),
                false => round(dtype, mean / sum),
            });
            let weights: Vec<f32> = weights.collect();
            let expected: Vec<f32> = (0..count)
                .map(|i| {
                    let each = deltas.iter().map(|delta| delta[i]);
                    let majority = round(dtype, each.sum()) >= 0.0;
                    let (mut change, mut divisor) = (0.0, 0.0);
                    for (delta, weight) in deltas.iter().zip(&weights) {
                        if delta[i] != 0.0 && (delta[i] > 0.0) == majority {
                            change += round(dtype, delta[i] * weight);
                            divisor += weight;
                        }
                    }
                    let divisor = round(dtype, divisor).max(round(dtype, 1e-6));
                    let change = round(dtype, round(dtype, change) / divisor);
                    round(dtype, values[0][i] + change)
                })
                .collect();
            assert_same(&merged(&tensors, Sce::new(3, select_topk)), &expected);
        }
    }
}

fn sum(vectors: &[Vec<f64>], shares: &[f64]) -> Vec<f64> {
    let at = |i: usize| vectors.iter().zip(shares).map(|(v, c)| c * v[i]).sum();
    (0..vectors[0].len()).map(at).collect()
}

fn length(vector: &[f64]) -> f64 {
    dot(vector, vector).sqrt()
}

fn scaled(vector: &[f64], factor: f64) -> Vec<f64> {
    vector.iter().map(|x| x * factor).collect()
}

/// Three tensors in directions of their own.
fn directions(dtype: Dtype) -> (Vec<TensorData>, Vec<Vec<f64>>) {
    let mut random = Random::new(5);
    let names = ["a", "b", "c"];
    let tensors: Vec<TensorData> = names
        .iter()
        .map(|name| {
            let number = |_| random.below(2001) as f32 / 1000.0 - 0.7;
            let values: Vec<f32> = (0..1100 * 1001).map(number).collect();
            of_values(name, dtype, &LARGE, &values)
        })
        .collect();
    let values = tensors.iter().map(|t| wide(&decode(dtype, &t.bytes)));
    let values = values.collect();
    (tensors, values)
}

fn karcher(max_iter: u64) -> OnSphere {
    OnSphere {
        vectors: 3,
        from_base: false,
        mean: SphericalMean::Karcher {
            max_iter,
            tol: 1e-5,
        },
    }
}

#[test]
fn the_karcher_mean_is_where_the_tangents_to_all_directions_cancel_out() {
    for dtype in [Dtype::BF16, Dtype::F32] {
        let (tensors, vectors) = directions(dtype);
        let units: Vec<Vec<f64>> = vectors
            .iter()
            .map(|vector| scaled(vector, 1.0 / length(vector)))
            .collect();
        let third = [1.0 / 3.0; 3];
        let mean_length = vectors.iter().map(|v| length(v)).sum::<f64>() / 3.0;
        for steps in [0, 1, 10] {
            let mean = sum(&units, &third);
            let mut mean = scaled(&mean, 1.0 / length(&mean));
            for _ in 0..steps {
                let mut tangent = vec![0.0; mean.len()];
                for unit in &units {
                    let cosine = dot(&mean, unit);
                    let factor = cosine.acos() / cosine.acos().sin() / 3.0;
                    for ((t, u), m) in tangent.iter_mut().zip(unit).zip(&mean) {
                        *t += factor * (u - cosine * m);
                    }
                }
                let way = length(&tangent);
                if way < 1e-5 {
                    break;
                }
                mean = sum(&[mean, tangent], &[way.cos(), way.sin() / way]);
            }
            let expected = scaled(&mean, mean_length);
            assert_near(dtype, &merged(&tensors, karcher(steps)), &expected);
        }
    }
}

#[test]
fn tensors_of_zeros_have_no_direction_but_count_for_the_length() {
    let (mut tensors, vectors) = directions(Dtype::F32);
    let nothing = vec![0.0; vectors[0].len()];
    tensors[1] = of_values("b", Dtype::F32, &LARGE, &nothing);
    tensors[2] = of_values("c", Dtype::F32, &LARGE, &nothing);
    let expected = scaled(&vectors[0], 1.0 / 3.0);
    assert_near(Dtype::F32, &merged(&tensors, karcher(10)), &expected);
    tensors[0] = of_values("a", Dtype::F32, &LARGE, &nothing);
    assert_same(&merged(&tensors, karcher(10)), &vec![0.0; nothing.len()]);
}

fn tangent(vectors: usize, from_base: bool, weights: &[f64]) -> OnSphere {
    let mean = SphericalMean::Tangent {
        weights: weights.to_vec(),
        eps: 1e-8,
    };
    OnSphere {
        vectors,
        from_base,
        mean,
    }
}

/// Interpolation in the tangent space, on vectors.
fn multislerp(vectors: &[Vec<f64>], weights: &[f64]) -> Vec<f64> {
    let units: Vec<Vec<f64>> = vectors
        .iter()
        .map(|vector| scaled(vector, 1.0 / (length(vector) + 1e-8)))
        .collect();
    let mean = sum(&units, weights);
    let mean = scaled(&mean, 1.0 / length(&mean));
    let tangents: Vec<Vec<f64>> = units
        .iter()
        .map(|unit| {
            let cosine = dot(unit, &mean);
            unit.iter()
                .zip(&mean)
                .map(|(u, m)| u - cosine * m)
                .collect()
        })
        .collect();
    let tangent = sum(&tangents, weights);
    let way = length(&tangent) + 1e-8;
    let lengths = vectors.iter().zip(weights);
    let mean_length: f64 = lengths
        .map(|(vector, weight)| weight * length(vector))
        .sum();
    let moved = sum(&[mean, tangent], &[way.cos(), way.sin() / way]);
    scaled(&moved, mean_length)
}

#[test]
fn multislerp_moves_along_the_mean_of_the_tangents() {
    let weights = [0.5, 0.2, 0.3];
    for dtype in [Dtype::BF16, Dtype::F32] {
        let (tensors, vectors) = directions(dtype);
        let expected = multislerp(&vectors, &weights);
        let found = merged(&tensors, tangent(3, false, &weights));
        assert_near(dtype, &found, &expected);
    }
    let (tensors, vectors) = directions(Dtype::F32);
    let differences: Vec<Vec<f64>> = vectors[1..]
        .iter()
        .map(|vector| {
            let pairs = vector.iter().zip(&vectors[0]);
            pairs
                .map(|(x, base)| f64::from((x - base) as f32))
                .collect()
        })
        .collect();
    let moved = multislerp(&differences, &[0.7, 0.3]);
    let expected = sum(&[moved, vectors[0].clone()], &[1.0, 1.0]);
    let found = merged(&tensors, tangent(2, true, &[0.7, 0.3]));
    assert_near(Dtype::F32, &found, &expected);
}

#[test]
fn multislerp_without_a_direction_is_the_base_a_line_or_an_error() {
    let (tensors, values) = models(Dtype::F32, &[16, 16]);
    let base = &tensors[0];
    let opposite: Vec<f32> = values[0].iter().map(|x| -x).collect();
    let named = |name: &str, values: &[f32]| of_values(name, Dtype::F32, &[16, 16], values);
    // Models that do not differ from the base.
    let alike = [
        base.clone(),
        named("x", &values[0]),
        named("y", &values[0]),
        named("z", &values[0]),
    ];
    let formula = tangent(3, true, &[0.2, 0.3, 0.5]);
    assert_same(&merged(&alike, formula), &values[0]);
    // Two that cancel each other out, and three.
    let two = [base.clone(), named("x", &opposite)];
    let nothing = vec![0.0; values[0].len()];
    assert_same(&merged(&two, tangent(2, false, &[0.5, 0.5])), &nothing);
    let three = [base.clone(), named("x", &opposite), named("y", &nothing)];
    let workspace = Workspace::new();
    let directory = workspace.write("base", &Checkpoint::single(three));
    let catalog = Catalog::from_base(Opened::stored(
        format::Checkpoint::open(&directory).unwrap(),
    ));
    let inputs: Vec<Tensor> = ["base", "x", "y"]
        .map(|name| catalog.tensors[name].clone())
        .to_vec();
    let formula = tangent(3, false, &[0.4, 0.4, 0.2]);
    let tensor = PointwiseKernel::tensor(
        &"merged".into(),
        formula,
        inputs,
        Precision::F32,
        Dtype::F32,
    );
    let reader = Reader::new(ViewRequest::new(&directory).plan().unwrap().view, 1 << 20);
    let mut bytes = vec![0; tensor.len() as usize];
    let refused = message(reader.read_tensor(&tensor, 0, &mut bytes));
    assert_names(&refused, &["merged", "cancel each other out"]);
}

#[test]
fn arcee_fusion_takes_what_is_above_the_quartiles() {
    for (dtype, shape) in [
        (Dtype::BF16, &[40, 129][..]),
        (Dtype::F32, &[40, 129]),
        (Dtype::F32, &LARGE),
        (Dtype::F32, &[700]),
    ] {
        let (mut tensors, values) = models(dtype, shape);
        let mut random = Random::new(3);
        // Many small differences and few large ones, as those of trained models.
        let mut change = || ((random.below(2001) as f32 - 1000.0) / 1000.0).powi(5);
        let moved: Vec<f32> = values[0].iter().map(|x| x + change()).collect();
        tensors[1] = of_values("a", dtype, shape, &moved);
        let (base, model) = (&values[0], &decode(dtype, &tensors[1].bytes));
        let columns = shape[shape.len() - 1];
        let softmax = |row: &[f32]| -> Vec<f64> {
            let sum: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
            row.iter()
                .map(|x| f64::from(*x).exp() / sum + 1e-8)
                .collect()
        };
        let divergences: Vec<f32> = (base.chunks(columns).zip(model.chunks(columns)))
            .map(|(base, model)| {
                let pairs = softmax(model).into_iter().zip(softmax(base));
                round(
                    dtype,
                    pairs.map(|(p, q)| p * (p / q).ln()).sum::<f64>() as f32,
                )
            })
            .collect();
        let importance: Vec<f32> = (0..base.len())
            .map(|i| {
                let change = round(dtype, model[i] - base[i]).abs();
                round(dtype, change * divergences[i / columns])
            })
            .collect();
        let mut sorted = importance.clone();
        sorted.sort_by(f32::total_cmp);
        let [lower, median, upper] = [1, 2, 3].map(|q| sorted[(sorted.len() - 1) * q / 4]);
        let spread = round(dtype, 1.5 * round(dtype, upper - lower));
        let threshold = round(dtype, median + spread);
        let expected: Vec<f32> = (0..base.len())
            .map(|i| match importance[i] >= threshold {
                true => round(dtype, base[i] + round(dtype, model[i] - base[i])),
                false => base[i],
            })
            .collect();
        let taken = expected
            .iter()
            .zip(base)
            .filter(|(x, base)| x != base)
            .count();
        assert!(taken > 0 && taken < base.len(), "{taken} of {}", base.len());
        let found = merged(&tensors[..2], ArceeFusion);
        // Sums of exponentials may differ in their last place, and move what is at the threshold.
        let differ = found.iter().zip(&expected).filter(|(x, y)| x != y).count();
        assert!(
            differ * 1000 <= base.len(),
            "{differ} of {} differ",
            base.len()
        );
    }
}

#[test]
fn della_keeps_larger_magnitudes_of_a_row_with_larger_probability() {
    let (tensors, values) = models(Dtype::F32, &LARGE);
    let columns = LARGE[1];
    let (density, epsilon) = (0.4, 0.3);
    let masks = [0, 1].map(|model| RandomMask::new(7, model, "merged", density));
    let deltas = deltas(Dtype::F32, &values);
    let mut by_rank = vec![0; columns];
    let flags: Vec<Vec<bool>> = deltas
        .iter()
        .zip(&masks)
        .map(|(deltas, mask)| {
            let mut flags = vec![false; deltas.len()];
            for (row, deltas) in deltas.chunks(columns).enumerate() {
                let mut order: Vec<usize> = (0..columns).collect();
                order.sort_by(|a, b| deltas[*a].abs().total_cmp(&deltas[*b].abs()).then(a.cmp(b)));
                for (rank, place) in order.into_iter().enumerate() {
                    let share = rank as f32 / (columns - 1) as f32;
                    let probability = (density - epsilon) as f32 + share * 2.0 * epsilon as f32;
                    let position = row * columns + place;
                    flags[position] = mask.contains_with(position as u64, probability);
                    by_rank[rank] += usize::from(flags[position]);
                }
            }
            flags
        })
        .collect();
    for rescale in [false, true] {
        let combination = Combination {
            consensus: true,
            normalize: true,
            rescale,
            lambda: 1.0,
        };
        let tasks = masks.map(|mask| Task {
            weight: 0.6,
            keep: Keep::RandomByRank {
                mask,
                density,
                epsilon,
            },
        });
        let formula: TaskArithmetic<true> =
            TaskArithmetic::new(&tasks, combination, values[0].len() as u64);
        let expected = naive(Dtype::F32, &values, &[0.6, 0.6], combination, &flags);
        assert_same(&merged(&tensors, formula), &expected);
    }
    // The shares of the lower and the upper half of ranks, within six standard deviations.
    let half = columns / 2;
    let of = (half * LARGE[0] * 2) as f64;
    for (ranks, expected) in [(0..half, 0.25), (columns - half..columns, 0.55)] {
        let kept: usize = by_rank[ranks].iter().sum();
        let off = kept as f64 / of - expected;
        assert!(
            off.abs() < 6.0 * (0.25 / of).sqrt() + 1e-3,
            "{off} more than {expected}"
        );
    }
}
