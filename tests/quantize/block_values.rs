//! What views in MXFP4, MXFP8 and NVFP4 hold, what config.json says of it, and what `dtype` makes of it again.

use std::collections::BTreeMap;
use std::path::Path;

use ckptfs::inspect::{Candidate, compare, inspect, quantized_tensors};
use ckptfs::named::Named;
use ckptfs::ops::{Precision, QuantizeParams};
use ckptfs::quant::Dialect;
use ckptfs::recipe::ViewRequest;
use safetensors::Dtype;
use serde_json::{Value, json};

use crate::block_floats::{self, Format, OF_MODULES, amax};
use crate::common::checkpoint::{Checkpoint, TensorData, bf16, of_values, tensor};
use crate::common::readback::{read_file, read_path, reader, tensors};
use crate::common::values::decode;
use crate::common::{Workspace, assert_names, materialized, message};
use crate::in_dtype;

const DTYPES: [Dtype; 3] = [Dtype::BF16, Dtype::F16, Dtype::F32];
const TARGETS: [(Precision, Dtype); 3] = [
    (Precision::Bf16, Dtype::BF16),
    (Precision::F16, Dtype::F16),
    (Precision::F32, Dtype::F32),
];

fn request(base: &Path, format: Format) -> ViewRequest {
    let quantize = QuantizeParams {
        scheme: Some(format.scheme().parse().unwrap()),
        dialect: Some(Dialect::named(format.dialect()).unwrap()),
        ..QuantizeParams::default()
    };
    ViewRequest::new(base).with(|asked| asked.quantize = quantize)
}

fn assert_same(found: &BTreeMap<String, TensorData>, expected: Vec<TensorData>, case: &str) {
    let names: Vec<&String> = found.keys().collect();
    let mut expected_names: Vec<&String> = expected.iter().map(|tensor| &tensor.name).collect();
    expected_names.sort();
    assert_eq!(names, expected_names, "{case}");
    for expected in &expected {
        assert!(
            found[&expected.name] == *expected,
            "{case}, {}",
            expected.name
        );
    }
}

fn layer(name: &str, dtype: Dtype, shape: &[usize], seed: u64) -> TensorData {
    let name = format!("model.layers.{seed}.{name}.weight");
    tensor(&name, dtype, shape, seed)
}

#[test]
fn weights_are_quantized_as_defined_and_read_back() {
    for format in OF_MODULES {
        let workspace = Workspace::new();
        let weights: Vec<TensorData> = (0..9)
            .map(|seed| layer("mlp.down_proj", DTYPES[seed as usize % 3], &[19, 352], seed))
            .collect();
        let base = workspace.write("base", &Checkpoint::single(weights.clone()));
        let request = request(&base, format);
        let plan = request.plan().unwrap();
        let expected = weights.iter();
        let expected = expected.flat_map(|w| block_floats::tensors(w, format, amax(w)));
        let case = format!("{format:?}");
        assert_same(&tensors(&plan), expected.collect(), &case);

        let written = materialized(&workspace, "written", &request);
        for (to, dtype) in TARGETS {
            let back = tensors(&in_dtype(&written, to).unwrap());
            let numbers = weights.iter();
            let numbers = numbers.map(|w| block_floats::numbers(w, format, amax(w), dtype));
            assert_same(&back, numbers.collect(), &format!("{case} as {dtype:?}"));
        }
    }
}

#[test]
fn layers_that_engines_join_share_the_scale_of_all() {
    for format in [Format::Nvfp4, Format::Nvfp4Modelopt] {
        let workspace = Workspace::new();
        let groups = [
            &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"][..],
            &["mlp.experts.0.gate_proj", "mlp.experts.0.up_proj"],
            &["mlp.experts.1.gate_proj", "mlp.experts.1.up_proj"],
            &["self_attn.o_proj"],
            &["mlp.experts.0.down_proj"],
            &["mlp.experts.1.down_proj"],
        ];
        let weight = |name: &&str| {
            let values: Vec<f32> = (0..16 * 64)
                .map(|i| ((i * 37 + name.len() * 11) % 101) as f32 - 50.0)
                .map(|x| x * name.bytes().map(f32::from).sum::<f32>())
                .collect();
            let name = format!("model.layers.0.{name}.weight");
            of_values(&name, Dtype::BF16, &[16, 64], &values)
        };
        let mut expected = Vec::new();
        let mut all = Vec::new();
        for group in groups {
            let weights: Vec<TensorData> = group.iter().map(weight).collect();
            let largest = weights.iter().map(amax).fold(0.0, f32::max);
            let made = weights.iter();
            expected.extend(made.flat_map(|w| block_floats::tensors(w, format, largest)));
            all.extend(weights);
        }
        let base = workspace.write("base", &Checkpoint::single(all));
        let plan = request(&base, format).plan().unwrap();
        assert_same(&tensors(&plan), expected, &format!("{format:?}"));
    }
}

#[test]
fn tensors_of_zeros_and_of_the_smallest_numbers_have_finite_scales() {
    for format in OF_MODULES {
        for (dtype, small) in [
            (Dtype::BF16, 1e-40),
            (Dtype::F16, 6e-8),
            (Dtype::F32, 1e-44),
        ] {
            let workspace = Workspace::new();
            let zeros = of_values(
                "model.layers.0.mlp.down_proj.weight",
                dtype,
                &[4, 64],
                &[0.0; 256],
            );
            let mut values = vec![small; 256];
            values[..64].fill(-0.0);
            let tiny = of_values(
                "model.layers.1.mlp.down_proj.weight",
                dtype,
                &[4, 64],
                &values,
            );
            let weights = [zeros, tiny];
            let base = workspace.write("base", &Checkpoint::single(weights.clone()));
            let request = request(&base, format);
            let expected = weights.iter();
            let expected = expected.flat_map(|w| block_floats::tensors(w, format, amax(w)));
            let case = format!("{format:?}, {dtype:?}");
            assert_same(
                &tensors(&request.plan().unwrap()),
                expected.collect(),
                &case,
            );
            let written = materialized(&workspace, "written", &request);
            let back = tensors(&in_dtype(&written, Precision::F32).unwrap());
            let zeros = &back["model.layers.0.mlp.down_proj.weight"];
            let values = decode(zeros.dtype, &zeros.bytes);
            assert!(values.iter().all(|value| *value == 0.0), "{case}");
        }
    }
}

#[test]
fn experts_of_gpt_oss_are_transposed_both_ways() {
    let workspace = Workspace::new();
    let experts = "model.layers.0.mlp.experts";
    let gate_up = bf16(&format!("{experts}.gate_up_proj"), &[3, 64, 64]);
    let down = bf16(&format!("{experts}.down_proj"), &[3, 32, 64]);
    let others = [
        bf16(&format!("{experts}.gate_up_proj_bias"), &[3, 64]),
        bf16(&format!("{experts}.down_proj_bias"), &[3, 64]),
        bf16("model.layers.0.self_attn.q_proj.weight", &[64, 64]),
    ];
    let config = r#"{"model_type": "gpt_oss", "hidden_size": 64}"#;
    let all = [&[gate_up.clone(), down.clone()][..], &others].concat();
    let checkpoint = Checkpoint::single(all).aux("config.json", config);
    let base = workspace.write("base", &checkpoint);
    let request = request(&base, Format::Mxfp4GptOss);
    let plan = request.plan().unwrap();
    let weights = [gate_up, down];
    let mut expected: Vec<TensorData> = weights.iter().flat_map(block_floats::gpt_oss).collect();
    expected.extend(others.clone());
    assert_same(&tensors(&plan), expected.clone(), "gpt-oss");
    let config = read_path(&plan, "config.json").unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    assert_eq!(config["quantization_config"]["quant_method"], "mxfp4");
    let listed = &config["quantization_config"]["modules_to_not_convert"];
    assert_eq!(
        *listed,
        json!(["model.layers.0.self_attn.q_proj", "lm_head"])
    );

    let written = materialized(&workspace, "written", &request);
    let back = tensors(&in_dtype(&written, Precision::Bf16).unwrap());
    for weight in &weights {
        let found = &back[&weight.name];
        assert_eq!(found.shape, weight.shape);
        let numbers = decode(found.dtype, &found.bytes);
        let [e, columns, rows] = weight.shape[..] else {
            unreachable!()
        };
        let made = block_floats::gpt_oss(weight);
        for (i, value) in numbers.iter().enumerate() {
            let (expert, column, row) = (i / columns / rows, i / rows % columns, i % rows);
            let element = (expert * rows + row) * columns + column;
            let code = made[0].bytes[element / 2] >> (element % 2 * 4) & 15;
            let scale = f32::from(made[1].bytes[element / 32]) - 127.0;
            let expected = Format::Mxfp4GptOss.level(code) * scale.exp2();
            assert_eq!(*value, expected, "{i} of {e} experts");
        }
    }
    let again = ViewRequest::new(&base).with(|asked| {
        asked.quantize = QuantizeParams {
            scheme: Some("mxfp4".parse().unwrap()),
            ..QuantizeParams::default()
        }
    });
    assert_names(
        &again.plan().unwrap().report.notes.join("\n"),
        &["fused experts are split"],
    );
}

#[test]
fn only_gpt_oss_has_experts_of_its_dialect() {
    let workspace = Workspace::new();
    let base = workspace.write("base", &Checkpoint::single([bf16("a.weight", &[2, 32])]));
    let refused = request(&base, Format::Mxfp4GptOss).plan();
    assert_names(
        &message(refused),
        &["config.json", "gpt_oss", "quantize.dialect"],
    );
}

#[test]
fn config_declares_each_scheme_as_its_dialect_does() {
    let workspace = Workspace::new();
    let weights = [
        bf16("model.embed_tokens.weight", &[32, 64]),
        bf16("model.layers.0.mlp.down_proj.weight", &[32, 64]),
    ];
    let base = workspace.write("base", &Checkpoint::single(weights));
    let ignored = json!(["model.embed_tokens", "lm_head"]);
    for format in OF_MODULES {
        let plan = request(&base, format).plan().unwrap();
        let config = read_path(&plan, "config.json").unwrap();
        let config: Value = serde_json::from_slice(&config).unwrap();
        let declared = &config["quantization_config"];
        let other = read_path(&plan, "hf_quant_config.json");
        assert_eq!(declared["quant_method"], format.dialect(), "{format:?}");
        assert_eq!(declared["ignore"], ignored, "{format:?}");
        if format.dialect() == "modelopt" {
            let algorithm = match format {
                Format::Nvfp4Modelopt => "W4A16_NVFP4",
                Format::Mxfp8Modelopt => "MXFP8",
                _ => "mxfp4",
            };
            let other: Value = serde_json::from_slice(&other.unwrap()).unwrap();
            assert_eq!(declared["quant_algo"], algorithm);
            assert_eq!(other["quantization"]["quant_algo"], algorithm);
            assert_eq!(other["quantization"]["exclude_modules"], ignored);
            continue;
        }
        assert!(other.is_none(), "{format:?}");
        let group = &declared["config_groups"]["group_0"];
        let weights = &group["weights"];
        let (name, strategy, scales) = match format {
            Format::Nvfp4 => (
                "nvfp4-pack-quantized",
                "tensor_group",
                "torch.float8_e4m3fn",
            ),
            Format::Mxfp4 => ("mxfp4-pack-quantized", "group", "torch.uint8"),
            _ => ("mxfp8-quantized", "group", "torch.uint8"),
        };
        assert_eq!(group["format"], name);
        assert_eq!(weights["strategy"], strategy);
        assert_eq!(weights["scale_dtype"], scales);
        assert_eq!(weights["group_size"], format.group());
        assert_eq!(
            group["input_activations"].is_object(),
            format == Format::Mxfp8
        );
    }
}

#[test]
fn what_does_not_fit_stays_and_a_number_that_is_not_finite_is_named() {
    for format in OF_MODULES {
        let workspace = Workspace::new();
        let mut values = vec![1.0; 8 * 64];
        values[5 * 64 + 33] = f32::NAN;
        let bad = of_values(
            "model.layers.1.self_attn.q_proj.weight",
            Dtype::BF16,
            &[8, 64],
            &values,
        );
        let odd = bf16("model.layers.0.mlp.down_proj.weight", &[8, 72]);
        let joined = bf16("model.layers.1.self_attn.k_proj.weight", &[8, 64]);
        let base = workspace.write("base", &Checkpoint::single([bad, odd.clone(), joined]));
        let plan = request(&base, format).plan().unwrap();
        let warnings = plan.report.warnings.iter().map(ToString::to_string);
        let warnings: Vec<String> = warnings.collect();
        assert_names(
            &warnings.join("\n"),
            &["72 columns are not a multiple of the group"],
        );
        let error = read_file(&reader(&plan), plan.shards[0].entry).unwrap_err();
        assert_names(&error.to_string(), &["q_proj.weight", "5", "33"]);
    }
}

#[test]
fn every_scheme_is_measured_as_defined() {
    for format in OF_MODULES {
        for (seed, dtype) in DTYPES.into_iter().enumerate() {
            let workspace = Workspace::new();
            let weight = layer("mlp.down_proj", dtype, &[4000, 160], seed as u64);
            let base = workspace.write("base", &Checkpoint::single([weight.clone()]));
            let plan = request(&base, format).plan().unwrap();
            let measured = quantized_tensors(&plan);
            let found = inspect(&reader(&plan), &measured, 2, &()).unwrap().total;
            let values = decode(dtype, &weight.bytes);
            let made = block_floats::quantize(&values, format, amax(&weight));
            let (mut signal, mut noise, mut zeros) = (0.0, 0.0, 0);
            for (i, value) in values.iter().enumerate() {
                let level = format.level(made.codes[i]);
                let scale = f64::from(made.factors[i / format.group()]);
                let error = f64::from(*value) - f64::from(level) * scale;
                signal += f64::from(*value) * f64::from(*value);
                noise += error * error;
                zeros += u64::from(level == 0.0);
            }
            let case = format!("{format:?}, {dtype:?}");
            let is_close = |a: f64, b: f64| (a - b).abs() <= 1e-9 * b;
            assert!(is_close(found.signal, signal), "{case}");
            assert!(
                is_close(found.noise, noise),
                "{case}: {} {noise}",
                found.noise
            );
            assert_eq!(found.zero_codes, zeros, "{case}");
            assert_eq!(found.blocks, made.scales.len() as u64, "{case}");
            let bits = if format.is_fp4() { 4.0 } else { 8.0 } + 8.0 / format.group() as f64;
            let bits_found = found.bits_per_weight().unwrap();
            assert!((bits_found - bits).abs() < 1e-3, "{case}: {bits_found}");
        }
    }
}

#[test]
fn several_schemes_are_compared_in_one_pass_with_the_figures_of_each() {
    let workspace = Workspace::new();
    let weights: Vec<TensorData> = (0..3)
        .map(|seed| layer("mlp.down_proj", DTYPES[seed as usize], &[3000, 384], seed))
        .collect();
    let base = workspace.write("base", &Checkpoint::single(weights));
    let schemes = ["fp8-block", "fp8-channel", "int4", "nvfp4", "mxfp4"];
    let view = |scheme: &str| {
        let quantize = QuantizeParams {
            scheme: Some(scheme.parse().unwrap()),
            ..QuantizeParams::default()
        };
        let request = ViewRequest::new(&base).with(|asked| asked.quantize = quantize);
        request.plan().unwrap()
    };
    let plans = schemes.map(view);
    let candidates = plans.each_ref().map(|plan| Candidate {
        reader: reader(plan),
        tensors: quantized_tensors(plan),
    });
    let compared = compare(&candidates, 2, &()).unwrap();
    for ((scheme, plan), found) in schemes.iter().zip(&plans).zip(&compared) {
        let alone = inspect(&reader(plan), &quantized_tensors(plan), 2, &()).unwrap();
        assert_eq!(found.total, alone.total, "{scheme}");
        assert_eq!(found.tensors.len(), 3, "{scheme}");
    }
}
