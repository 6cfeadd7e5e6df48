//! Experts in MXFP4 that become block FP8: the numbers of the file, an error, or with `allow_rounding` the nearest ones.

use ckptfs::error::Code;
use ckptfs::ops::{Precision, QuantizeParams};
use ckptfs::quant::ScaleFormat;
use ckptfs::recipe::{Plan, ViewRequest};
use proptest::prelude::*;
use safetensors::Dtype;

use crate::common::checkpoint::{TensorData, of_values};
use crate::common::oracle::numbers::{quantize, value_of};
use crate::common::readback::{read_tensor, reader};
use crate::common::values::{Random, decode, power_of_two};
use crate::common::{Workspace, assert_names};
use crate::model::{Model, like, request, write};

/// The number of this type in files.
const MXFP4: u32 = 39;
const MAGNITUDES: [f64; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];

/// The matrices of some experts, `[experts, rows, columns]`: codes of four bits, and an exponent for 32 columns of a row.
#[derive(Debug, Clone)]
struct Experts {
    shape: [usize; 3],
    codes: Vec<u8>,
    exponents: Vec<u8>,
}

impl Experts {
    /// Random codes, with exponents from `lowest` on that are at most `spread` apart.
    fn random(shape: [usize; 3], lowest: u8, spread: u8, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let count = shape.iter().product();
        let codes = (0..count).map(|_| random.below(16) as u8).collect();
        let above = usize::from(spread) + 1;
        let exponents = (0..count / 32).map(|_| lowest + random.below(above) as u8);
        let exponents = exponents.collect();
        Experts {
            shape,
            codes,
            exponents,
        }
    }

    fn number(&self, [expert, row, column]: [usize; 3]) -> f64 {
        let [_, rows, columns] = self.shape;
        let at = (expert * rows + row) * columns + column;
        let (magnitude, exponent) = (self.codes[at] & 7, self.exponents[at / 32]);
        let magnitude =
            MAGNITUDES[usize::from(magnitude)] * power_of_two(i32::from(exponent) - 127);
        // ggml's table of codes has one zero.
        let is_negative = self.codes[at] > 8;
        if is_negative { -magnitude } else { magnitude }
    }

    /// Blocks of 17 bytes: an exponent, and 16 codes in lower halves of bytes before 16 in upper ones.
    fn blocks(&self) -> Vec<u8> {
        let blocks = self.exponents.iter().zip(self.codes.chunks(32));
        let bytes = blocks.flat_map(|(exponent, codes)| {
            let halves = codes[..16].iter().zip(&codes[16..]);
            let codes = halves.map(|(low, high)| low | high << 4);
            [*exponent].into_iter().chain(codes)
        });
        bytes.collect()
    }

    /// The fastest first.
    fn dimensions(&self) -> [u64; 3] {
        let [experts, rows, columns] = self.shape;
        [columns, rows, experts].map(|dimension| dimension as u64)
    }

    /// The matrix of one expert under `name`, in BF16, which has all of these numbers.
    fn matrix(&self, expert: usize, name: &str) -> TensorData {
        let [_, rows, columns] = self.shape;
        let places =
            (0..rows).flat_map(|row| (0..columns).map(move |column| [expert, row, column]));
        let numbers: Vec<f32> = places.map(|at| self.number(at) as f32).collect();
        of_values(name, Dtype::BF16, &[rows, columns], &numbers)
    }
}

/// A view in block FP8 of a model of `architecture` with these stacks of experts.
fn view(
    workspace: &Workspace,
    architecture: &str,
    stacks: &[(&str, &Experts)],
    quantize: QuantizeParams,
) -> ViewRequest {
    let mut file = Model::new(architecture, 64, 4, 2).file();
    for (name, experts) in stacks {
        file = file.tensor(name, MXFP4, &experts.dimensions(), &experts.blocks());
    }
    let base = write(workspace.path(), "model.gguf", &file);
    let like = like(workspace.path());
    request(&base, Some(Precision::Bf16), Some(&like)).with(|asked| asked.quantize = quantize)
}

fn by_rules() -> QuantizeParams {
    QuantizeParams {
        scheme: Some("fp8-block".parse().unwrap()),
        ..QuantizeParams::default()
    }
}

/// Whether the codes and scales of the tensor `expected` is quantized to stand for its very numbers.
fn is_exact(expected: &TensorData, codes: &[u8], scales: &[f32]) -> bool {
    let [leading @ .., rows, columns] = expected.shape.as_slice() else {
        panic!("{expected:?} is no matrix");
    };
    assert!(leading.len() < 2);
    let (down, along) = (rows.div_ceil(128), columns.div_ceil(128));
    let numbers = decode(expected.dtype, &expected.bytes);
    numbers
        .iter()
        .zip(codes)
        .enumerate()
        .all(|(at, (number, code))| {
            let (matrix, row, column) = (at / columns / rows, at / columns % rows, at % columns);
            let scale = scales[(matrix * down + row / 128) * along + column / 128];
            let magnitude = value_of(code & 0x7f) * f64::from(scale);
            let product = if code & 0x80 == 0 {
                magnitude
            } else {
                -magnitude
            };
            product == f64::from(*number)
        })
}

/// Checks that `plan` has `expected` in FP8 by the definition, if that has its numbers, and else that it is an error.
fn assert_exact_or_error(plan: &Plan, expected: &TensorData) {
    let name = &*expected.name;
    assert_names(
        &plan.report.notes.join("\n"),
        &["converted from FP4 to FP8 exactly", name],
    );
    let quantized = quantize(expected, ScaleFormat::Ue8m0);
    let scales = decode(Dtype::F32, &quantized.scale.bytes);
    let reader = reader(plan);
    let codes = read_tensor(plan, &reader, name);
    let found_scales = read_tensor(plan, &reader, &quantized.scale.name);
    if is_exact(expected, &quantized.weight.bytes, &scales) {
        assert!(*codes.unwrap() == *quantized.weight.bytes, "{name}");
        assert!(*found_scales.unwrap() == *quantized.scale.bytes, "{name}");
        return;
    }
    for error in [codes, found_scales] {
        let error = error.unwrap_err();
        assert_eq!((error.code(), error.tensor()), (Code::Inexact, Some(name)));
        assert_names(&error.to_string(), &["block [", "quantize.allow_rounding"]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn numbers_are_the_same_or_an_error(
        rows in 1usize..300,
        groups in 1usize..8,
        lowest in prop::sample::select(vec![0u8, 1, 100, 127, 230]),
        spread in 0u8..20,
        seed in any::<u64>(),
    ) {
        let up = Experts::random([2, rows, groups * 32], lowest, spread, seed);
        let workspace = Workspace::new();
        let stacks = [("blk.0.ffn_up_exps.weight", &up)];
        let plan = view(&workspace, "qwen3moe", &stacks, by_rules()).plan().unwrap();
        for expert in 0..2 {
            let name = format!("model.layers.0.mlp.experts.{expert}.up_proj.weight");
            assert_exact_or_error(&plan, &up.matrix(expert, &name));
        }
    }
}

/// The experts of gpt-oss have inputs in rows, and of `gate_up_proj` the columns of the gate and of `up` by turns.
#[test]
fn fused_experts_of_gpt_oss_have_the_same_numbers_in_their_own_order() {
    let [experts, hidden, width] = [2, 160, 96];
    let [gate, up] = [1, 2].map(|seed| Experts::random([experts, width, hidden], 118, 9, seed));
    let down = Experts::random([experts, hidden, width], 118, 9, 3);
    let workspace = Workspace::new();
    let stacks = [
        ("blk.0.ffn_gate_exps.weight", &gate),
        ("blk.0.ffn_up_exps.weight", &up),
        ("blk.0.ffn_down_exps.weight", &down),
    ];
    let plan = view(&workspace, "gpt-oss", &stacks, by_rules())
        .plan()
        .unwrap();
    let fused = |part: &str, [rows, columns]: [usize; 2], number: &dyn Fn([usize; 3]) -> f64| {
        let places = (0..experts * rows * columns)
            .map(|at| [at / columns / rows, at / columns % rows, at % columns]);
        let numbers: Vec<f32> = places.map(|at| number(at) as f32).collect();
        let name = format!("model.layers.0.mlp.experts.{part}");
        of_values(&name, Dtype::BF16, &[experts, rows, columns], &numbers)
    };
    let gate_up = fused("gate_up_proj", [hidden, 2 * width], &|[e, row, column]| {
        let half = [&gate, &up][column % 2];
        half.number([e, column / 2, row])
    });
    assert_exact_or_error(&plan, &gate_up);
    let down = fused("down_proj", [width, hidden], &|[e, row, column]| {
        down.number([e, column, row])
    });
    assert_exact_or_error(&plan, &down);
    for tensor in [gate_up, down] {
        read_tensor(&plan, &reader(&plan), &tensor.name).expect("scales are at most 2^9 apart");
    }
}

#[test]
fn what_fp8_does_not_have_is_an_error_or_rounded_where_that_is_allowed() {
    const NAME: &str = "model.layers.0.mlp.experts.1.down_proj.weight";
    // All scales are 1 but that of row 130, columns 160 to 191, of the second expert: in its block [1, 1].
    let [experts, rows, columns] = [2, 256, 256];
    let apart = |distance: u8| {
        let mut exponents = vec![127; experts * rows * columns / 32];
        exponents[(rows + 130) * columns / 32 + 5] = 127 - distance;
        Experts {
            shape: [experts, rows, columns],
            codes: (0..experts * rows * columns)
                .map(|i| [7, 9, 0, 3][i % 4])
                .collect(),
            exponents,
        }
    };
    let plan_of = |workspace: &Workspace, down: &Experts, quantize| {
        let stacks = [("blk.0.ffn_down_exps.weight", down)];
        view(workspace, "qwen3moe", &stacks, quantize)
            .plan()
            .unwrap()
    };
    let workspace = Workspace::new();
    let exact = plan_of(&workspace, &apart(14), by_rules());
    let expected = apart(14).matrix(1, NAME);
    assert_exact_or_error(&exact, &expected);
    read_tensor(&exact, &reader(&exact), NAME).expect("2^14 apart is what FP8 has");

    let workspace = Workspace::new();
    let lossy = apart(15);
    let plan = plan_of(&workspace, &lossy, by_rules());
    assert_exact_or_error(&plan, &lossy.matrix(1, NAME));
    let error = read_tensor(&plan, &reader(&plan), NAME).unwrap_err();
    let parts = [
        NAME,
        "block [1, 1] of 128 x 128",
        "-1.5258789e-5 at row 130, column 161",
        "1.5625e-2",
        "quantize.allow_rounding",
    ];
    assert_names(&error.to_string(), &parts);
    let other = NAME.replace("experts.1", "experts.0");
    assert_exact_or_error(&plan, &lossy.matrix(0, &other));
    read_tensor(&plan, &reader(&plan), &other).expect("the other expert has one scale");

    let allowed = QuantizeParams {
        allow_rounding: true,
        ..by_rules()
    };
    let plan = plan_of(&workspace, &lossy, allowed);
    let notes = plan.report.notes.join("\n");
    assert!(!notes.contains("exactly"), "{notes}");
    let rounded = quantize(&lossy.matrix(1, NAME), ScaleFormat::Ue8m0);
    let found = read_tensor(&plan, &reader(&plan), NAME).unwrap();
    assert!(*found == *rounded.weight.bytes);
    // -0.5 · 2^-15 is half of the smallest code: the even one next to it is 0.
    assert_eq!(found[130 * columns + 161], 0x80);
}
