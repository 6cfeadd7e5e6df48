//! A merge that a request starts from, and its models.

use crate::catalog::{Catalog, Tensor};
use crate::error::Result;
use crate::ops::dtype::InDtype;
use crate::ops::lora::Lora;
use crate::ops::merge::{Definition, Merge, Source};
use crate::ops::open;
use crate::ops::{ExpertOrder, Numbers, Operator, Precision};
use crate::quant::{is_coded, weight_of};
use crate::recipe::yaml::Node;
use crate::source::Location;
use crate::tensor::{Dtype, Name};

/// A merge and where its models are.
#[derive(Debug, Clone)]
pub struct MergeRequest {
    pub definition: Definition,
    /// In the order of [`Definition::models`].
    pub models: Vec<MergedModel>,
    /// The recipe that it is from.
    pub(super) root: Node,
    /// What the recipe calls models, and where they were found.
    pub(super) found: Vec<(String, Location)>,
}

/// A model that takes part in a merge.
#[derive(Debug, Clone)]
pub struct MergedModel {
    pub location: Location,
    /// A LoRA adapter that is merged into it first.
    pub lora: Option<Location>,
}

impl MergeRequest {
    /// The merged model. Adapters that do not say the order of their experts have them in `experts`.
    pub(super) fn catalog(&self, experts: Option<ExpertOrder>) -> Result<Catalog> {
        let dtype = self.definition.dtype.and_then(Precision::from_dtype);
        let numbers = Numbers::all(dtype.unwrap_or(Precision::Bf16));
        let names = self.definition.models.iter();
        let sources = names.zip(&self.models).map(|(name, model)| {
            let mut catalog = open::catalog(&model.location, &numbers, None)?;
            dequantize(&mut catalog, self.definition.dtype)?;
            if let Some(adapter) = &model.lora {
                Lora::open(adapter, 1.0, experts)?.apply(&mut catalog)?;
            }
            Ok(Source {
                name: name.name.clone(),
                catalog,
            })
        });
        let merge = Merge {
            definition: self.definition.clone(),
            sources: sources.collect::<Result<_>>()?,
        };
        merge.catalog()
    }
}

/// Has the quantized weights of a model given as numbers, since merges compute with numbers: to the dtype of the
/// merge, or to BF16 if it has none.
fn dequantize(catalog: &mut Catalog, dtype: Option<Dtype>) -> Result<()> {
    let mut tensors = catalog.tensors.iter();
    // Packed codes have dtypes of plain numbers, and names of companions.
    let is_part =
        |(name, tensor): (&Name, &Tensor)| is_coded(tensor.dtype) || weight_of(name).is_some();
    if !tensors.any(is_part) {
        return Ok(());
    }
    let to = dtype
        .and_then(Precision::from_dtype)
        .unwrap_or(Precision::Bf16);
    InDtype::only_quantized(to).apply(catalog)
}
