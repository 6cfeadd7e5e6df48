//! Quantizes selected weights, by any [`Encoding`].

mod checks;
mod groups;
pub(crate) mod rules;
mod selection;

use indexmap::{IndexMap, IndexSet};

use crate::catalog::{Catalog, Tensor};
use crate::error::Result;
use crate::ops::Operator;
use crate::quant::{self, Encoding};
use crate::tensor::Name;
use groups::Decision;

pub use selection::Selection;

/// What to do with tensors that have blocks which are cut off at an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PartialBlocks {
    /// Quantize them too, with partial blocks at the edges.
    #[default]
    Quantize,
    /// Leave them in their dtype.
    Keep,
}

/// Quantizes the selected tensors of a catalog.
#[derive(Debug)]
pub struct Quantize {
    pub selection: Selection,
    pub encoding: Box<dyn Encoding>,
    pub partial_blocks: PartialBlocks,
}

impl Operator for Quantize {
    fn apply(&self, catalog: &mut Catalog) -> Result<()> {
        self.encoding.check_base(catalog)?;
        checks::note_references(catalog, &self.selection);

        let have_companions = have_companions(&catalog.tensors);
        let mut decisions = catalog
            .tensors
            .iter()
            .zip(&have_companions)
            .map(|((name, tensor), &has_companions)| self.decide(name, tensor, has_companions))
            .collect::<Result<Vec<_>>>()?;
        checks::warn_idle(catalog, &self.selection, &decisions);
        let mut report = std::mem::take(&mut catalog.report);
        groups::close(catalog, &self.selection, &mut decisions, &mut report)?;

        let unquantized = std::mem::take(&mut catalog.tensors);
        let added = decisions.iter().filter(|d| **d == Decision::Quantize);
        let mut tensors = IndexMap::with_capacity(unquantized.len() + added.count());
        let mut quantized = IndexSet::new();
        let mut partial = Vec::new();
        for (((name, tensor), has_companions), decision) in
            unquantized.into_iter().zip(have_companions).zip(decisions)
        {
            if matches!(decision, Decision::Quantize | Decision::Quantized) {
                quantized.insert(name.clone());
            }
            if decision != Decision::Quantize {
                tensors.insert(name, tensor);
                continue;
            }
            if !self
                .encoding
                .has_whole_blocks(&name, &tensor, has_companions)?
            {
                partial.push(name.clone());
            }
            tensors.extend(self.encoding.encode(&name, tensor));
            report.quantized += 1;
        }
        catalog.report = report;
        catalog.tensors = tensors;
        self.encoding.declare(catalog, &quantized, &partial)
    }
}

impl Quantize {
    fn decide(&self, name: &str, tensor: &Tensor, has_companions: bool) -> Result<Decision> {
        if has_companions && quant::is_coded(tensor.dtype) {
            return Ok(Decision::Quantized);
        }
        if !self.selection.selects(name) {
            return Ok(Decision::Keep);
        }
        let whole = (self.encoding).has_whole_blocks(name, tensor, has_companions)?;
        match self.partial_blocks {
            PartialBlocks::Keep if !whole => Ok(Decision::KeepPartial),
            _ => Ok(Decision::Quantize),
        }
    }
}

/// For each of `tensors`, whether there are companions of it.
fn have_companions(tensors: &IndexMap<Name, Tensor>) -> Vec<bool> {
    let mut have = vec![false; tensors.len()];
    let weights = tensors.keys().filter_map(|name| quant::weight_of(name));
    for weight in weights.filter_map(|weight| tensors.get_index_of(weight)) {
        have[weight] = true;
    }
    have
}
