//! The tensors that a view quantizes.

use std::collections::HashMap;
use std::sync::Arc;

use crate::catalog::{Fidelity, Node, Tensor};
use crate::inspect::groups::MeasuredTensor;
use crate::layout::{Plan, PlannedTensor};
use crate::quant::weight_of;

/// A tensor that a view quantizes.
#[derive(Debug, Clone)]
pub struct QuantizedTensor {
    pub name: String,
    /// What is quantized: BF16, F16 or F32 of shape `[rows, cols]` or `[n, rows, cols]`. It may
    /// be computed itself.
    pub source: Tensor,
    /// What it becomes: the outputs of `node`, its codes first.
    pub outputs: Vec<Tensor>,
    pub(super) node: Arc<Node>,
}

impl QuantizedTensor {
    /// It with its figures.
    pub(super) fn measured(&self, fidelity: Fidelity) -> MeasuredTensor {
        MeasuredTensor {
            name: self.name.clone(),
            source_dtype: self.source.dtype.to_string(),
            shape: self.source.shape.to_vec(),
            fidelity,
        }
    }
}

/// The tensors that the view of `plan` quantizes, in the order of its shards. Tensors without
/// elements are left out: there is nothing to look at in them.
pub fn quantized_tensors(plan: &Plan) -> Vec<QuantizedTensor> {
    let mut quantized = Vec::new();
    for shard in &plan.shards {
        // All outputs of one node share a shard.
        let mut outputs: HashMap<*const Node, Vec<(usize, Tensor)>> = HashMap::new();
        for tensor in &shard.tensors {
            if let Some((node, output)) = computed(tensor)
                && node.kernel.error_measure().is_some()
            {
                let of_node = outputs.entry(Arc::as_ptr(node)).or_default();
                of_node.push((output, tensor.tensor()));
            }
        }
        for tensor in &shard.tensors {
            if let Some((node, 0)) = computed(tensor)
                && node.kernel.error_measure().is_some()
            {
                let mut outputs = outputs.remove(&Arc::as_ptr(node)).unwrap_or_default();
                outputs.sort_by_key(|(output, _)| *output);
                let weight = weight_of(&tensor.name).unwrap_or(&tensor.name);
                quantized.push(QuantizedTensor {
                    name: weight.to_owned(),
                    source: node.inputs[0].clone(),
                    outputs: outputs.into_iter().map(|(_, tensor)| tensor).collect(),
                    node: node.clone(),
                });
            }
        }
    }
    quantized
}

/// The node and output that `tensor` is, if it is one as a whole.
fn computed(tensor: &PlannedTensor) -> Option<(&Arc<Node>, usize)> {
    match tensor.extents.as_computed()? {
        (node, output, 0) if tensor.len > 0 => Some((node, output)),
        _ => None,
    }
}
