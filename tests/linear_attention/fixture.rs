//! A layer in both forms, by the definition of which row is whose.

use std::collections::BTreeMap;
use std::path::Path;

use ckptfs::ops::{LinearAttention, LinearAttentionParams, Operations};
use ckptfs::recipe::{Plan, ViewRequest};
use safetensors::Dtype;

use crate::common::checkpoint::{Checkpoint, TensorData, tensor};
use crate::common::values::bits;

pub(crate) const MODULE: &str = "model.layers.0.linear_attn";

#[derive(Debug, Clone, Copy)]
pub(crate) struct Heads {
    pub(crate) key_heads: usize,
    /// Value heads for each key head.
    pub(crate) ratio: usize,
    pub(crate) key_dim: usize,
    pub(crate) value_dim: usize,
    pub(crate) hidden: usize,
}

impl Heads {
    pub(crate) fn config(&self) -> String {
        format!(
            r#"{{"model_type": "qwen3_next", "linear_num_key_heads": {}, "linear_num_value_heads": {}, "linear_key_head_dim": {}, "linear_value_head_dim": {}}}"#,
            self.key_heads,
            self.key_heads * self.ratio,
            self.key_dim,
            self.value_dim
        )
    }

    pub(crate) fn checkpoint(&self, tensors: &[TensorData]) -> Checkpoint {
        Checkpoint::single(tensors.to_vec()).config(&self.config())
    }

    /// `in_proj_qkvz` and `in_proj_ba`.
    pub(crate) fn joined(&self, dtype: Dtype, seed: u64) -> Vec<TensorData> {
        let Heads {
            key_heads,
            ratio,
            key_dim,
            value_dim,
            hidden,
        } = *self;
        let rows = key_heads * (2 * key_dim + 2 * ratio * value_dim);
        let name = |projection: &str| format!("{MODULE}.{projection}.weight");
        let ba = [2 * key_heads * ratio, hidden];
        vec![
            tensor(&name("in_proj_qkvz"), dtype, &[rows, hidden], seed),
            tensor(&name("in_proj_ba"), dtype, &ba, seed + 1),
        ]
    }

    /// The row of `in_proj_qkvz` or `in_proj_ba` that each row of a split projection is: transformers'
    /// `Qwen3NextGatedDeltaNet.fix_query_key_value_ordering`, and `Qwen3_5GatedDeltaNet.forward`.
    pub(crate) fn rows(&self, projection: &str) -> Vec<usize> {
        let Heads {
            key_heads,
            ratio,
            key_dim,
            value_dim,
            ..
        } = *self;
        let group = 2 * key_dim + 2 * ratio * value_dim;
        let mut rows = Vec::new();
        if projection == "in_proj_qkv" {
            for part in 0..2 {
                for head in 0..key_heads {
                    for row in 0..key_dim {
                        rows.push(head * group + part * key_dim + row);
                    }
                }
            }
        }
        for value_head in 0..key_heads * ratio {
            let (head, in_group) = (value_head / ratio, value_head % ratio);
            match projection {
                "in_proj_b" => rows.push(head * 2 * ratio + in_group),
                "in_proj_a" => rows.push(head * 2 * ratio + ratio + in_group),
                _ => {
                    let first = head * group + 2 * key_dim;
                    let first = match projection {
                        "in_proj_z" => first + ratio * value_dim,
                        _ => first,
                    };
                    rows.extend((0..value_dim).map(|row| first + in_group * value_dim + row));
                }
            }
        }
        rows
    }

    /// The four projections that `joined` are.
    pub(crate) fn split(&self, joined: &[TensorData]) -> Vec<TensorData> {
        let of = [
            ("in_proj_qkv", 0),
            ("in_proj_z", 0),
            ("in_proj_b", 1),
            ("in_proj_a", 1),
        ];
        let split = of.map(|(projection, from)| {
            let from = &joined[from];
            let row_bytes = from.shape[1] * bits(from.dtype) / 8;
            let rows = self.rows(projection);
            let bytes = rows
                .iter()
                .flat_map(|row| &from.bytes[row * row_bytes..(row + 1) * row_bytes]);
            let name = format!("{MODULE}.{projection}.weight");
            TensorData::new(
                &name,
                from.dtype,
                &[rows.len(), from.shape[1]],
                bytes.copied().collect(),
            )
        });
        split.to_vec()
    }
}

pub(crate) fn plan(base: &Path, form: LinearAttention) -> ckptfs::Result<Plan> {
    ViewRequest {
        operations: Operations {
            linear_attention: LinearAttentionParams { form: Some(form) },
            ..Operations::default()
        },
        ..ViewRequest::new(base)
    }
    .plan()
}

pub(crate) fn by_name<'a>(
    tensors: impl IntoIterator<Item = &'a TensorData>,
) -> BTreeMap<String, TensorData> {
    let tensors = tensors.into_iter();
    tensors.map(|t| (t.name.clone(), t.clone())).collect()
}
