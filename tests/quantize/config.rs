//! What config.json says, which weights are quantized together, and what is refused.

use ckptfs::ops::{Precision, QuantizeParams};
use ckptfs::quant::{Dialect, ScaleFormat, SchemeRequest};
use ckptfs::recipe::ViewRequest;
use safetensors::Dtype;
use serde_json::{Value, json};

use crate::common::checkpoint::{Checkpoint, TensorData, bf16, tensor};
use crate::common::readback::{read_path, tensors};
use crate::common::{Workspace, assert_names, materialized, message};
use crate::definition::{SCHEMES, Scheme};
use crate::{in_dtype, params, request};

fn layer(name: &str, shape: &[usize]) -> TensorData {
    bf16(&format!("model.layers.0.{name}.weight"), shape)
}

/// A layer of a model, its embedding and its head.
fn model() -> Vec<TensorData> {
    let projections = ["q_proj", "k_proj", "v_proj", "o_proj"];
    let attention = projections.map(|name| layer(&format!("self_attn.{name}"), &[16, 128]));
    let mut tensors = vec![
        bf16("model.embed_tokens.weight", &[32, 128]),
        bf16("model.norm.weight", &[128]),
        bf16("lm_head.weight", &[32, 128]),
        layer("mlp.gate_proj", &[128, 128]),
        layer("mlp.up_proj", &[128, 128]),
        layer("mlp.down_proj", &[128, 128]),
    ];
    tensors.extend(attention);
    tensors
}

fn by_rules(base: &std::path::Path, scheme: Scheme) -> ViewRequest {
    let quantize = QuantizeParams {
        patterns: Vec::new(),
        ..params(scheme, "")
    };
    ViewRequest::new(base).with(|asked| asked.quantize = quantize)
}

fn declared(request: &ViewRequest) -> Value {
    let config = read_path(&request.plan().unwrap(), "config.json").unwrap();
    serde_json::from_slice::<Value>(&config).unwrap()["quantization_config"].clone()
}

#[test]
fn config_declares_weights_and_activations_and_ignores_the_rest() {
    let workspace = Workspace::new();
    let base = workspace.write("base", &Checkpoint::single(model()));
    for (scheme, format, weights, activations) in [
        (
            Scheme::Fp8Block,
            "float-quantized",
            (8, "float", "block"),
            Some((8, "float", "group")),
        ),
        (
            Scheme::Fp8Channel,
            "float-quantized",
            (8, "float", "channel"),
            Some((8, "float", "token")),
        ),
        (
            Scheme::Int8Channel,
            "int-quantized",
            (8, "int", "channel"),
            Some((8, "int", "token")),
        ),
        (Scheme::Int4, "pack-quantized", (4, "int", "group"), None),
        (
            Scheme::Int4Asymmetric,
            "pack-quantized",
            (4, "int", "group"),
            None,
        ),
    ] {
        let declared = declared(&by_rules(&base, scheme));
        let of = |arguments: &Value| {
            arguments.is_object().then(|| {
                let text = |key: &str| arguments[key].as_str().unwrap().to_owned();
                (
                    arguments["num_bits"].as_u64().unwrap(),
                    text("type"),
                    text("strategy"),
                )
            })
        };
        let expected = |(bits, kind, strategy): (u64, &str, &str)| {
            (bits, kind.to_owned(), strategy.to_owned())
        };
        let group = &declared["config_groups"]["group_0"];
        assert_eq!(declared["quant_method"], "compressed-tensors");
        assert_eq!(declared["quantization_status"], "compressed");
        assert_eq!(declared["format"], format);
        assert_eq!(group["format"], format);
        assert_eq!(group["targets"], json!(["Linear"]));
        assert_eq!(of(&group["weights"]), Some(expected(weights)), "{scheme:?}");
        assert_eq!(
            of(&group["input_activations"]),
            activations.map(expected),
            "{scheme:?}"
        );
        assert_eq!(
            group["weights"]["symmetric"],
            scheme != Scheme::Int4Asymmetric
        );
        assert_eq!(declared["ignore"], json!(["model.embed_tokens", "lm_head"]));
    }
}

#[test]
fn a_scheme_selects_by_the_rules_unless_something_else_selects() {
    let workspace = Workspace::new();
    let base = workspace.write("base", &Checkpoint::single(model()));
    let count = |request: &ViewRequest| {
        let found = tensors(&request.plan().unwrap());
        found
            .keys()
            .filter(|name| name.ends_with("_packed"))
            .count()
    };
    assert_eq!(count(&by_rules(&base, Scheme::Int4)), 7);
    let pattern = params(Scheme::Int4, ".*o_proj.*");
    let by_pattern = ViewRequest::new(&base).with(|asked| asked.quantize = pattern);
    assert_eq!(count(&by_pattern), 1);
}

#[test]
fn a_reference_selects_in_any_scheme() {
    let workspace = Workspace::new();
    let base = workspace.write("base", &Checkpoint::single(model()));
    let only_down = params(Scheme::Int8Channel, ".*down_proj.*");
    let request = ViewRequest::new(&base).with(|asked| asked.quantize = only_down);
    for (name, request) in [
        ("dense", request),
        (
            "packed",
            ViewRequest::new(&base)
                .with(|asked| asked.quantize = params(Scheme::Int4, ".*down_proj.*")),
        ),
    ] {
        let reference = materialized(&workspace, name, &request);
        let quantize = QuantizeParams {
            scheme: Some("fp8-channel".parse().unwrap()),
            references: vec![reference.into()],
            ..QuantizeParams::default()
        };
        let view = ViewRequest::new(&base).with(|asked| asked.quantize = quantize);
        let found = tensors(&view.plan().unwrap());
        let coded: Vec<&str> = found
            .values()
            .filter(|tensor| tensor.dtype == Dtype::F8_E4M3)
            .map(|tensor| &*tensor.name)
            .collect();
        assert_eq!(coded, ["model.layers.0.mlp.down_proj.weight"], "{name}");
    }
}

#[test]
fn rules_leave_what_does_not_fit_together_with_what_engines_join_it_to() {
    let workspace = Workspace::new();
    let tensors_of_layer = [
        layer("self_attn.q_proj", &[16, 128]),
        layer("self_attn.k_proj", &[12, 128]),
        layer("self_attn.v_proj", &[16, 128]),
        layer("self_attn.o_proj", &[16, 96]),
        layer("mlp.down_proj", &[16, 128]),
    ];
    let base = workspace.write("base", &Checkpoint::single(tensors_of_layer));
    let plan = by_rules(&base, Scheme::Int4Asymmetric).plan().unwrap();
    let kept: Vec<String> = tensors(&plan)
        .into_keys()
        .filter(|name| name.ends_with(".weight"))
        .collect();
    let names = ["k_proj", "o_proj", "q_proj", "v_proj"];
    assert_eq!(
        kept,
        names.map(|name| format!("model.layers.0.self_attn.{name}.weight"))
    );
    let warnings: Vec<String> = plan
        .report
        .warnings
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_names(
        &warnings.join("\n"),
        &[
            "k_proj.weight (its 12 rows are not a multiple of 8",
            "o_proj.weight (its 96 columns are not a multiple of the group of 128",
            "left unquantized, because engines load them as one layer",
        ],
    );
    let named = request(&base, Scheme::Int4Asymmetric).plan();
    assert_names(&message(named), &["selected by name", "12 rows"]);
}

#[test]
fn fused_experts_are_split_and_the_plan_says_so() {
    let workspace = Workspace::new();
    let experts = [
        bf16("model.layers.0.mlp.experts.gate_up_proj", &[2, 64, 128]),
        bf16("model.layers.0.mlp.experts.down_proj", &[2, 128, 128]),
    ];
    let config = r#"{"model_type": "qwen3_moe", "hidden_size": 128, "moe_intermediate_size": 32, "num_experts": 2}"#;
    let experts = [
        experts[0].clone(),
        TensorData::new(
            "model.layers.0.mlp.experts.down_proj",
            Dtype::BF16,
            &[2, 128, 32],
            experts[1].bytes[..2 * 2 * 128 * 32].to_vec(),
        ),
    ];
    let base = workspace.write(
        "base",
        &Checkpoint::single(experts).aux("config.json", config),
    );
    let plan = by_rules(&base, Scheme::Int8Channel).plan().unwrap();
    assert_names(&plan.report.notes.join("\n"), &["fused experts are split"]);
    let found = tensors(&plan);
    for expert in 0..2 {
        for projection in ["gate_proj", "up_proj", "down_proj"] {
            let name = format!("model.layers.0.mlp.experts.{expert}.{projection}.weight");
            assert_eq!(found[&name].dtype, Dtype::I8, "{name}");
            assert!(found.contains_key(&format!("{name}_scale")), "{name}");
        }
    }
}

#[test]
fn a_view_has_one_quantization() {
    let workspace = Workspace::new();
    let base = workspace.write("base", &Checkpoint::single(model()));
    for scheme in SCHEMES {
        let first = materialized(&workspace, scheme.name(), &by_rules(&base, scheme));
        let again = by_rules(&first, Scheme::Int4).plan();
        assert_names(
            &message(again),
            &["config.json", "compressed-tensors", "dtype: bf16"],
        );
        let both =
            by_rules(&first, Scheme::Int4).with(|asked| asked.dtype.to = Some(Precision::Bf16));
        let found = tensors(&both.plan().unwrap());
        assert!(found.contains_key("model.layers.0.mlp.down_proj.weight_packed"));
    }
}

#[test]
fn what_does_not_go_with_a_scheme_is_refused() {
    let workspace = Workspace::new();
    let base = workspace.write("base", &Checkpoint::single(model()));
    let refused = |scheme: &str, edit: fn(&mut QuantizeParams)| {
        let mut quantize = QuantizeParams {
            scheme: Some(scheme.parse().unwrap()),
            ..QuantizeParams::default()
        };
        edit(&mut quantize);
        let request = ViewRequest::new(&base).with(|asked| asked.quantize = quantize);
        message(request.plan())
    };
    let format = refused("int4", |asked| {
        asked.scale_format = Some(ScaleFormat::Ue8m0)
    });
    assert_names(&format, &["int4", "quantize.scale_fmt"]);
    let dialect = refused("int4", |asked| asked.dialect = Some(Dialect::Fp8));
    assert_names(
        &dialect,
        &["int4", "compressed-tensors", "quantize.dialect"],
    );
    let both = refused("fp8-block", |asked| {
        asked.dialect = Some(Dialect::CompressedTensors);
        asked.scale_format = Some(ScaleFormat::Float32);
    });
    assert_names(&both, &["compressed-tensors", "quantize.scale_fmt"]);
    for (text, parts) in [
        ("int5", &["int5", "int4", "fp8-channel"][..]),
        ("int4:group=64", &["128 or 32", "64"]),
        ("int4:odd", &["odd", "asymmetric"]),
        ("fp8-channel:group=32", &["no options"]),
    ] {
        assert_names(&message(text.parse::<SchemeRequest>()), parts);
    }
}

#[test]
fn what_is_missing_or_does_not_fit_is_named() {
    let workspace = Workspace::new();
    let base = workspace.write("base", &Checkpoint::single(model()));
    let plan = by_rules(&base, Scheme::Int4).plan().unwrap();
    let view = tensors(&plan);
    let config = read_path(&plan, "config.json").unwrap();
    let config = String::from_utf8(config).unwrap();
    let name = "model.layers.0.mlp.down_proj.weight";
    let broken = |to: &str, edit: &dyn Fn(&mut Vec<TensorData>)| {
        let mut tensors: Vec<TensorData> = view.values().cloned().collect();
        edit(&mut tensors);
        let checkpoint = Checkpoint::single(tensors).aux("config.json", &config);
        message(in_dtype(&workspace.write(to, &checkpoint), Precision::Bf16))
    };
    for suffix in ["_scale", "_shape"] {
        let companion = format!("{name}{suffix}");
        let text = broken(suffix, &|tensors| tensors.retain(|t| t.name != companion));
        assert_names(&text, &[name, &companion]);
    }
    let scale = format!("{name}_scale");
    let text = broken("scale", &|tensors| {
        tensors.retain(|t| t.name != scale);
        tensors.push(tensor(&scale, Dtype::BF16, &[128, 2], 1));
    });
    assert_names(&text, &["weight_packed", "[128, 2]"]);
    let shape = format!("{name}_shape");
    let text = broken("shape", &|tensors| {
        tensors.retain(|t| t.name != shape);
        let dims = [128i64, 127].iter().flat_map(|n| n.to_le_bytes()).collect();
        tensors.push(TensorData::new(&shape, Dtype::I64, &[2], dims));
    });
    assert_names(&text, &["weight_packed", "128 x 127"]);
}
