//! Weights in FP4 with powers of two as scales that become block FP8: the same numbers, an error, or with
//! `allow_rounding` the nearest ones.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ckptfs::error::Code;
use ckptfs::kernels::fp8::ScaleFormat;
use ckptfs::ops::{DtypeParams, Precision, QuantizeParams};
use ckptfs::quant::Dialect;
use ckptfs::read::Reader;
use ckptfs::recipe::{Plan, ViewRequest};
use proptest::prelude::*;
use safetensors::Dtype;
use serde_json::{Value, json};

use crate::block_floats::{self, Format};
use crate::common::checkpoint::{Checkpoint, TensorData, bf16, of_values, tensor};
use crate::common::oracle::numbers::value_of;
use crate::common::readback::{read_path, read_tensor, reader};
use crate::common::values::{Random, decode, power_of_two};
use crate::common::{Workspace, assert_names, materialized};

pub(crate) const EXPERT: &str = "layers.0.ffn.experts.0.w1";
const ATTENTION: &str = "layers.0.attn.wq_a";
const MAGNITUDES: [f64; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];

/// A weight in FP4: codes of four bits, and an exponent for 32 columns of a row.
#[derive(Debug, Clone)]
pub(crate) struct Fp4 {
    rows: usize,
    columns: usize,
    codes: Vec<u8>,
    exponents: Vec<u8>,
}

impl Fp4 {
    /// Random codes, with exponents from `lowest` on that are at most `spread` apart.
    fn random([rows, columns]: [usize; 2], lowest: u8, spread: u8, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let codes = (0..rows * columns).map(|_| random.below(16) as u8);
        let codes = codes.collect();
        let exponents = (0..rows * columns / 32).map(|_| {
            lowest
                .saturating_add(random.below(usize::from(spread) + 1) as u8)
                .min(252)
        });
        Fp4 {
            rows,
            columns,
            codes,
            exponents: exponents.collect(),
        }
    }

    fn number(&self, row: usize, column: usize) -> f64 {
        let at = row * self.columns + column;
        let sign = if self.codes[at] & 8 == 0 { 1.0 } else { -1.0 };
        let magnitude = MAGNITUDES[usize::from(self.codes[at] & 7)];
        sign * magnitude * power_of_two(i32::from(self.exponents[at / 32]) - 127)
    }

    /// The tensors of the weight of `module`, as DeepSeek-V4 has them.
    fn deepseek(&self, module: &str) -> [TensorData; 2] {
        let packed = self.codes.chunks(2).map(|pair| pair[0] | pair[1] << 4);
        let (rows, columns) = (self.rows, self.columns);
        let (weight, scale) = (format!("{module}.weight"), format!("{module}.scale"));
        [
            TensorData::new(&weight, Dtype::I8, &[rows, columns / 2], packed.collect()),
            TensorData::new(
                &scale,
                Dtype::F8_E8M0,
                &[rows, columns / 32],
                self.exponents.clone(),
            ),
        ]
    }

    /// The smallest power of two by which no number of the block at `[row, column]` is above 448.
    fn scale(&self, row: usize, column: usize) -> f64 {
        let (rows, columns) = (row / 128 * 128, column / 128 * 128);
        let mut amax = 0.0f64;
        for row in rows..(rows + 128).min(self.rows) {
            for column in columns..(columns + 128).min(self.columns) {
                amax = amax.max(self.number(row, column).abs());
            }
        }
        if amax == 0.0 {
            return 1.0;
        }
        let mut powers = (-126..128).map(power_of_two);
        powers.find(|scale| amax / scale <= 448.0).unwrap()
    }

    /// Whether FP8 has all numbers of the block at `[row, column]`.
    fn is_exact(&self, row: usize, column: usize) -> bool {
        let scale = self.scale(row, column);
        let (rows, columns) = (row / 128 * 128, column / 128 * 128);
        (rows..(rows + 128).min(self.rows)).all(|row| {
            (columns..(columns + 128).min(self.columns)).all(|column| {
                let quotient = self.number(row, column).abs() / scale;
                (0..=0x7e).any(|code| value_of(code) == quotient)
            })
        })
    }
}

fn declaration() -> Value {
    json!({
        "quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3", "scale_fmt": "ue8m0",
        "weight_block_size": [128, 128],
    })
}

/// A checkpoint as DeepSeek-V4 has it: experts in FP4, attention in FP8, norms in BF16.
pub(crate) fn base(workspace: &Workspace, experts: &[(&str, &Fp4)]) -> PathBuf {
    let experts = experts.iter();
    let mut tensors: Vec<TensorData> = experts.flat_map(|(name, fp4)| fp4.deepseek(name)).collect();
    let codes = (0..128 * 128).map(|i| (i % 127) as u8).collect();
    let attention = format!("{ATTENTION}.weight");
    tensors.extend([
        TensorData::new(&attention, Dtype::F8_E4M3, &[128, 128], codes),
        TensorData::new(
            &format!("{ATTENTION}.scale"),
            Dtype::F8_E8M0,
            &[1, 1],
            vec![120],
        ),
        bf16("layers.0.attn_norm.weight", &[128]),
        bf16("layers.0.ffn.gate.weight", &[4, 128]),
    ]);
    let config = json!({
        "model_type": "deepseek_v4", "expert_dtype": "fp4", "quantization_config": declaration(),
    });
    let checkpoint = Checkpoint::single(tensors).config(&config.to_string());
    workspace.write("base", &checkpoint)
}

fn params() -> QuantizeParams {
    QuantizeParams {
        patterns: vec![r".*experts\..*\.weight|.*(up|down)_proj.*".to_owned()],
        ..QuantizeParams::default()
    }
}

fn request(base: &Path, quantize: QuantizeParams) -> ViewRequest {
    ViewRequest::new(base).with(|asked| asked.quantize = quantize)
}

/// The same after everything is given as numbers of dtype `to`.
fn by_numbers(base: &Path, to: Precision, quantize: QuantizeParams) -> ViewRequest {
    request(base, quantize).with(|asked| asked.dtype = DtypeParams { to: Some(to) })
}

/// The numbers of a quantized weight of `columns` columns.
fn numbers(codes: &[u8], scales: &[u8], columns: usize) -> Vec<f64> {
    let scales = decode(Dtype::F32, scales);
    let codes = codes.iter().enumerate();
    codes
        .map(|(at, code)| {
            let sign = if code & 0x80 == 0 { 1.0 } else { -1.0 };
            let block = at / columns / 128 * columns.div_ceil(128) + at % columns / 128;
            sign * value_of(code & 0x7f) * f64::from(scales[block])
        })
        .collect()
}

fn read(plan: &Plan, reader: &Reader, name: &str) -> ckptfs::Result<Vec<u8>> {
    read_tensor(plan, reader, name)
}

fn notes(plan: &Plan) -> String {
    plan.report.notes.join("\n")
}

fn warning(plan: &Plan) -> Option<String> {
    let mut warnings = plan.report.warnings.iter();
    let warning = warnings.find(|warning| warning.code() == Code::Inexact)?;
    Some(warning.to_string())
}

/// The warnings of settings without effect.
fn idle(plan: &Plan) -> Vec<String> {
    let warnings = plan.report.warnings.iter();
    let idle = warnings.filter(|warning| warning.code() == Code::NoEffect);
    idle.map(ToString::to_string).collect()
}

/// Checks that `plan` has the numbers of `fp4` exactly, or errors where FP8 does not have them.
fn assert_exact_or_error(plan: &Plan, fp4: &Fp4, scales: &str) {
    let weight = format!("{EXPERT}.weight");
    let is_exact = (0..fp4.rows).step_by(128).all(|row| {
        let mut columns = (0..fp4.columns).step_by(128);
        columns.all(|column| fp4.is_exact(row, column))
    });
    let reader = reader(plan);
    let codes = read(plan, &reader, &weight);
    if !is_exact {
        for error in [codes, read(plan, &reader, scales)] {
            let error = error.unwrap_err();
            assert_eq!(error.code(), Code::Inexact);
            assert_eq!(error.tensor(), Some(&*weight));
            assert_names(&error.to_string(), &["block [", "allow_rounding"]);
        }
        return;
    }
    let scales = read(plan, &reader, scales).unwrap();
    let found = numbers(&codes.unwrap(), &scales, fp4.columns);
    for (at, found) in found.iter().enumerate() {
        let (row, column) = (at / fp4.columns, at % fp4.columns);
        let expected = fp4.number(row, column);
        assert!(
            *found == expected && found.is_sign_negative() == expected.is_sign_negative(),
            "row {row}, column {column}: {found:e}, not {expected:e}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn numbers_are_the_same_or_an_error(
        rows in 1usize..300,
        groups in 1usize..10,
        lowest in prop::sample::select(vec![0u8, 1, 3, 100, 127, 230]),
        spread in 0u8..20,
        seed in any::<u64>(),
    ) {
        let fp4 = Fp4::random([rows, groups * 32], lowest, spread, seed);
        let workspace = Workspace::new();
        let base = base(&workspace, &[(EXPERT, &fp4)]);
        let plan = request(&base, params()).plan().unwrap();
        assert_names(&notes(&plan), &["1 tensor is converted from FP4 to FP8 exactly", EXPERT]);
        assert_exact_or_error(&plan, &fp4, &format!("{EXPERT}.scale"));
        for to in [Precision::Bf16, Precision::F32] {
            let plan = by_numbers(&base, to, params()).plan().unwrap();
            prop_assert_eq!(warning(&plan), None);
            assert_exact_or_error(&plan, &fp4, &format!("{EXPERT}.weight_scale_inv"));
        }
    }
}

/// A block whose groups have the scale 1 but for one, whose scale is 2^-`apart`. Each has the largest and the smallest number.
pub(crate) fn apart(apart: u8) -> Fp4 {
    let (rows, columns) = (256, 256);
    let mut fp4 = Fp4 {
        rows,
        columns,
        codes: (0..rows * columns).map(|i| [7, 1, 0, 9][i % 4]).collect(),
        exponents: vec![127; rows * columns / 32],
    };
    // Row 130, columns 160 to 191: in block [1, 1].
    fp4.exponents[130 * 8 + 5] = 127 - apart;
    fp4
}

#[test]
fn scales_2_to_the_14_apart_are_exact_and_2_to_the_15_are_an_error() {
    let workspace = Workspace::new();
    let base = base(&workspace, &[(EXPERT, &apart(14))]);
    let plan = request(&base, params()).plan().unwrap();
    assert!(apart(14).is_exact(128, 128));
    assert_exact_or_error(&plan, &apart(14), &format!("{EXPERT}.scale"));

    let workspace = Workspace::new();
    let base = self::base(&workspace, &[(EXPERT, &apart(15))]);
    let plan = request(&base, params()).plan().unwrap();
    let reader = reader(&plan);
    let error = read(&plan, &reader, &format!("{EXPERT}.weight")).unwrap_err();
    assert_eq!(error.code(), Code::Inexact);
    let parts = [
        "layers.0.ffn.experts.0.w1.weight",
        "block [1, 1] of 128 x 128",
        "1.5258789e-5 at row 130, column 161",
        "1.5625e-2",
        "quantize.allow_rounding",
    ];
    assert_names(&error.to_string(), &parts);

    let allowed = QuantizeParams {
        allow_rounding: true,
        ..params()
    };
    let plan = request(&base, allowed).plan().unwrap();
    assert!(!notes(&plan).contains("exactly"), "{}", notes(&plan));
    assert_eq!(warning(&plan), None);
    assert_eq!(idle(&plan), Vec::<String>::new());
    let reader = self::reader(&plan);
    let codes = read(&plan, &reader, &format!("{EXPERT}.weight")).unwrap();
    let scales = read(&plan, &reader, &format!("{EXPERT}.scale")).unwrap();
    let fp4 = apart(15);
    for (at, found) in numbers(&codes, &scales, fp4.columns)
        .into_iter()
        .enumerate()
    {
        let (row, column) = (at / fp4.columns, at % fp4.columns);
        let is_lost = row == 130 && column / 32 == 5 && column % 2 == 1;
        // Half of the smallest code: the even one next to it is 0.
        let expected = if is_lost {
            0.0
        } else {
            fp4.number(row, column)
        };
        assert_eq!(found, expected, "row {row}, column {column}");
    }
}

#[test]
fn a_view_of_deepseek_v4_keeps_what_is_fp8_and_says_what_became_of_experts() {
    let workspace = Workspace::new();
    let fp4 = Fp4::random([256, 128], 118, 10, 1);
    let other = "layers.0.ffn.experts.1.w1";
    let base = base(&workspace, &[(EXPERT, &fp4), (other, &fp4)]);
    let plan = request(&base, params()).plan().unwrap();
    let found = crate::common::readback::tensors(&plan);
    let stored = crate::common::readback::tensors(&ViewRequest::new(&base).plan().unwrap());
    for name in [
        format!("{ATTENTION}.weight"),
        format!("{ATTENTION}.scale"),
        "layers.0.ffn.gate.weight".to_owned(),
    ] {
        assert!(found[&name] == stored[&name], "{name}");
    }
    let names: Vec<&String> = found.keys().collect();
    assert_eq!(names, stored.keys().collect::<Vec<_>>());
    for module in [EXPERT, other] {
        let codes = &found[&format!("{module}.weight")];
        assert_eq!(
            (codes.dtype, &*codes.shape),
            (Dtype::F8_E4M3, &[256, 128][..])
        );
        let scales = &found[&format!("{module}.scale")];
        assert_eq!((scales.dtype, &*scales.shape), (Dtype::F32, &[2, 1][..]));
    }
    let config: Value = serde_json::from_slice(&read_path(&plan, "config.json").unwrap()).unwrap();
    assert_eq!(config["expert_dtype"], "fp8");
    let declared = &config["quantization_config"];
    assert_eq!(declared["scale_fmt"], "ue8m0");
    assert_eq!(
        declared["modules_to_not_convert"],
        json!(["layers.0.ffn.gate", "lm_head"])
    );

    // Read back, these are the numbers of the source.
    let written = materialized(&workspace, "written", &request(&base, params()));
    let back = crate::in_dtype(&written, Precision::Bf16).unwrap();
    let source = crate::in_dtype(&base, Precision::Bf16).unwrap();
    let [back, source] = [back, source].map(|plan| crate::common::readback::tensors(&plan));
    assert!(back == source);
}

#[test]
fn scales_of_the_source_are_no_weights_that_stay_unquantized() {
    let workspace = Workspace::new();
    let fp4 = Fp4::random([256, 128], 118, 10, 1);
    let base = base(&workspace, &[(EXPERT, &fp4)]);
    let with_rules = QuantizeParams {
        rules: Some(ckptfs::ops::RuleSet::Exact),
        ..params()
    };
    let plan = request(&base, with_rules).plan().unwrap();
    let report = plan
        .report
        .reports::<ckptfs::ops::quantize::UnquantizedReport>();
    let modules = report.flat_map(|report| &report.modules);
    let modules: Vec<&str> = modules.map(|module| &*module.module).collect();
    assert_eq!(modules, ["ffn.gate"]);
}

#[test]
fn experts_that_are_not_all_selected_stay_fp4() {
    let workspace = Workspace::new();
    let fp4 = Fp4::random([128, 128], 118, 10, 1);
    let (second, third) = ("layers.0.ffn.experts.1.w1", "layers.1.ffn.experts.0.w1");
    let base = base(&workspace, &[(EXPERT, &fp4), (second, &fp4), (third, &fp4)]);
    let only = |pattern: &str| {
        let patterns = vec![pattern.to_owned()];
        let params = QuantizeParams {
            patterns,
            ..QuantizeParams::default()
        };
        request(&base, params).plan().unwrap()
    };
    let plan = only(r".*experts\.0\..*\.weight");
    let dtypes = |plan: &Plan| -> BTreeMap<String, Dtype> {
        let found = crate::common::readback::tensors(plan);
        let weights = found
            .into_iter()
            .filter(|(name, _)| name.contains(".w1.weight"));
        weights.map(|(name, tensor)| (name, tensor.dtype)).collect()
    };
    let found: Vec<Dtype> = dtypes(&plan).into_values().collect();
    assert_eq!(found, [Dtype::I8, Dtype::I8, Dtype::F8_E4M3]);
    let shown: Value = serde_json::from_slice(&read_path(&plan, "config.json").unwrap()).unwrap();
    assert_eq!(shown["expert_dtype"], "fp4");
    let skipped = shown["quantization_config"]["modules_to_not_convert"].to_string();
    assert!(!skipped.contains("experts"), "{skipped}");
    let mut warnings = plan.report.warnings.iter();
    let warning = warnings.find(|warning| warning.code() == Code::ConfigNotUpdated);
    assert_names(&warning.unwrap().to_string(), &["expert_dtype", third]);
}

#[test]
fn other_dialects_are_converted_exactly_too() {
    let weight = |seed| {
        tensor(
            "model.layers.0.mlp.up_proj.weight",
            Dtype::BF16,
            &[130, 256],
            seed,
        )
    };
    for (format, declared) in [
        (
            Format::Mxfp4,
            json!({"quant_method": "compressed-tensors", "format": "mxfp4-pack-quantized", "config_groups": {"group_0": {
                "targets": ["Linear"], "format": "mxfp4-pack-quantized",
                "weights": {"num_bits": 4, "type": "float", "strategy": "group", "group_size": 32, "symmetric": true, "scale_dtype": "torch.uint8"}}}}),
        ),
        (
            Format::Mxfp4Modelopt,
            json!({"quant_method": "modelopt", "quant_algo": "mxfp4"}),
        ),
    ] {
        for seed in 0..4 {
            let workspace = Workspace::new();
            let weight = weight(seed);
            let amax = block_floats::amax(&weight);
            let stored = block_floats::tensors(&weight, format, amax);
            let expected = block_floats::numbers(&weight, format, amax, Dtype::F32);
            let config = json!({"model_type": "llama", "quantization_config": declared});
            let base = Checkpoint::single(stored).config(&config.to_string());
            let base = workspace.write("base", &base);
            let plan = by_numbers(&base, Precision::Bf16, params()).plan().unwrap();
            assert_names(&notes(&plan), &["from FP4 to FP8 exactly"]);
            let reader = reader(&plan);
            let codes = read(&plan, &reader, &weight.name);
            let scales = read(&plan, &reader, &format!("{}_scale_inv", weight.name));
            // Which of the two it is, the oracle above says of any weight; these are not wild.
            let found = numbers(&codes.unwrap(), &scales.unwrap(), 256);
            let expected = decode(Dtype::F32, &expected.bytes);
            let expected = expected.into_iter().map(f64::from);
            assert!(found.into_iter().eq(expected), "{format:?}");
        }
    }
}

#[test]
fn fused_experts_of_gpt_oss_are_checked_where_rows_have_become_columns() {
    let (experts, rows, columns) = (2, 256, 128);
    let name = "model.layers.0.mlp.experts.down_proj";
    for (lowest, is_exact) in [(127 - 14, true), (127 - 15, false)] {
        let mut exponents = vec![127; experts * rows * columns / 32];
        // Of the second expert: row 200, so that it is column 200 of block [1, 0, 1].
        exponents[(rows + 200) * columns / 32 + 1] = lowest;
        let codes: Vec<u8> = (0..experts * rows * columns / 2).map(|_| 0x17).collect();
        let stored = [
            TensorData::new(
                &format!("{name}_blocks"),
                Dtype::U8,
                &[experts, rows, columns / 32, 16],
                codes,
            ),
            TensorData::new(
                &format!("{name}_scales"),
                Dtype::U8,
                &[experts, rows, columns / 32],
                exponents.clone(),
            ),
        ];
        let config =
            json!({"model_type": "gpt_oss", "quantization_config": {"quant_method": "mxfp4"}});
        let workspace = Workspace::new();
        let base = Checkpoint::single(stored).config(&config.to_string());
        let base = workspace.write("base", &base);
        let plan = by_numbers(&base, Precision::Bf16, params()).plan().unwrap();
        assert_names(&notes(&plan), &["from FP4 to FP8 exactly"]);
        let reader = reader(&plan);
        let codes = read(&plan, &reader, name);
        if !is_exact {
            let error = codes.unwrap_err();
            assert_eq!(error.code(), Code::Inexact);
            assert_names(
                &error.to_string(),
                &[name, "block [1, 0, 1]", "row 33, column 200"],
            );
            continue;
        }
        let scales = read(&plan, &reader, &format!("{name}_scale_inv")).unwrap();
        let found = numbers(&codes.unwrap(), &scales, rows);
        for (at, found) in found.into_iter().enumerate() {
            let (expert, column, row) = (at / (rows * columns), at / rows % columns, at % rows);
            let exponent = exponents[((expert * rows + row) * columns + column) / 32];
            let magnitude = [6.0, 0.5][column % 2];
            let expected = magnitude * power_of_two(i32::from(exponent) - 127);
            assert_eq!(found, expected, "{expert}, {column}, {row}");
        }
    }
}

#[test]
fn what_cannot_be_exact_is_a_warning_of_the_plan() {
    let workspace = Workspace::new();
    let fp4 = Fp4::random([128, 128], 118, 5, 3);
    let base = base(&workspace, &[(EXPERT, &fp4)]);
    let exact_scales = QuantizeParams {
        scale_format: Some(ScaleFormat::Float32),
        ..params()
    };
    let compressed = QuantizeParams {
        scheme: Some("fp8-block".parse().unwrap()),
        dialect: Some(Dialect::CompressedTensors),
        ..params()
    };
    for (plan, parts) in [
        (
            request(&base, exact_scales.clone()),
            vec![
                "no powers of two",
                EXPERT,
                "quantize.scale_fmt: ue8m0",
                "quantize.allow_rounding",
            ],
        ),
        (
            by_numbers(&base, Precision::F16, params()),
            vec![
                "rounded to F16",
                EXPERT,
                "dtype: bf16",
                "quantize.allow_rounding",
            ],
        ),
        (
            by_numbers(&base, Precision::Bf16, compressed),
            vec!["no powers of two", EXPERT, "quantize.allow_rounding"],
        ),
    ] {
        let plan = plan.plan().unwrap();
        assert_names(&warning(&plan).unwrap(), &parts);
        read(&plan, &reader(&plan), &format!("{EXPERT}.weight")).unwrap();
    }
    let allowed = QuantizeParams {
        allow_rounding: true,
        ..exact_scales
    };
    assert_eq!(warning(&request(&base, allowed).plan().unwrap()), None);
    let other = QuantizeParams {
        scheme: Some("int4".parse().unwrap()),
        allow_rounding: true,
        ..params()
    };
    let error = request(&base, other).plan().unwrap_err();
    assert_eq!(error.code(), Code::Conflict);
    assert_names(&error.to_string(), &["int4", "allow_rounding"]);
}

#[test]
fn weights_that_were_not_fp4_are_rounded_as_ever() {
    let workspace = Workspace::new();
    let weight = of_values(
        "model.layers.0.mlp.up_proj.weight",
        Dtype::BF16,
        &[1, 2],
        &[1.0, 1e-9],
    );
    let base = workspace.write("base", &Checkpoint::single([weight.clone()]));
    let plan = request(&base, params()).plan().unwrap();
    assert!(!notes(&plan).contains("FP4"));
    assert_eq!(idle(&plan), Vec::<String>::new());
    read(&plan, &reader(&plan), &weight.name).unwrap();

    let allowed = QuantizeParams {
        allow_rounding: true,
        ..params()
    };
    let [warning] = &idle(&request(&base, allowed).plan().unwrap())[..] else {
        panic!("one setting has no effect");
    };
    let parts = ["quantize.allow_rounding", "no effect", "was FP4"];
    assert_names(warning, &parts);
}
