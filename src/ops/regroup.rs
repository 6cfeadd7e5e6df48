//! Tensors of a module that become others: parts of them, or several in one.

use std::collections::{HashMap, HashSet};

use indexmap::IndexMap;

use crate::catalog::{Catalog, Tensor};
use crate::error::{Code, Error, Result};
use crate::quant::Moves;
use crate::shown::Show;
use crate::tensor::Name;

/// What becomes of some tensors of one module.
#[derive(Debug)]
pub(super) struct Change {
    /// The path of the module.
    pub module: String,
    /// The tensors that go.
    pub old: Vec<Name>,
    /// The tensors that stand, in this order, where the first of the old ones stood.
    pub new: Vec<(Name, Tensor)>,
}

/// What becomes of each tensor. Of the new ones of a change, an old one becomes those that hold the same weights, by
/// their names.
pub(super) fn moves(
    catalog: &Catalog,
    changes: &[Change],
    hold_the_same: impl Fn(&str, &str) -> bool,
) -> Moves {
    let mut becomes: HashMap<&Name, Vec<Name>> = HashMap::new();
    for change in changes {
        for old in &change.old {
            let new = change.new.iter().map(|(name, _)| name);
            let new = new.filter(|new| hold_the_same(old, new)).cloned();
            becomes.insert(old, new.collect());
        }
    }
    let names = catalog.tensors.keys();
    Moves::new(names.map(|name| {
        let new = becomes.remove(name);
        (name.clone(), new.unwrap_or_else(|| vec![name.clone()]))
    }))
}

/// Has `changes` happen. `hint` says what to do if the view has a new tensor already.
///
/// # Errors
/// If it has.
pub(super) fn carry_out(
    catalog: &mut Catalog,
    changes: Vec<Change>,
    hint: &'static str,
) -> Result<()> {
    let going: HashSet<&Name> = changes.iter().flat_map(|change| &change.old).collect();
    let taken = changes.iter().flat_map(|change| &change.new);
    for (name, tensor) in taken.filter(|(name, _)| !going.contains(name)) {
        if let Some(other) = catalog.tensors.get(name) {
            return Err(Error::of_tensor(
                Code::NameTaken,
                other.origin(),
                name,
                format!(
                    "the view has it already, and would have it a second time from {}",
                    tensor.origin().shown()
                ),
            )
            .with_hint(hint));
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
