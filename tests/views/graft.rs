//! Grafted views: tensors of another checkpoint in the places of the base's, against the definition.

use std::collections::{BTreeMap, BTreeSet};

use ckptfs::catalog::Role;
use ckptfs::ops::GraftRequest;
use ckptfs::provenance::{Counts, Fate, Lineage};
use ckptfs::recipe::{Places, Plan, Shards, ViewRequest};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use safetensors::Dtype;
use serde_json::Value;

use crate::common::Workspace;
use crate::common::checkpoint::{Checkpoint, TensorData, bf16, of_values, tensor};
use crate::common::readback::{read_all, read_path, tensors};

pub(crate) const FP8_CONFIG: &str = r#"{
  "architectures": ["TestForCausalLM"],
  "quantization_config": {
    "quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3",
    "weight_block_size": [128, 128], "modules_to_not_convert": ["lm_head"]
  }
}"#;

/// A view of `base` with `graft` on it, of the names that `names` matches.
pub(crate) fn request(
    workspace: &Workspace,
    base: &Checkpoint,
    graft: &Checkpoint,
    names: Option<&str>,
) -> ViewRequest {
    let source = workspace.write("graft", graft).into();
    let names = names.map(str::to_owned);
    ViewRequest::new(workspace.write("base", base))
        .with(|asked| asked.graft.grafts.push(GraftRequest { source, names }))
}

/// The name of the scales of `weight`, from the definition of block FP8.
fn scales_of(weight: &str) -> String {
    format!("{weight}_scale_inv")
}

/// A weight in block FP8: its codes and its scales.
pub(crate) fn fp8(name: &str, shape: &[usize; 2], seed: u64) -> [TensorData; 2] {
    let blocks = shape.map(|length| length.div_ceil(128));
    let values: Vec<f32> = (0..blocks[0] * blocks[1])
        .map(|i| [0.5, 3.0][(i + seed as usize) % 2])
        .collect();
    [
        tensor(name, Dtype::F8_E4M3, shape, seed),
        of_values(&scales_of(name), Dtype::F32, &blocks, &values),
    ]
}

/// How a checkpoint has a weight.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Form {
    Absent,
    Numbers,
    Quantized,
}

/// A weight of both checkpoints, and the shard of each that it is in; its scales may be in another.
#[derive(Debug, Clone)]
struct Item {
    shape: [usize; 2],
    forms: [Form; 2],
    shards: [usize; 2],
    scales_apart: bool,
    /// Whether the expression matches its name.
    is_asked: bool,
}

impl Item {
    /// Modules that no engine loads together, so that any mix is possible.
    fn name(&self, number: usize) -> String {
        let asked = if self.is_asked { "asked" } else { "other" };
        format!("model.layers.{number}.{asked}.o_proj.weight")
    }

    fn tensors(&self, number: usize, source: usize) -> Vec<TensorData> {
        let (name, seed) = (self.name(number), (2 * number + source) as u64);
        match self.forms[source] {
            Form::Absent => Vec::new(),
            Form::Numbers => vec![tensor(&name, Dtype::BF16, &self.shape, seed)],
            Form::Quantized => fp8(&name, &self.shape, seed).into(),
        }
    }
}

fn item() -> impl Strategy<Value = Item> {
    let form = || select(vec![Form::Absent, Form::Numbers, Form::Quantized]);
    let length = || select(vec![1usize, 100, 128, 130]);
    let shards = [0..3usize, 0..3usize];
    (
        [length(), length()],
        [form(), form()],
        shards,
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(shape, forms, shards, scales_apart, is_asked)| Item {
            shape,
            forms,
            shards,
            scales_apart,
            is_asked,
        })
}

/// The checkpoint number `source` of `items`, with a norm that both have.
fn checkpoint(items: &[Item], source: usize, names: &[&str; 3]) -> Checkpoint {
    let mut shards: [Vec<TensorData>; 3] = Default::default();
    shards[0].push(tensor(
        "model.norm.weight",
        Dtype::BF16,
        &[16],
        source as u64,
    ));
    for (number, item) in items.iter().enumerate() {
        let mut tensors = item.tensors(number, source).into_iter();
        shards[item.shards[source]].extend(tensors.next());
        let apart = usize::from(item.scales_apart);
        shards[(item.shards[source] + apart) % 3].extend(tensors);
    }
    let is_quantized = items
        .iter()
        .any(|item| item.forms[source] == Form::Quantized);
    let config = if is_quantized { FP8_CONFIG } else { "{}" };
    let shards = names.iter().zip(shards);
    let shards = shards.filter(|(_, tensors)| !tensors.is_empty());
    shards.fold(
        Checkpoint::new().config(config),
        |checkpoint, (name, tensors)| checkpoint.shard(name, tensors),
    )
}

const STANDARD: [&str; 3] = [
    "model-00001-of-00003.safetensors",
    "model-00002-of-00003.safetensors",
    "model-00003-of-00003.safetensors",
];
const OTHER: [&str; 3] = ["b.safetensors", "c.safetensors", "a.safetensors"];

/// What the view must hold, tensor by tensor: the base's, and for each weight that both have and that is
/// asked for, the weight and scales of the graft in the place of the weight and scales of the base.
fn expected(items: &[Item], asks_for_all: bool) -> BTreeMap<String, (TensorData, usize)> {
    let mut expected = BTreeMap::new();
    let norm = usize::from(asks_for_all);
    let data = tensor("model.norm.weight", Dtype::BF16, &[16], norm as u64);
    expected.insert(data.name.clone(), (data, norm));
    for (number, item) in items.iter().enumerate() {
        let in_both = !item.forms.contains(&Form::Absent);
        let source = usize::from(in_both && (asks_for_all || item.is_asked));
        for data in item.tensors(number, source) {
            expected.insert(data.name.clone(), (data, source));
        }
    }
    expected
}

/// Asserts that config.json says which of `tensors` are quantized.
fn assert_declared(plan: &Plan, source: &str, tensors: &BTreeMap<String, TensorData>) {
    let text = read_path(plan, "config.json").unwrap();
    let config: Value = serde_json::from_slice(&text).unwrap();
    let is_quantized = |name: &String| tensors.contains_key(&scales_of(name));
    let quantized: Vec<&String> = tensors.keys().filter(|name| is_quantized(name)).collect();
    let declared = &config["quantization_config"];
    if quantized.is_empty() {
        assert_eq!(*declared, Value::Null);
        return;
    }
    if plan.report.edited_config.is_none() {
        assert_eq!(text, source.as_bytes());
        return;
    }
    let weights = tensors.iter().filter(|(_, data)| data.shape.len() == 2);
    let weights = weights.filter(|(name, _)| !name.ends_with("_scale_inv") && !is_quantized(name));
    let mut skipped: BTreeSet<String> = weights
        .map(|(name, _)| name.strip_suffix(".weight").unwrap().to_owned())
        .collect();
    skipped.insert("lm_head".to_owned());
    let listed = declared["modules_to_not_convert"]
        .as_array()
        .unwrap()
        .iter();
    let listed: BTreeSet<String> = listed
        .map(|entry| entry.as_str().unwrap().to_owned())
        .collect();
    assert_eq!(listed, skipped);
    assert_eq!(declared["quant_method"], "fp8");
    assert_eq!(declared["weight_block_size"], serde_json::json!([128, 128]));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(150) })]

    #[test]
    fn every_tensor_is_that_of_the_checkpoint_that_the_definition_says(
        items in vec(item(), 0..=6),
        asks_for_all in any::<bool>(),
        names in [select(vec![STANDARD, OTHER]), select(vec![STANDARD, OTHER])],
        shards in select(vec![None, None, Some(Shards::Keep), Some(Shards::Renumber), Some(Shards::Repack), Some(Shards::Single)]),
    ) {
        let workspace = Workspace::new();
        let [base, graft] = [0, 1].map(|i| checkpoint(&items, i, &names[i]));
        let expression = (!asks_for_all).then_some(r".*\.asked\..*weight");
        let request = ViewRequest { shards, ..request(&workspace, &base, &graft, expression) };
        let plan = request.plan().unwrap();

        let expected = expected(&items, asks_for_all);
        let found = tensors(&plan);
        let data = expected.iter().map(|(name, (data, _))| (name.clone(), data.clone()));
        prop_assert_eq!(&found, &data.collect::<BTreeMap<_, _>>());

        // Provenance and figures say where each is from.
        let mut counted = [0, 0];
        for tensor in plan.shards.iter().flat_map(|shard| &shard.tensors) {
            let (_, source) = &expected[&*tensor.name];
            let lineage = Lineage::trace(&plan, tensor);
            let fate = [Fate::Kept, Fate::Grafted][*source];
            prop_assert_eq!(Fate::new(&plan, tensor, &lineage), fate);
            let directory = workspace.path().join(["base", "graft"][*source]);
            prop_assert_eq!(lineage.from[0].checkpoint(), directory);
            counted[*source] += 1;
        }
        let counts = Counts::of_plan(&plan);
        prop_assert_eq!([counts.kept.tensors, counts.grafted.tensors], counted);
        prop_assert_eq!(counts.total.tensors, expected.len());
        let source = &plan.report.sources[1];
        let figures = source.graft.as_ref().unwrap();
        prop_assert_eq!((source.role, source.added), (Role::Graft, counted[1]));
        prop_assert_eq!(
            source.added + figures.not_matching + figures.not_in_view,
            graft.in_order().len()
        );
        prop_assert_eq!(
            base.in_order().len() - figures.removed,
            counted[0] + found.keys().filter(|name| counted_as_replaced(&base, &expected, name)).count()
        );

        // A shard of the base in which nothing is replaced is whole.
        if matches!(shards, Some(Shards::Keep | Shards::Renumber)) || shards.is_none() {
            for shard in &base.shards {
                let is_same = |data: &TensorData| {
                    expected.get(&data.name).is_some_and(|(_, source)| *source == 0)
                };
                let path = workspace.path().join("base").join(&shard.file);
                let whole = plan.shards.iter().any(|s| s.whole_file.as_ref() == Some(&path));
                let gains = |data: &TensorData| {
                    let scales = scales_of(&data.name);
                    expected.contains_key(&scales) && base.in_order().iter().all(|(t, _)| t.name != scales)
                };
                let is_whole = shard.tensors.iter().all(|data| is_same(data) && !gains(data));
                prop_assert_eq!(whole, is_whole, "{}", shard.file);
            }
        }
        assert_declared(&plan, std::str::from_utf8(&base.aux.0[std::path::Path::new("config.json")]).unwrap(), &found);

        // Scales that the base lacks are in the shard of their weight.
        let shard_of = |name: &str| {
            let mut shards = plan.shards.iter();
            shards.position(|shard| shard.tensors.iter().any(|tensor| &*tensor.name == name))
        };
        let in_base = |name: &str| base.in_order().iter().any(|(data, _)| data.name == name);
        for (name, (_, source)) in &expected {
            let scales = scales_of(name);
            if *source == 1 && expected.contains_key(&scales) && !in_base(&scales) {
                prop_assert_eq!(shard_of(name), shard_of(&scales), "{}", name);
            }
        }

        // What a recipe says of it plans the same.
        let recipe = workspace.path().join("recipe.yml");
        std::fs::write(&recipe, request.to_recipe().unwrap()).unwrap();
        let again = ViewRequest::from_recipe(&recipe, &Places::default()).unwrap();
        prop_assert!(read_all(&again.plan().unwrap()) == read_all(&plan));
    }
}

/// Whether the view's tensor `name` is the graft's, in the place of one that the base has.
fn counted_as_replaced(
    base: &Checkpoint,
    expected: &BTreeMap<String, (TensorData, usize)>,
    name: &str,
) -> bool {
    expected[name].1 == 1 && base.in_order().iter().any(|(data, _)| data.name == name)
}

fn layer(i: usize) -> String {
    format!("model.layers.{i}.mlp.down_proj.weight")
}

fn two_layers(seed: u64) -> Checkpoint {
    let shard = |i: usize| tensor(&layer(i), Dtype::BF16, &[8, 16], seed + i as u64);
    Checkpoint::new()
        .shard("model-00001-of-00002.safetensors", [shard(0)])
        .shard("model-00002-of-00002.safetensors", [shard(1)])
}

#[test]
fn a_shard_of_which_every_tensor_is_replaced_may_be_a_file_of_the_graft() {
    let workspace = Workspace::new();
    let expression = r"model\.layers\.1\..*";
    let request = request(&workspace, &two_layers(1), &two_layers(5), Some(expression));
    let plan = request.plan().unwrap();
    let file = |checkpoint: &str, i: usize| {
        let name = format!("model-0000{i}-of-00002.safetensors");
        (
            name.clone(),
            Some(workspace.path().join(checkpoint).join(name)),
        )
    };
    let shards = plan.shards.iter();
    let shards: Vec<_> = shards
        .map(|s| (s.name.clone(), s.whole_file.clone()))
        .collect();
    assert_eq!(shards, [file("base", 1), file("graft", 2)]);
}

#[test]
fn of_several_grafts_the_last_that_has_a_tensor_gives_it() {
    let workspace = Workspace::new();
    let mut request = request(&workspace, &two_layers(1), &two_layers(5), None);
    let last = Checkpoint::single([tensor(&layer(1), Dtype::BF16, &[8, 16], 9)]);
    let source = workspace.write("last", &last).into();
    request.operations.graft.grafts.push(GraftRequest {
        source,
        names: None,
    });
    let found = tensors(&request.plan().unwrap());
    assert_eq!(&found[&layer(0)], two_layers(5).get(&layer(0)));
    assert_eq!(&found[&layer(1)], last.get(&layer(1)));
}

#[test]
fn a_graft_replaces_what_an_extra_added_and_is_renamed_afterwards() {
    let workspace = Workspace::new();
    let block = |seed| tensor("mtp.fc.weight", Dtype::BF16, &[8, 16], seed);
    let extra = workspace.write("extra", &Checkpoint::single([block(2)]));
    let graft = Checkpoint::single([block(3)]);
    let request = request(&workspace, &two_layers(1), &graft, None).with(|asked| {
        asked.patch.extras.push(extra.into());
        asked.rename.rules.push("^mtp=model.mtp".to_owned());
    });
    let found = &tensors(&request.plan().unwrap())["model.mtp.fc.weight"];
    assert_eq!(found.bytes, block(3).bytes);
}

#[test]
fn one_checkpoint_may_be_an_extra_and_a_graft() {
    let workspace = Workspace::new();
    let both = two_layers(5).shard("more.safetensors", [bf16("mtp.fc.weight", &[8, 16])]);
    let request = request(
        &workspace,
        &two_layers(1),
        &both,
        Some(&regex::escape(&layer(1))),
    );
    let extra = workspace.path().join("graft");
    let plan = request
        .with(|asked| asked.patch.extras.push(extra.into()))
        .plan()
        .unwrap();
    let counts = Counts::of_plan(&plan);
    let counts = [counts.kept, counts.added, counts.grafted].map(|count| count.tensors);
    assert_eq!(counts, [1, 1, 1]);
}

#[test]
fn a_single_file_can_be_grafted() {
    let workspace = Workspace::new();
    let directory = workspace.write("other", &two_layers(5));
    let source = directory.join("model-00002-of-00002.safetensors");
    let base = workspace.write("base", &two_layers(1));
    let request = ViewRequest::new(base).with(|asked| {
        asked.graft.grafts.push(GraftRequest {
            source: source.clone().into(),
            names: None,
        });
    });
    let plan = request.plan().unwrap();
    assert_eq!(&tensors(&plan)[&layer(0)], two_layers(1).get(&layer(0)));
    assert_eq!(&tensors(&plan)[&layer(1)], two_layers(5).get(&layer(1)));
    assert_eq!(plan.report.sources[1].path, source);
}

#[test]
fn a_plain_graft_keeps_standard_names_and_renumbers_others() {
    let shard = |i: usize| tensor(&layer(i), Dtype::BF16, &[8, 16], i as u64);
    let other = Checkpoint::new()
        .shard("rank_0.safetensors", [shard(0)])
        .shard("rank_1.safetensors", [shard(1)]);
    let graft = Checkpoint::single([tensor(&layer(1), Dtype::BF16, &[8, 16], 9)]);
    let standard = [1, 2].map(|i| format!("model-0000{i}-of-00002.safetensors"));
    for base in [two_layers(1), other] {
        let workspace = Workspace::new();
        let plan = request(&workspace, &base, &graft, None).plan().unwrap();
        let names: Vec<&str> = plan.shards.iter().map(|shard| &*shard.name).collect();
        assert_eq!(names, standard);
        let first = workspace.path().join("base").join(&base.shards[0].file);
        assert_eq!(plan.shards[0].whole_file, Some(first));
    }
}

#[test]
fn the_list_of_unquantized_modules_follows_a_renaming() {
    let workspace = Workspace::new();
    let both = [0, 1]
        .map(|i| fp8(&layer(i), &[128, 128], i as u64))
        .concat();
    let base = Checkpoint::single(both).config(FP8_CONFIG);
    let graft = Checkpoint::single([bf16(&layer(0), &[128, 128])]).config("{}");
    let request = request(&workspace, &base, &graft, None);
    let request = request.with(|asked| asked.rename.rules.push("^model=language".to_owned()));
    let text = read_path(&request.plan().unwrap(), "config.json").unwrap();
    let config: Value = serde_json::from_slice(&text).unwrap();
    let listed = &config["quantization_config"]["modules_to_not_convert"];
    let expected = ["language.layers.0.mlp.down_proj", "lm_head"];
    assert_eq!(*listed, serde_json::json!(expected));
}
