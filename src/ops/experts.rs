//! Experts: the weights of a mixture-of-experts layer, one tensor per expert and projection, or
//! fused into two tensors. Changing the form moves ranges of bytes and computes none.
//!
//! | form | tensors of a layer with `E` experts, hidden size `H` and intermediate size `I` |
//! |---|---|
//! | per expert | `<p>.experts.<j>.{gate,up}_proj.weight` `[I, H]`, `<p>.experts.<j>.down_proj.weight` `[H, I]` |
//! | fused | `<p>.experts.gate_up_proj` `[E, 2I, H]`, of each expert the rows of gate, then those of up; `<p>.experts.down_proj` `[E, H, I]` |
//!
//! Companions (the scales of a quantized weight) take the same form: those of a fused tensor are
//! stacked per expert.

use std::collections::{HashMap, HashSet};

use indexmap::IndexMap;

use crate::catalog::{Catalog, Tensor};
use crate::error::{Error, Result};
use crate::ops::experts_model::Model;
use crate::ops::{Operator, experts_fuse, experts_unfuse};
use crate::quant::{self, Scheme};
use crate::shown::Show;
use crate::tensor::Name;

pub(super) const GATE: &str = "gate_proj";
pub(super) const UP: &str = "up_proj";
pub(super) const DOWN: &str = "down_proj";
pub(super) const GATE_UP: &str = "gate_up_proj";

/// Gives all experts of a catalog the same form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Experts {
    /// Fused tensors become tensors of single experts.
    Unfuse,
    /// Tensors of single experts become fused ones.
    Fuse,
}

impl Operator for Experts {
    fn apply(&self, catalog: &mut Catalog) -> Result<()> {
        let model = Model::of(catalog)?;
        model.refuse_transposed(self.flag())?;
        let changes = match self {
            Experts::Unfuse => experts_unfuse::changes(catalog, &model)?,
            Experts::Fuse => experts_fuse::changes(catalog, &model)?,
        };
        if changes.is_empty() {
            catalog.report.warnings.push(format!(
                "{} finds nothing to do: no tensor of this view is called {}",
                self.flag(),
                match self {
                    Experts::Unfuse => "*.experts.{gate_up,down}_proj",
                    Experts::Fuse => "*.experts.<number>.{gate,up,down}_proj.weight",
                }
            ));
        }
        if *self == Experts::Fuse {
            model.warn_of_stale_skips(catalog, &changes);
        }
        carry_out(catalog, changes)
    }
}

impl Experts {
    fn flag(self) -> &'static str {
        match self {
            Experts::Unfuse => "--unfuse-experts",
            Experts::Fuse => "--fuse-experts",
        }
    }
}

/// What becomes of the experts of one layer.
#[derive(Debug)]
pub(super) struct Change {
    /// The tensors that go.
    pub old: Vec<Name>,
    /// The tensors that stand, in this order, where the first of the old ones stood.
    pub new: Vec<(Name, Tensor)>,
}

fn carry_out(catalog: &mut Catalog, changes: Vec<Change>) -> Result<()> {
    let taken = changes.iter().flat_map(|change| &change.new);
    for (name, tensor) in taken {
        if let Some(other) = catalog.tensors.get(name) {
            return Err(Error::tensor(
                other.origin(),
                name,
                format!(
                    "the view has it already, and would have it a second time from {}; take the experts in one form only",
                    tensor.origin().shown()
                ),
            ));
        }
    }
    let mut old = HashSet::new();
    let mut new: HashMap<usize, Vec<(Name, Tensor)>> = HashMap::new();
    for change in changes {
        let names = change.old.iter();
        let positions = names.filter_map(|name| catalog.tensors.get_index_of(name));
        let positions: Vec<usize> = positions.collect();
        if let Some(&first) = positions.iter().min() {
            new.insert(first, change.new);
        }
        old.extend(positions);
    }
    let mut tensors = IndexMap::with_capacity(catalog.tensors.len());
    for (i, (name, tensor)) in std::mem::take(&mut catalog.tensors).into_iter().enumerate() {
        tensors.extend(new.remove(&i).into_iter().flatten());
        if !old.contains(&i) {
            tensors.insert(name, tensor);
        }
    }
    catalog.tensors = tensors;
    Ok(())
}

/// `model.layers.0.mlp.experts.7.up_proj.weight` → (`model.layers.0.mlp.experts`,
/// `7.up_proj.weight`).
pub(super) fn in_experts(name: &str) -> Option<(&str, &str)> {
    const EXPERTS: &str = "experts.";
    let start = match name.rfind(".experts.") {
        Some(dot) => dot + 1,
        None if name.starts_with(EXPERTS) => 0,
        None => return None,
    };
    let rest = start + EXPERTS.len();
    Some((&name[..rest - 1], &name[rest..]))
}

/// A weight with its companions, if it is quantized.
#[derive(Debug, Clone)]
pub(super) struct Weight<'a> {
    pub name: String,
    pub tensor: &'a Tensor,
    pub quantized: Option<Quantized<'a>>,
}

/// How a weight is quantized.
#[derive(Debug, Clone)]
pub(super) struct Quantized<'a> {
    pub scheme: &'static dyn Scheme,
    /// In the order of [`Scheme::companions`].
    pub companions: Vec<&'a Tensor>,
}

impl<'a> Weight<'a> {
    /// The weight called `name`, its companions checked.
    pub(super) fn find(catalog: &'a Catalog, name: String) -> Result<Option<Self>> {
        let Some(tensor) = catalog.tensors.get(&*name) else {
            return Ok(None);
        };
        let stored = quant::stored(&catalog.tensors, &name);
        if let Some((scheme, companions)) = &stored {
            scheme.check(&name, tensor, companions)?;
        }
        Ok(Some(Weight {
            name,
            tensor,
            quantized: stored.map(|(scheme, companions)| Quantized { scheme, companions }),
        }))
    }

    /// The tensors that it is: the weight and its companions.
    pub(super) fn tensors(&self) -> impl Iterator<Item = &'a Tensor> {
        let companions = self.quantized.iter().flat_map(|q| &q.companions);
        std::iter::once(self.tensor).chain(companions.copied())
    }

    /// What these are called if the weight is called `name`.
    pub(super) fn names_as(&self, name: &str) -> impl Iterator<Item = Name> {
        let quantized = self.quantized.iter();
        let companions = quantized.flat_map(|quantized| quantized.scheme.companions(name));
        std::iter::once(name.into()).chain(companions.map(Name::from))
    }

    /// What they are called.
    pub(super) fn names(&self) -> impl Iterator<Item = Name> {
        self.names_as(&self.name)
    }

    /// An error about the weight.
    pub(super) fn error(&self, problem: impl Into<String>) -> Error {
        Error::tensor(self.tensor.origin(), &self.name, problem)
    }

    /// Checks that no block holds rows of gate and of up, which have `rows` rows each.
    pub(super) fn check_blocks_part(&self, rows: u64) -> Result<()> {
        let Some(Quantized { scheme, .. }) = self.quantized else {
            return Ok(());
        };
        let block = scheme.block_rows();
        if rows.is_multiple_of(block) {
            return Ok(());
        }
        Err(self.error(format!(
            "it is {}, and gate and up have {rows} rows each, which is no multiple of {block}: fused, they have blocks in common, and apart, they do not; start from unquantized experts",
            scheme.name()
        )))
    }
}
