//! A view in one file without an index, written to disk.

use std::fs;
use std::path::Path;

use ckptfs::materialize::{Options, materialize};
use ckptfs::ops::{Operations, QuantizeParams};
use ckptfs::recipe::{Shards, ViewRequest};
use ckptfs::verify::{KnownScales, against_view, structure};

use crate::common::Workspace;
use crate::common::checkpoint::{Checkpoint, bf16};
use crate::directory::names;

#[test]
fn it_is_written_and_verified_like_any_other_view() {
    let workspace = Workspace::new();
    let layer = |i: usize| {
        let name = format!("model.layers.{i}.self_attn.o_proj.weight");
        bf16(&name, &[256, 256])
    };
    let base = Checkpoint::new()
        .shard("model-00001-of-00002.safetensors", [layer(0)])
        .shard("model-00002-of-00002.safetensors", [layer(1)]);
    let numbered = ViewRequest {
        operations: Operations {
            quantize: QuantizeParams::by_rules(),
            ..Operations::default()
        },
        ..ViewRequest::new(workspace.write("base", &base))
    };
    let single = ViewRequest {
        shards: Some(Shards::Single),
        ..numbered.clone()
    };
    let plan = single.plan().unwrap();
    let out = workspace.path().join("out");
    let options = Options::default();
    materialize(&plan, &single.inputs(), &out, &options, &()).unwrap();
    assert!(out.join("model.safetensors").is_file());
    let index = Path::new("model.safetensors.index.json");
    assert!(!out.join(index).exists(), "{:?}", names(&out));

    let report = structure(&out, &KnownScales::default(), 1, &()).unwrap();
    assert_eq!((report.shards, report.tensors), (1, 4));
    assert_eq!((report.problems, report.warnings), (vec![], vec![]));
    let report = against_view(&plan, &out, 2, &()).unwrap();
    assert!(report.differences.is_empty() && report.extra.is_empty());
    let report = against_view(&numbered.plan().unwrap(), &out, 2, &()).unwrap();
    assert!(!report.differences.is_empty());

    // An index that is left over is not of the view.
    fs::write(out.join(index), "{}").unwrap();
    let report = against_view(&plan, &out, 2, &()).unwrap();
    assert_eq!(report.extra, [index]);
}
