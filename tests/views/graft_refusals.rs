//! What is refused of a graft, and what its plan warns about: by code, and by the words that somebody
//! needs.

use ckptfs::error::{Code, Warning};
use ckptfs::ops::{Precision, RuleSet};
use ckptfs::recipe::{Places, ViewRequest};
use safetensors::Dtype;
use serde_json::Value;

use crate::common::checkpoint::{Checkpoint, TensorData, bf16, of_values, tensor};
use crate::common::readback::{read_path, tensors};
use crate::common::{Workspace, assert_names};
use crate::graft::{FP8_CONFIG, fp8, request};

const WEIGHT: &str = "model.layers.0.mlp.down_proj.weight";
const SCALES: &str = "model.layers.0.mlp.down_proj.weight_scale_inv";

fn one(tensors: impl IntoIterator<Item = TensorData>) -> Checkpoint {
    Checkpoint::single(tensors).config("{}")
}

fn quantized() -> Checkpoint {
    Checkpoint::single(fp8(WEIGHT, &[128, 256], 1)).config(FP8_CONFIG)
}

fn numbers() -> TensorData {
    bf16(WEIGHT, &[128, 256])
}

/// Asserts that `graft` on `base` is refused with `code` and that the message has `parts`.
fn refused(base: Checkpoint, graft: Checkpoint, names: Option<&str>, code: Code, parts: &[&str]) {
    let workspace = Workspace::new();
    let error = request(&workspace, &base, &graft, names)
        .plan()
        .unwrap_err();
    assert_eq!(error.code(), code, "{error}");
    assert_names(&error.to_string(), parts);
}

fn warnings(base: Checkpoint, graft: Checkpoint, names: Option<&str>) -> Vec<Warning> {
    let workspace = Workspace::new();
    let plan = request(&workspace, &base, &graft, names).plan();
    plan.unwrap().report.warnings
}

/// Asserts that there is one warning, of `code`, and that it has `parts`.
fn warned(base: Checkpoint, graft: Checkpoint, names: Option<&str>, code: Code, parts: &[&str]) {
    let warnings = warnings(base, graft, names);
    let [warning] = &warnings[..] else {
        panic!("{warnings:?}");
    };
    assert_eq!(warning.code(), code, "{warning}");
    assert_names(warning, parts);
}

#[test]
fn another_shape_is_refused_with_both_shapes_and_the_way_out() {
    let embedding = |rows| bf16("model.embed_tokens.weight", &[rows, 16]);
    let head = |rows| bf16("lm_head.weight", &[rows, 16]);
    refused(
        one([embedding(100), head(100)]),
        one([embedding(102), head(102)]),
        None,
        Code::GraftMismatch,
        &[
            "graft",
            "model.embed_tokens.weight",
            "[102, 16]",
            "[100, 16]",
            "lm_head.weight",
            "regular expression",
            "start from the graft",
        ],
    );
    // What is not asked for may have any shape.
    let base = one([embedding(100), bf16("model.norm.weight", &[16])]);
    let graft = one([embedding(102), bf16("model.norm.weight", &[16])]);
    assert_eq!(warnings(base, graft, Some("model.norm.weight")), [""; 0]);
}

#[test]
fn another_dtype_is_a_warning_unless_all_are_given_in_one() {
    let f32 = || tensor("a.weight", Dtype::F32, &[4, 4], 1);
    let base = || one([bf16("a.weight", &[4, 4])]);
    let parts = ["a.weight", "BF16", "F32", "use dtype"];
    warned(base(), one([f32()]), None, Code::MixedDtypes, &parts);
    let workspace = Workspace::new();
    let request = request(&workspace, &base(), &one([f32()]), None);
    let request = request.with(|asked| asked.dtype.to = Some(Precision::Bf16));
    assert_eq!(request.plan().unwrap().report.warnings, [""; 0]);
}

#[test]
fn a_graft_that_replaces_nothing_is_a_warning() {
    let base = || one([bf16("a.weight", &[4, 4])]);
    let other = || one([bf16("mtp.fc.weight", &[4, 4])]);
    let parts = ["mtp.fc.weight", "the view has none", "use patch: "];
    warned(base(), other(), None, Code::NoEffect, &parts);
    warned(base(), other(), Some("mtp.*"), Code::NoEffect, &parts);
    let parts = [
        "graft:fc",
        "it matches no tensor name as a whole",
        r"did you mean .*fc\..*?",
    ];
    warned(base(), other(), Some("fc"), Code::NoMatch, &parts);
}

#[test]
fn a_bad_expression_is_refused_where_it_is_asked() {
    let workspace = Workspace::new();
    let recipe = workspace.path().join("recipe.yml");
    workspace.write("base", &one([bf16("a.weight", &[4])]));
    for (graft, code, parts) in [
        (
            "{path: base, names: '('}",
            Code::BadPattern,
            &["recipe.yml:2", "graft"][..],
        ),
        ("{path: base, name: x}", Code::RecipeKey, &["name"]),
        ("{path: base, names: [x]}", Code::RecipeValue, &["names"]),
    ] {
        std::fs::write(&recipe, format!("base: base\nview: {{graft: {graft}}}\n")).unwrap();
        let error = ViewRequest::from_recipe(&recipe, &Places::default()).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert_names(&error.to_string(), parts);
    }
}

#[test]
fn scales_move_with_their_weight_only() {
    refused(
        quantized(),
        quantized(),
        Some(".*_scale_inv"),
        Code::ScalesSeparated,
        &[SCALES, WEIGHT, "let the expression match the weight too"],
    );
    let [_, scales] = fp8(WEIGHT, &[128, 256], 1);
    let parts = [SCALES, WEIGHT, "which the graft does not have"];
    refused(
        quantized(),
        one([scales]),
        None,
        Code::MissingWeight,
        &parts,
    );
}

#[test]
fn codes_whose_scales_are_not_known_are_refused() {
    let codes = || tensor(WEIGHT, Dtype::F8_E4M3, &[128, 256], 1);
    let per_tensor = || {
        let scale = of_values(&format!("{WEIGHT}_scale"), Dtype::F32, &[1], &[1.0]);
        one([codes(), scale])
    };
    let parts = [WEIGHT, SCALES, "graft other tensors"];
    refused(
        one([numbers()]),
        per_tensor(),
        None,
        Code::MissingScales,
        &parts,
    );
    // Those that go are known by their names.
    let workspace = Workspace::new();
    let plan = request(&workspace, &per_tensor(), &one([numbers()]), None);
    let found = tensors(&plan.plan().unwrap());
    assert_eq!(found.into_values().collect::<Vec<_>>(), [numbers()]);
    // Nor can they stay beside weights that config.json would have to declare.
    let other = "model.layers.1.mlp.down_proj.weight";
    let base = one([tensor(other, Dtype::F8_E4M3, &[128, 128], 1), numbers()]);
    refused(base, quantized(), None, Code::MissingScales, &[other]);
}

#[test]
fn scales_that_do_not_fit_their_weight_are_refused() {
    let [codes, _] = fp8(WEIGHT, &[128, 256], 1);
    let scales = |shape: &[usize]| tensor(SCALES, Dtype::F32, shape, 1);
    let graft = Checkpoint::single([codes, scales(&[2, 2])]).config(FP8_CONFIG);
    refused(
        quantized(),
        graft,
        None,
        Code::BadScales,
        &["[2, 2]", "[1, 2]"],
    );
    let graft = one([numbers(), scales(&[1, 2])]);
    refused(
        quantized(),
        graft,
        None,
        Code::BadScales,
        &[SCALES, WEIGHT, "BF16"],
    );
}

#[test]
fn two_block_sizes_in_one_view_are_refused() {
    let config = FP8_CONFIG.replace("[128, 128]", "[64, 64]");
    let [codes, _] = fp8(WEIGHT, &[128, 256], 1);
    let scales = tensor(SCALES, Dtype::F32, &[2, 4], 1);
    let graft = || Checkpoint::single([codes.clone(), scales.clone()]).config(&config);
    refused(
        quantized(),
        graft(),
        None,
        Code::OtherQuantization,
        &[WEIGHT, "64 x 64", "128 x 128", "dequantize"],
    );
    // Where the base is not quantized, config.json declares the graft's.
    let workspace = Workspace::new();
    let plan = request(&workspace, &one([numbers()]), &graft(), None).plan();
    let plan = plan.unwrap();
    let config: Value = serde_json::from_slice(&read_path(&plan, "config.json").unwrap()).unwrap();
    let declared = &config["quantization_config"]["weight_block_size"];
    assert_eq!(*declared, serde_json::json!([64, 64]));
}

#[test]
fn codes_of_two_dtypes_in_one_view_are_refused() {
    let other = "model.layers.1.mlp.down_proj.weight";
    let both = [fp8(WEIGHT, &[128, 128], 1), fp8(other, &[128, 128], 1)].concat();
    let [codes, scales] = fp8(WEIGHT, &[128, 128], 1);
    let codes = TensorData {
        dtype: Dtype::F8_E5M2,
        ..codes
    };
    refused(
        Checkpoint::single(both).config(FP8_CONFIG),
        Checkpoint::single([codes, scales]).config(FP8_CONFIG),
        None,
        Code::OtherQuantization,
        &[WEIGHT, "F8_E5M2", "F8_E4M3"],
    );
}

#[test]
fn of_another_quantization_only_plain_modules_are_grafted() {
    let gptq = r#"{"quantization_config": {"quant_method": "gptq", "bits": 4}}"#;
    let packed = |seed| {
        [
            tensor("model.layers.0.q_proj.qweight", Dtype::I32, &[2, 8], seed),
            tensor("model.layers.0.q_proj.scales", Dtype::F16, &[1, 8], seed),
            tensor("model.norm.weight", Dtype::BF16, &[16], seed),
        ]
    };
    let checkpoint = |seed| Checkpoint::single(packed(seed)).config(gptq);
    refused(
        checkpoint(1),
        checkpoint(2),
        None,
        Code::OtherQuantization,
        &["q_proj", "gptq", "graft other tensors"],
    );
    let workspace = Workspace::new();
    let plan = request(&workspace, &checkpoint(1), &checkpoint(2), Some(".*norm.*"));
    let found = tensors(&plan.plan().unwrap());
    assert_eq!(found["model.norm.weight"], packed(2)[2]);
    assert_eq!(found["model.layers.0.q_proj.scales"], packed(1)[1]);

    let compressed = r#"{"quantization_config": {"quant_method": "compressed-tensors"}}"#;
    let scale = of_values(
        &format!("{WEIGHT}_scale"),
        Dtype::BF16,
        &[128, 1],
        &[1.0; 128],
    );
    let base = Checkpoint::single([tensor(WEIGHT, Dtype::F8_E4M3, &[128, 256], 1), scale]);
    refused(
        base.config(compressed),
        one([numbers()]),
        None,
        Code::OtherQuantization,
        &[WEIGHT, "the base declares", "compressed-tensors"],
    );
    let modelopt = one([numbers()]).aux("hf_quant_config.json", "{}");
    let other = one([bf16("model.layers.0.mlp.down_proj.odd", &[4]), numbers()]);
    refused(
        modelopt,
        other,
        None,
        Code::OtherQuantization,
        &["hf_quant_config.json"],
    );
}

#[test]
fn a_layer_that_engines_load_as_one_is_grafted_as_one() {
    let name = |part: &str| format!("model.layers.0.self_attn.{part}_proj.weight");
    let parts = ["q", "k", "v"];
    let base = || Checkpoint::single(parts.map(|part| bf16(&name(part), &[128, 128]))).config("{}");
    let graft = || {
        let tensors = parts
            .iter()
            .flat_map(|part| fp8(&name(part), &[128, 128], 1));
        Checkpoint::single(tensors).config(FP8_CONFIG)
    };
    let (q, k) = (name("q"), name("k"));
    refused(
        base(),
        graft(),
        Some(".*q_proj.*"),
        Code::MixedLayer,
        &[&q, &k, "engines load them as one layer", "dtype: bf16"],
    );
    assert_eq!(warnings(base(), graft(), None), [""; 0]);
    // Nothing is mixed in the end where all is dequantized, or the rest is quantized too.
    let workspace = Workspace::new();
    let asked = request(&workspace, &base(), &graft(), Some(".*q_proj.*"));
    let numbers = asked
        .clone()
        .with(|asked| asked.dtype.to = Some(Precision::Bf16));
    let plan = numbers.plan().unwrap();
    assert_eq!(tensors(&plan).len(), 3);
    assert!(
        !String::from_utf8(read_path(&plan, "config.json").unwrap())
            .unwrap()
            .contains("quantization")
    );
    let fp8 = asked.with(|asked| asked.quantize.rules = Some(RuleSet::Exact));
    assert_eq!(tensors(&fp8.plan().unwrap()).len(), 6);
}

#[test]
fn without_a_config_that_could_declare_it_a_quantized_weight_is_refused() {
    let base = Checkpoint::single([numbers()]).without_config();
    refused(
        base,
        quantized(),
        None,
        Code::BadConfig,
        &["config.json", "missing"],
    );
}

#[test]
fn scales_that_are_not_powers_of_two_are_not_declared_to_be() {
    let config = FP8_CONFIG.replace("\"fmt\"", "\"scale_fmt\": \"ue8m0\", \"fmt\"");
    let workspace = Workspace::new();
    let other = "model.layers.1.mlp.down_proj.weight";
    let both = [fp8(WEIGHT, &[128, 128], 0), fp8(other, &[128, 256], 0)].concat();
    let base = Checkpoint::single(both).config(&config);
    let plan = |graft: Checkpoint| request(&workspace, &base, &graft, None).plan().unwrap();
    // A scale of 0.5 each, then one of 3.
    let powers = Checkpoint::single(fp8(WEIGHT, &[128, 128], 0)).config(FP8_CONFIG);
    assert_eq!(
        read_path(&plan(powers), "config.json").unwrap(),
        config.as_bytes()
    );
    let others = Checkpoint::single(fp8(WEIGHT, &[128, 128], 1)).config(FP8_CONFIG);
    let text = read_path(&plan(others), "config.json").unwrap();
    let found: Value = serde_json::from_slice(&text).unwrap();
    let expected: Value = serde_json::from_str(FP8_CONFIG).unwrap();
    assert_eq!(found, expected);
}

#[test]
fn lists_of_modules_under_other_keys_become_one() {
    let module = WEIGHT.strip_suffix(".weight").unwrap();
    let listed =
        format!(r#""ignored_layers": ["{module}", "model.visual"], "modules_to_not_convert"#);
    let config = FP8_CONFIG.replace("\"modules_to_not_convert", &listed);
    let other = "model.layers.1.mlp.down_proj.weight";
    let base = fp8(other, &[128, 128], 0).into_iter().chain([numbers()]);
    let base = Checkpoint::single(base).config(&config);
    let workspace = Workspace::new();
    let plan = request(&workspace, &base, &quantized(), None)
        .plan()
        .unwrap();
    let text = read_path(&plan, "config.json").unwrap();
    let found: Value = serde_json::from_slice(&text).unwrap();
    let declared = &found["quantization_config"];
    assert_eq!(declared["ignored_layers"], Value::Null);
    let mut listed: Vec<&str> = declared["modules_to_not_convert"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    listed.sort_unstable();
    assert_eq!(listed, ["lm_head", "model.visual"]);
}

#[test]
fn a_weight_that_is_no_longer_quantized_is_noted_and_its_scales_are_counted() {
    let workspace = Workspace::new();
    let other = "model.layers.1.mlp.down_proj.weight";
    let both = [fp8(WEIGHT, &[128, 256], 1), fp8(other, &[128, 128], 0)].concat();
    let base = Checkpoint::single(both).config(FP8_CONFIG);
    let plan = request(&workspace, &base, &one([numbers()]), None)
        .plan()
        .unwrap();
    assert_eq!(plan.report.sources[1].graft.as_ref().unwrap().removed, 1);
    let [note] = &plan.report.notes[..] else {
        panic!("{:?}", plan.report.notes);
    };
    assert_names(
        note,
        &["unquantized weights replace quantized ones", WEIGHT],
    );
}

#[test]
fn a_graft_of_another_architecture_is_a_warning() {
    let config = |kind: &str| {
        one([bf16("a.weight", &[4])]).config(&format!(r#"{{"model_type": "{kind}"}}"#))
    };
    let parts = ["model_type", "in the graft", "\"a\"", "\"b\""];
    warned(
        config("a"),
        config("b"),
        None,
        Code::OtherArchitecture,
        &parts,
    );
}
