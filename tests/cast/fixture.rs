//! Block FP8 weights, and views in one dtype.

use std::collections::BTreeMap;
use std::path::Path;

use ckptfs::ops::{DtypeParams, Operations, Precision};
use ckptfs::recipe::{Plan, ViewRequest};
use safetensors::Dtype;
use serde_json::{Value, json};

use crate::common::checkpoint::{TensorData, tensor};
use crate::common::oracle::casting;
use crate::common::oracle::numbers::scale_name;
use crate::common::readback::read_path;

pub(crate) const TARGETS: [(Precision, Dtype, &str); 3] = [
    (Precision::Bf16, Dtype::BF16, "bfloat16"),
    (Precision::F16, Dtype::F16, "float16"),
    (Precision::F32, Dtype::F32, "float32"),
];

pub(crate) fn plan(base: &Path, to: Precision) -> ckptfs::Result<Plan> {
    request(base, to).plan()
}

pub(crate) fn request(base: &Path, to: Precision) -> ViewRequest {
    ViewRequest {
        operations: Operations {
            dtype: DtypeParams { to: Some(to) },
            ..Operations::default()
        },
        ..ViewRequest::new(base)
    }
}

pub(crate) fn config_of(plan: &Plan) -> Value {
    serde_json::from_slice(&read_path(plan, "config.json").unwrap()).unwrap()
}

/// A config.json that declares block FP8 with blocks of this size.
pub(crate) fn fp8_config(block: [usize; 2]) -> String {
    let quantization = json!({
        "quant_method": "fp8",
        "fmt": "e4m3",
        "activation_scheme": "dynamic",
        "weight_block_size": block,
        "modules_to_not_convert": ["lm_head"],
    });
    json!({"hidden_size": 4, "torch_dtype": "bfloat16", "quantization_config": quantization})
        .to_string()
}

/// A weight of codes and its scales, none of them NaN or infinite.
pub(crate) fn quantized(
    name: &str,
    dtype: Dtype,
    scales: Dtype,
    shape: &[usize],
    block: [usize; 2],
) -> Quantized {
    let [leading @ .., rows, columns] = shape else {
        panic!("{shape:?}");
    };
    let grid = [rows.div_ceil(block[0]), columns.div_ceil(block[1])];
    let scale_shape = [leading, &grid].concat();
    let mut weight = tensor(name, dtype, shape, 3);
    let finite = |code: &u8| code & 0x7f < 0x7c;
    weight.bytes = weight
        .bytes
        .iter()
        .map(|code| if finite(code) { *code } else { code & 0xbf })
        .collect();
    let mut scale = tensor(&scale_name(name), scales, &scale_shape, 4);
    if scales == Dtype::F8_E8M0 {
        scale.bytes = scale.bytes.iter().map(|code| 100 + code % 40).collect();
    }
    Quantized {
        weight,
        scale,
        block,
    }
}

pub(crate) struct Quantized {
    pub(crate) weight: TensorData,
    pub(crate) scale: TensorData,
    pub(crate) block: [usize; 2],
}

impl Quantized {
    pub(crate) fn both(&self) -> [TensorData; 2] {
        [self.weight.clone(), self.scale.clone()]
    }

    pub(crate) fn dequantized(&self, to: Dtype) -> TensorData {
        let elements = casting::dequantize(&self.weight, &self.scale, self.block, to);
        casting::tensor_of(&self.weight, to, &elements)
    }
}

pub(crate) fn by_name(
    tensors: impl IntoIterator<Item = TensorData>,
) -> BTreeMap<String, TensorData> {
    let tensors = tensors.into_iter();
    tensors
        .map(|tensor| (tensor.name.clone(), tensor))
        .collect()
}
