//! What a chain of operators takes of memory. Alone in its process, whose peak is looked at.

mod common;

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use ckptfs::materialize::{Options, materialize};
use ckptfs::read::Reader;
use ckptfs::recipe::{Places, Plan, ViewRequest};
use safetensors::Dtype;
use serde_json::json;

use common::Workspace;

const NAME: &str = "model.layers.0.mlp.down_proj.weight";
const SHAPE: [u64; 2] = [32768, 16384];
const GIB: u64 = 1 << 30;

/// More than caches, buffers and the program itself, and less than half of one input.
const MOST_MEMORY: u64 = 500 << 20;

/// A model of a BF16 tensor of 1 GiB, all of it zeros that take no space.
fn write_model(directory: &Path) {
    fs::create_dir(directory).unwrap();
    let header = json!({NAME: {"dtype": "BF16", "shape": SHAPE, "data_offsets": [0, GIB]}});
    let header = header.to_string();
    let path = directory.join("model.safetensors");
    let start = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
    fs::write(&path, &start).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.set_len(start.len() as u64 + GIB).unwrap();
    let config = r#"{"num_hidden_layers": 1, "torch_dtype": "bfloat16"}"#;
    fs::write(directory.join("config.json"), config).unwrap();
}

/// The most memory that this process has had, in bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse::<u64>().unwrap() << 10
}

fn plan(workspace: &Workspace, merge: &str) -> (Plan, ViewRequest) {
    let path = workspace.path().join("recipe.yml");
    let view = "view: {dtype: f16, fp8: true}\n";
    fs::write(&path, format!("{merge}{view}")).unwrap();
    let request = ViewRequest::from_recipe(&path, &Places::default()).unwrap();
    (request.plan().unwrap(), request)
}

#[test]
fn no_tensor_between_operators_is_ever_whole_in_memory() {
    const CACHE: usize = 16 << 20;
    let workspace = Workspace::new();
    for model in ["a", "b"] {
        write_model(&workspace.path().join(model));
    }
    let models = "models: [{model: a}, {model: b}]\n";
    let linear = format!("merge_method: linear\n{models}parameters: {{weight: 0.5}}\n");
    let slerp = format!("merge_method: slerp\n{models}base_model: a\nparameters: {{t: 0.5}}\n");

    // Here and there, the first read of slerp after a pass over all of both inputs.
    for merge in [&linear, &slerp] {
        let (plan, _) = plan(&workspace, merge);
        let reader = Reader::new(Arc::clone(&plan.view), CACHE);
        let shard = &plan.shards[0];
        let codes = shard.tensors.iter().find(|t| *t.name == *NAME).unwrap();
        assert_eq!((codes.dtype, codes.len), (Dtype::F8_E4M3, GIB / 2));
        let mut band = vec![0xaa; 1 << 20];
        for at in (0..codes.len).step_by(24 << 20) {
            let count = reader.read_at(shard.entry, codes.offset + at, &mut band);
            assert_eq!(count.unwrap(), band.len().min((codes.len - at) as usize));
            assert!(band.iter().all(|code| *code == 0), "zeros stay zeros");
            assert!(reader.cached_bytes() <= CACHE);
        }
    }
    assert!(peak() < MOST_MEMORY, "{} bytes", peak());

    // All of it, to the disk.
    let (plan, request) = plan(&workspace, &linear);
    let out = workspace.path().join("out");
    let options = Options::default();
    materialize(&plan, &request.inputs(), &out, &options, &()).unwrap();
    let written = fs::metadata(out.join(&plan.shards[0].name)).unwrap();
    assert_eq!(written.len(), plan.shards[0].len);
    assert!(peak() < MOST_MEMORY, "{} bytes", peak());
}
