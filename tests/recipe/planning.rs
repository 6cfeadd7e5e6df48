//! Which tensor of which model each tensor of a merge is.

use crate::common::checkpoint::{TensorData, bf16};
use crate::common::{Workspace, assert_names, readback};
use crate::fixture::{LAYERS, error, model, names, plan, random, shown, workspace};

fn renumbered(tensor: &TensorData, from: u64, to: u64) -> (String, &[u8]) {
    let name = tensor
        .name
        .replace(&format!(".{from}."), &format!(".{to}."));
    (name, &tensor.bytes)
}

#[test]
fn slices_renumber_layers_and_cost_nothing() {
    let workspace = workspace();
    let recipe = "
merge_method: passthrough
slices:
  - sources: [{model: a, layer_range: [0, 3]}]
  - sources: [{model: b, layer_range: [1, 3]}]
  - sources: [{model: a, layer_range: [2, 3]}]
";
    let plan = plan(&workspace, recipe).unwrap();
    let tensors = readback::tensors(&plan);
    let (a, b) = (random("a"), random("b"));
    let mut expected = 0;
    let layers = [(&a, 0), (&a, 1), (&a, 2), (&b, 1), (&b, 2), (&a, 2)];
    for (to, (model, from)) in layers.into_iter().enumerate() {
        for part in ["mlp.down_proj", "self_attn.q_proj", "input_layernorm"] {
            let source = model.get(&format!("model.layers.{from}.{part}.weight"));
            let (name, bytes) = renumbered(source, from, to as u64);
            assert_eq!(&*tensors[&name].bytes, bytes, "{name}");
            expected += 1;
        }
    }
    // What stands before the layers is the first slice's, what stands behind them the last one's.
    for name in [
        "model.embed_tokens.weight",
        "model.norm.weight",
        "lm_head.weight",
    ] {
        assert_eq!(tensors[name].bytes, a.get(name).bytes, "{name}");
    }
    assert_eq!(tensors.len(), expected + 3);
    let planned = plan.shards.iter().flat_map(|shard| &shard.tensors);
    assert!(planned.clone().all(|tensor| !tensor.computed));
    let layer_order: Vec<u64> = planned
        .filter_map(|tensor| tensor.name.split('.').nth(2)?.parse().ok())
        .collect();
    assert_eq!(layer_order.len(), expected);
}

#[test]
fn what_stands_behind_the_layers_comes_from_the_last_slice() {
    let workspace = workspace();
    let recipe = "
merge_method: passthrough
base_model: a
slices:
  - sources: [{model: a, layer_range: [0, 1]}]
  - sources: [{model: b, layer_range: [0, 1]}]
";
    let tensors = shown(&workspace, recipe);
    let (a, b) = (random("a"), random("b"));
    let embedding = "model.embed_tokens.weight";
    assert_eq!(tensors[embedding].bytes, a.get(embedding).bytes);
    for name in ["model.norm.weight", "lm_head.weight"] {
        assert_eq!(tensors[name].bytes, b.get(name).bytes, "{name}");
    }
}

#[test]
fn one_model_as_it_is_stays_whole_files() {
    let workspace = workspace();
    let plan = plan(
        &workspace,
        "merge_method: passthrough\nmodels: [{model: a}]\n",
    )
    .unwrap();
    assert_eq!(plan.shards.len(), 1);
    assert!(plan.shards[0].whole_file.is_some());
}

#[test]
fn experts_inside_of_layers_keep_their_numbers() {
    let workspace = Workspace::new();
    let name = |layer, expert| format!("model.layers.{layer}.mlp.experts.{expert}.up_proj.weight");
    let tensors = (0..LAYERS).flat_map(|layer| (0..2).map(move |expert| name(layer, expert)));
    let tensors: Vec<TensorData> = tensors.map(|name| bf16(&name, &[2, 2])).collect();
    workspace.write("moe", &model(tensors.clone()));
    let recipe = "
merge_method: passthrough
slices: [{sources: [{model: moe, layer_range: [3, 4]}]}]
";
    let merged = shown(&workspace, recipe);
    assert_eq!(merged.len(), 2);
    for expert in 0..2 {
        let source = tensors.iter().find(|tensor| tensor.name == name(3, expert));
        assert_eq!(merged[&name(0, expert)].bytes, source.unwrap().bytes);
    }
}

#[test]
fn a_tensor_that_one_model_lacks_is_made_of_the_others_and_the_plan_says_so() {
    let workspace = workspace();
    let mut tensors: Vec<TensorData> = random("a").shards[0].tensors.clone();
    tensors.push(bf16("model.layers.2.self_attn.q_proj.bias", &[4]));
    workspace.write("biased", &model(tensors));
    let recipe = "
merge_method: linear
models: [{model: biased}, {model: b}]
parameters: {weight: 1}
";
    let plan = plan(&workspace, recipe).unwrap();
    let merged = readback::tensors(&plan);
    let bias = "model.layers.2.self_attn.q_proj.bias";
    assert_eq!(merged[bias].bytes, bf16(bias, &[4]).bytes, "a mean of one");
    let warnings = plan.report.warnings.join("\n");
    assert_names(&warnings, &["not every model has", bias]);
}

#[test]
fn whole_numbers_must_agree_and_are_kept() {
    let workspace = Workspace::new();
    let position_ids = |seed| {
        let mut tensors: Vec<TensorData> = names(LAYERS).iter().map(|n| bf16(n, &[2])).collect();
        let ids =
            crate::common::checkpoint::tensor("position_ids", safetensors::Dtype::I64, &[3], seed);
        tensors.push(ids);
        model(tensors)
    };
    workspace.write("a", &position_ids(1));
    workspace.write("b", &position_ids(1));
    workspace.write("c", &position_ids(2));
    let recipe = |other| {
        format!(
            "merge_method: linear\nmodels: [{{model: a}}, {{model: {other}}}]\nparameters: {{weight: 0.5}}\n"
        )
    };
    let merged = shown(&workspace, &recipe("b"));
    assert_eq!(
        merged["position_ids"].bytes,
        position_ids(1).get("position_ids").bytes
    );
    assert_names(
        &error(&workspace, &recipe("c")),
        &["position_ids", "must be the same"],
    );
}

#[test]
fn modules_are_told_by_the_prefixes_of_their_layers() {
    let workspace = Workspace::new();
    let names = [
        "model.layers.0.w",
        "model.layers.1.w",
        "vision.blocks.0.w",
        "proj.weight",
    ];
    workspace.write(
        "a",
        &model(names.iter().map(|name| bf16(name, &[2])).collect()).without_config(),
    );
    let slices =
        "merge_method: passthrough\nslices: [{sources: [{model: a, layer_range: [0, 1]}]}]\n";
    assert_names(
        &error(&workspace, slices),
        &[
            "recipe.yml:2",
            "several prefixes",
            "default, model.layers, vision.blocks",
        ],
    );
    let modules = "
merge_method: passthrough
modules:
  model.layers: {slices: [{sources: [{model: a, layer_range: [1, 2]}]}]}
  vision.blocks: {models: [{model: a}]}
";
    assert_names(
        &error(&workspace, modules),
        &["\"default\"", "would be lost"],
    );
    let merged = shown(
        &workspace,
        &format!("{modules}  default: {{models: [{{model: a}}]}}\n"),
    );
    let found: Vec<&str> = merged.keys().map(String::as_str).collect();
    assert_eq!(
        found,
        ["model.layers.0.w", "proj.weight", "vision.blocks.0.w"]
    );
    assert_eq!(
        merged["model.layers.0.w"].bytes,
        bf16("model.layers.1.w", &[2]).bytes
    );
}

#[test]
fn layers_that_predict_further_tokens_belong_to_no_slice() {
    let workspace = Workspace::new();
    let mut tensors: Vec<TensorData> = names(LAYERS).iter().map(|name| bf16(name, &[2])).collect();
    tensors.push(bf16("model.layers.4.eh_proj.weight", &[2]));
    workspace.write("a", &model(tensors));
    let whole = "merge_method: passthrough\nmodels: [{model: a}]\n";
    assert!(shown(&workspace, whole).contains_key("model.layers.4.eh_proj.weight"));
    let slices =
        "merge_method: passthrough\nslices: [{sources: [{model: a, layer_range: [0, 4]}]}]\n";
    let plan = plan(&workspace, slices).unwrap();
    assert_names(
        &plan.report.warnings.join("\n"),
        &["left out", "model.layers.4.eh_proj.weight"],
    );
    assert_eq!(readback::tensors(&plan).len(), names(LAYERS).len());
}
