//! Every recipe in docs/RECIPES.md is one: it plans, and every byte of its view can be read.

use ckptfs::error::Code;
use ckptfs::recipe::{Places, ViewRequest};

use crate::common::adapter::Adapter;
use crate::common::checkpoint::{TensorData, of_values, tensor};
use crate::common::{Workspace, readback};
use crate::fixture::{LAYERS, dense, model, names, write};
use safetensors::Dtype;

/// The models that the page names.
const MODELS: [&str; 5] = [
    "org/base",
    "org/chat",
    "org/code",
    "org/math",
    "org/base-fp8",
];

fn large(seed: u64) -> Vec<TensorData> {
    let shape = |name: &str| {
        if name.contains("norm") {
            vec![128]
        } else {
            vec![128, 128]
        }
    };
    let tensors = names(LAYERS).into_iter().enumerate();
    tensors
        .map(|(i, name)| tensor(&name, Dtype::BF16, &shape(&name), seed * 100 + i as u64))
        .collect()
}

fn blocks(page: &str) -> Vec<&str> {
    let parts = page.split("```yaml\n").skip(1);
    parts
        .map(|part| part.split("```").next().unwrap())
        .collect()
}

#[test]
fn every_example_of_the_page_is_a_view() {
    let page = include_str!("../../docs/RECIPES.md");
    let workspace = Workspace::new();
    let vocabulary: serde_json::Map<String, serde_json::Value> =
        (0..128).map(|id| (format!("t{id}"), id.into())).collect();
    let tokenizer = serde_json::json!({
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "t0"},
    });
    let tokenizer = tokenizer.to_string();
    let mut named = Vec::new();
    for (seed, id) in MODELS.iter().enumerate() {
        let mut tensors = large(seed as u64);
        if *id == "org/base-fp8" {
            let weight = tensors[1].name.clone();
            let finite = tensors[1].bytes.iter().map(|byte| byte & 0x3f);
            let codes = finite.take(128 * 128).collect();
            tensors[1] = TensorData::new(&weight, Dtype::F8_E4M3, &[128, 128], codes);
            let scale = format!("{weight}_scale_inv");
            tensors.push(of_values(&scale, Dtype::F32, &[1, 1], &[0.25]));
        }
        let config = crate::fixture::config(LAYERS).replace(": 6", ": 128");
        let model = model(tensors)
            .config(&config)
            .aux("tokenizer.json", &tokenizer);
        named.push((
            (*id).to_owned(),
            workspace.write(&id.replace('/', "-"), &model).into(),
        ));
    }
    let mtp = [tensor("mtp.layers.0.w", Dtype::BF16, &[4], 1)];
    named.push((
        "org/base-mtp".to_owned(),
        workspace.write("mtp", &model(mtp.to_vec())).into(),
    ));
    for (id, part) in [("chat", "self_attn.q_proj"), ("code", "mlp.down_proj")] {
        let module = format!("model.layers.1.{part}");
        let adapter = Adapter::new(2, 4.0).linear(&module, [128, 128], 2);
        let directory = adapter.write(&workspace, &format!("{id}-lora"));
        named.push((format!("org/{id}-lora"), directory.into()));
    }
    for (seed, id) in ["org/dense", "org/dense-b"].into_iter().enumerate() {
        let model = dense(seed as u64).aux("tokenizer.json", &tokenizer);
        let directory = workspace.write(&id.replace('/', "-"), &model);
        named.push((id.to_owned(), directory.into()));
    }
    let places = Places { named, hub: None };
    let blocks = blocks(page);
    assert!(blocks.len() > 8, "{} examples", blocks.len());
    for block in blocks {
        let path = write(&workspace, block);
        let request = ViewRequest::from_recipe(&path, &places);
        let request = request.unwrap_or_else(|error| panic!("{error}\n{block}"));
        let plan = request
            .plan()
            .unwrap_or_else(|error| panic!("{error}\n{block}"));
        let mut warnings = plan.report.warnings.iter();
        let unknown = warnings.find(|warning| warning.code() == Code::RecipeKey);
        assert!(unknown.is_none(), "{unknown:?}\n{block}");
        let tensors = readback::tensors(&plan);
        assert!(!tensors.is_empty());
        // The recipe that is made of it needs no places, and names the same view.
        let emitted = request.to_recipe().unwrap();
        let path = write(&workspace, &emitted);
        let again = ViewRequest::from_recipe(&path, &Places::default());
        let again = again.and_then(|request| request.plan());
        let again = again.unwrap_or_else(|error| panic!("{error}\n{emitted}"));
        assert!(readback::tensors(&again) == tensors, "{emitted}");
    }
}
