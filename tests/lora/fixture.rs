//! What merging adapters is, element by element.

use std::path::Path;

use ckptfs::ops::{LoraParams, LoraRequest, Operations};
use ckptfs::recipe::{Plan, ViewRequest};
use half::f16;
use safetensors::Dtype;

use crate::common::Workspace;
pub(crate) use crate::common::adapter::{Adapter, numbers};
use crate::common::checkpoint::{Checkpoint, TensorData};
use crate::common::readback::{read_tensor, reader};
use crate::common::values::decode;

/// The plan of `base` with `adapter` merged.
pub(crate) fn plan(base: &Path, adapter: &Path) -> ckptfs::Result<Plan> {
    plan_all(base, &[(adapter, 1.0)])
}

/// The plan of `base` with adapters merged, each with its weight.
pub(crate) fn plan_all(base: &Path, adapters: &[(&Path, f64)]) -> ckptfs::Result<Plan> {
    let lora = |&(adapter, weight): &(&Path, f64)| LoraRequest {
        adapter: adapter.to_owned().into(),
        weight,
    };
    ViewRequest {
        operations: Operations {
            lora: LoraParams {
                adapters: adapters.iter().map(lora).collect(),
                ..LoraParams::default()
            },
            ..Operations::default()
        },
        ..ViewRequest::new(base)
    }
    .plan()
}

/// The bytes of the tensor `name` of `base` with `adapter` merged.
pub(crate) fn merged(base: &Checkpoint, adapter: &Adapter, name: &str) -> Vec<u8> {
    let workspace = Workspace::new();
    let (base, adapter) = (
        workspace.write("base", base),
        adapter.write(&workspace, "lora"),
    );
    let plan = plan(&base, &adapter).unwrap();
    read_tensor(&plan, &reader(&plan), name).unwrap()
}

/// `s · L · R` of matrices given element by element, added up as SEMANTICS says.
pub(crate) struct Product<'a> {
    pub(crate) left: &'a dyn Fn(usize, usize) -> f32,
    pub(crate) right: &'a dyn Fn(usize, usize) -> f32,
    pub(crate) rank: usize,
    pub(crate) scale: f32,
}

impl Product<'_> {
    pub(crate) fn at(&self, row: usize, column: usize) -> f32 {
        let mut sum = 0.0f32;
        for k in 0..self.rank {
            let product = (self.left)(row, k) * (self.right)(k, column);
            sum += product;
        }
        sum * self.scale
    }

    /// The same in f64, with the sum of all magnitudes, that of `weight` included.
    pub(crate) fn exactly(&self, row: usize, column: usize, weight: f32) -> (f64, f64) {
        let terms = (0..self.rank).map(|k| {
            f64::from((self.left)(row, k))
                * f64::from((self.right)(k, column))
                * f64::from(self.scale)
        });
        let weight = f64::from(weight);
        let magnitude = terms.clone().map(f64::abs).sum::<f64>();
        (weight + terms.sum::<f64>(), weight.abs() + magnitude)
    }
}

/// The weight with the product added, as f32 before it is rounded.
pub(crate) fn moved(weight: &TensorData, columns: usize, product: &Product) -> Vec<f32> {
    let elements = decode(weight.dtype, &weight.bytes);
    let place = |at: usize| (at / columns, at % columns);
    let elements = elements.into_iter().enumerate();
    elements
        .map(|(at, element)| {
            let (row, column) = place(at);
            let sum = element + product.at(row, column);
            let (exact, magnitude) = product.exactly(row, column, element);
            let error = (f64::from(sum) - exact).abs();
            let most = magnitude * (product.rank + 2) as f64 * f64::from(f32::EPSILON);
            assert!(error <= most, "the definition itself: {sum} is not {exact}");
            sum
        })
        .collect()
}

/// The element `at` of a matrix that is stored so.
pub(crate) fn element(tensor: &TensorData) -> impl Fn(usize) -> f32 + use<> {
    let values = decode(tensor.dtype, &tensor.bytes);
    move |at| values[at]
}

/// The number of f16 nearest to `value`, from the crate that knows best.
pub(crate) fn nearest_f16(value: f32) -> f16 {
    f16::from_f32(value)
}

/// A `[rows, columns]` BF16 weight called `module.weight`.
pub(crate) fn weight(module: &str, shape: &[usize]) -> TensorData {
    numbers(&format!("{module}.weight"), Dtype::BF16, shape)
}
