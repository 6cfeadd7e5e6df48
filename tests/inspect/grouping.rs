//! Layers, groups and totals are the figures of all their elements.

use ckptfs::inspect::{Inspection, MeasuredGroup};
use ckptfs::ops::{Operations, PatchParams, QuantizeParams};
use ckptfs::quant::fp8_block::ScaleFormat;
use ckptfs::recipe::ViewRequest;
use safetensors::Dtype;

use crate::common::Workspace;
use crate::common::checkpoint::{Checkpoint, TensorData, bf16, tensor};
use crate::naive::Naive;
use crate::{FORMATS, inspect_all, try_inspect};

/// Tensors of several layers and kinds.
fn tensors() -> Vec<TensorData> {
    let names = [
        "model.layers.10.self_attn.q_proj.weight",
        "model.layers.2.self_attn.q_proj.weight",
        "model.layers.2.mlp.experts.0.up_proj.weight",
        "model.layers.2.mlp.experts.1.up_proj.weight",
        "model.layers.2.mlp.experts.gate_up_proj",
        "mtp.layers.0.mlp.up_proj.weight",
        "transformer.h.3.attn.c_attn.weight",
        "lm_head.weight",
    ];
    let dtypes = [Dtype::BF16, Dtype::F16, Dtype::F32];
    let shapes: [&[usize]; 3] = [&[130, 150], &[2, 129, 3], &[128, 128]];
    let tensors = names.iter().enumerate();
    tensors
        .map(|(i, name)| tensor(name, dtypes[i % 3], shapes[i % 3], i as u64))
        .collect()
}

fn names(groups: &[MeasuredGroup]) -> Vec<(Option<&str>, usize)> {
    let groups = groups.iter();
    groups.map(|g| (g.name.as_deref(), g.tensors)).collect()
}

#[test]
fn layers_and_groups_are_in_order_and_hold_every_tensor_once() {
    let inspection = inspect_all(&tensors(), ScaleFormat::Ue8m0);
    assert_eq!(
        names(&inspection.layers),
        [
            (None, 1),
            (Some("model.layers.2"), 4),
            (Some("model.layers.10"), 1),
            (Some("mtp.layers.0"), 1),
            (Some("transformer.h.3"), 1),
        ]
    );
    assert_eq!(
        names(&inspection.groups),
        [
            (Some("c_attn"), 1),
            (Some("gate_up_proj"), 1),
            (Some("lm_head"), 1),
            (Some("q_proj"), 2),
            (Some("up_proj"), 3),
        ]
    );
    let layers_of_q = inspection.tensors.iter().filter_map(|tensor| {
        let layer = tensor.name.strip_suffix(".self_attn.q_proj.weight")?;
        Some(layer)
    });
    assert!(layers_of_q.eq(["model.layers.2", "model.layers.10"]));
}

#[test]
fn every_aggregate_is_the_figures_of_all_its_elements() {
    let tensors = tensors();
    for format in FORMATS {
        let Inspection {
            tensors: measured,
            layers,
            groups,
            total,
        } = inspect_all(&tensors, format);
        Naive::of(&tensors, format).assert_is(&total, "total");
        for found in &measured {
            let tensor = tensors.iter().find(|t| t.name == found.name).unwrap();
            Naive::of([tensor], format).assert_is(&found.fidelity, &found.name);
            let shape = tensor.shape.iter().map(|d| *d as u64);
            assert!(shape.eq(found.shape.iter().copied()));
            assert_eq!(found.source_dtype, format!("{:?}", tensor.dtype));
        }
        let two = |t: &&TensorData| t.name.starts_with("model.layers.2.");
        Naive::of(tensors.iter().filter(two), format).assert_is(&layers[1].fidelity, "layer 2");
        let up = |t: &&TensorData| t.name.ends_with(".up_proj.weight");
        Naive::of(tensors.iter().filter(up), format).assert_is(&groups[4].fidelity, "up_proj");
    }
}

#[test]
fn only_what_the_view_quantizes_is_measured() {
    let name = |i: usize| format!("model.layers.{i}.mlp.up_proj.weight");
    let workspace = Workspace::new();
    let base = Checkpoint::single([
        bf16(&name(0), &[130, 130]),
        tensor(&name(1), Dtype::F8_E4M3, &[130, 130], 1),
        tensor(&format!("{}_scale_inv", name(1)), Dtype::F32, &[2, 2], 1),
        bf16("model.norm.weight", &[130]),
    ]);
    let extra = Checkpoint::single([bf16(&name(0), &[130, 130]), bf16(&name(2), &[64, 130])]);
    let request = ViewRequest {
        operations: Operations {
            patch: PatchParams {
                extras: vec![workspace.write("extra", &extra).into()],
            },
            quantize: QuantizeParams::by_rules(),
            ..Operations::default()
        },
        ..ViewRequest::new(workspace.write("base", &base))
    };
    let inspection = try_inspect(&request.plan().unwrap()).unwrap();
    let measured = inspection.tensors.iter().map(|tensor| &tensor.name);
    assert!(measured.eq([&name(0), &name(2)]));
    let sources = [base.get(&name(0)), extra.get(&name(2))];
    Naive::of(sources, ScaleFormat::Ue8m0).assert_is(&inspection.total, "patched");
}
