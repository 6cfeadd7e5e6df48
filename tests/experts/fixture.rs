//! Experts in both forms, made from each other element by element.

use std::collections::BTreeMap;
use std::path::Path;

use ckptfs::ops::{Experts, ExpertsParams, Operations, QuantizeParams};
use ckptfs::recipe::{Plan, ViewRequest};
use safetensors::Dtype;

use crate::common::checkpoint::{Checkpoint, TensorData, tensor};
use crate::common::oracle::numbers::scale_name;
use crate::common::readback::read_all;
use crate::common::values::bits;

/// The plan of `base` with all experts in one form.
pub(crate) fn plan(base: &Path, experts: Experts) -> ckptfs::Result<Plan> {
    ViewRequest {
        operations: Operations {
            experts: ExpertsParams::all(experts),
            ..Operations::default()
        },
        ..ViewRequest::new(base)
    }
    .plan()
}

/// The same, quantized by the rule set.
pub(crate) fn plan_fp8(base: &Path, experts: Option<Experts>) -> Plan {
    ViewRequest {
        operations: Operations {
            experts: ExpertsParams {
                form: experts,
                ..ExpertsParams::default()
            },
            quantize: QuantizeParams::by_rules(),
            ..Operations::default()
        },
        ..ViewRequest::new(base)
    }
    .plan()
    .unwrap()
}

/// A config.json for this hidden size.
pub(crate) fn config(hidden: usize) -> String {
    format!(r#"{{"model_type": "test_moe", "hidden_size": {hidden}}}"#)
}

/// Writes all files of a view into `directory`.
pub(crate) fn write_view(plan: &Plan, directory: &Path) {
    for (path, bytes) in read_all(plan) {
        let path = directory.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

/// Sizes of a layer's experts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) experts: usize,
    pub(crate) intermediate: usize,
    pub(crate) hidden: usize,
}

/// The two fused tensors of the layer called `layer`, in random content.
pub(crate) fn fused_layer(layer: &str, dtype: Dtype, sizes: Sizes) -> Vec<TensorData> {
    let Sizes {
        experts,
        intermediate,
        hidden,
    } = sizes;
    let seed = layer.bytes().map(u64::from).sum();
    let gate_up = [experts, 2 * intermediate, hidden];
    let down = [experts, hidden, intermediate];
    vec![
        tensor(
            &format!("{layer}.experts.gate_up_proj"),
            dtype,
            &gate_up,
            seed,
        ),
        tensor(
            &format!("{layer}.experts.down_proj"),
            dtype,
            &down,
            seed + 1,
        ),
    ]
}

/// A fused FP8 layer with scales of `scale_dtype`, each weight followed by its scales.
pub(crate) fn fused_fp8_layer(layer: &str, scale_dtype: Dtype, sizes: Sizes) -> Vec<TensorData> {
    let weights = fused_layer(layer, Dtype::F8_E4M3, sizes);
    let with_scales = |weight: TensorData| {
        let [experts, rows, columns] = weight.shape[..] else {
            panic!("{weight:?}");
        };
        let shape = [experts, rows.div_ceil(128), columns.div_ceil(128)];
        let scales = tensor(&scale_name(&weight.name), scale_dtype, &shape, 5);
        [weight, scales]
    };
    weights.into_iter().flat_map(with_scales).collect()
}

/// The elements of a tensor, each its bytes.
fn elements(tensor: &TensorData) -> Vec<&[u8]> {
    tensor.bytes.chunks(bits(tensor.dtype) / 8).collect()
}

/// `fused[expert, rows, :]`
fn expert_rows(
    name: &str,
    fused: &TensorData,
    expert: usize,
    rows: std::ops::Range<usize>,
) -> TensorData {
    let elements = elements(fused);
    let (rows_each, columns) = (fused.shape[1], fused.shape[2]);
    let shape = [rows.len(), columns];
    let mut bytes = Vec::new();
    for row in rows {
        for column in 0..columns {
            bytes.extend(elements[(expert * rows_each + row) * columns + column]);
        }
    }
    TensorData::new(name, fused.dtype, &shape, bytes)
}

/// What unfusing makes of the fused tensors of `layer`: in the order of experts, and of gate, up
/// and down in each, scales right behind their weight.
pub(crate) fn unfused(layer: &str, fused: &[TensorData]) -> Vec<TensorData> {
    let find = |name: &str| {
        let name = format!("{layer}.experts.{name}");
        fused.iter().find(|tensor| tensor.name == name)
    };
    let experts = find("gate_up_proj").unwrap().shape[0];
    let mut unfused = Vec::new();
    for expert in 0..experts {
        for (projection, from, half) in [
            ("gate_proj", "gate_up_proj", Some(0)),
            ("up_proj", "gate_up_proj", Some(1)),
            ("down_proj", "down_proj", None),
        ] {
            for suffix in ["", "_scale_inv"] {
                if let Some(fused) = find(&format!("{from}{suffix}")) {
                    let rows = fused.shape[1];
                    let rows = match half {
                        Some(half) => half * rows / 2..(half + 1) * rows / 2,
                        None => 0..rows,
                    };
                    let name = format!("{layer}.experts.{expert}.{projection}.weight{suffix}");
                    unfused.push(expert_rows(&name, fused, expert, rows));
                }
            }
        }
    }
    unfused
}

/// Tensors by name.
pub(crate) fn by_name<'a>(
    tensors: impl IntoIterator<Item = &'a TensorData>,
) -> BTreeMap<String, TensorData> {
    let tensors = tensors.into_iter();
    tensors.map(|t| (t.name.clone(), t.clone())).collect()
}

/// A single-file checkpoint of this hidden size.
pub(crate) fn single(tensors: &[TensorData], hidden: usize) -> Checkpoint {
    Checkpoint::single(tensors.to_vec()).config(&config(hidden))
}
