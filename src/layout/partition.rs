//! Which tensors share a shard, and what shards are called.

use std::collections::HashMap;

use indexmap::IndexMap;
use serde::Serialize;

use crate::catalog::{Catalog, Tensor};
use crate::error::setting::{SHARD_SIZE, SHARDS, SINGLE_FILE};
use crate::error::{Hint, Result};
use crate::format::OUTPUT;
use crate::named::{Named, named};
use crate::quant::weight_of;
use crate::tensor::Name;

/// Which tensors share a file, and what the files are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Shards {
    /// The base's shards under the base's names. Where tensors are added, or one of these is not a name
    /// of [`OUTPUT`] because the base is in another container, as [`Shards::Renumber`].
    Keep,
    /// The base's shards, then the added tensors packed; standard names with numbers.
    Renumber,
    /// All tensors packed into new shards; standard names with numbers.
    Repack,
    /// All tensors in one file, which has no index.
    Single,
}

named!(Shards {
    Keep: "keep",
    Renumber: "renumber",
    Repack: "repack",
    Single: "single",
});

impl Shards {
    /// What helps where a shard would have too many tensors.
    pub(super) fn advice(self) -> Hint {
        match self {
            Shards::Keep => Hint::give_value(SHARDS, Shards::Repack.name())
                .to("pack the tensors into more shards"),
            Shards::Renumber | Shards::Repack => Hint::give(SHARD_SIZE).to("choose smaller shards"),
            Shards::Single => Hint::leave_out(SINGLE_FILE),
        }
    }

    /// What helps where there would be too many shards.
    fn advice_on_count(self) -> Hint {
        match self {
            Shards::Keep | Shards::Renumber => Hint::give_value(SHARDS, Shards::Repack.name())
                .to("pack the tensors into fewer shards"),
            Shards::Repack | Shards::Single => Hint::give(SHARD_SIZE).to("choose larger shards"),
        }
    }
}

/// Tensors that share a shard, or will.
#[derive(Debug, Default)]
pub(super) struct Group<'a> {
    /// The name of the base's shard that they come from; none if they are packed.
    pub home: Option<&'a str>,
    pub tensors: Vec<(&'a Name, &'a Tensor)>,
}

/// The tensors of `catalog` in groups, a shard each, in shard order. Where tensors are packed, at most
/// `shard_bytes` of them are.
pub(super) fn groups<'a>(
    catalog: &'a Catalog,
    units: &[InUnit<'a>],
    shards: Shards,
    shard_bytes: u64,
) -> Vec<Group<'a>> {
    match shards {
        Shards::Single => vec![Group {
            home: None,
            tensors: units
                .iter()
                .map(|&(_, name, tensor)| (name, tensor))
                .collect(),
        }],
        Shards::Repack => pack(units.iter(), shard_bytes),
        Shards::Keep | Shards::Renumber => {
            let home = |shard: &'a str| Group {
                home: Some(shard),
                tensors: Vec::new(),
            };
            let mut groups: Vec<Group> = catalog
                .homes
                .iter()
                .map(|shard| home(&shard.name))
                .collect();
            for &(_, name, tensor) in units {
                if let Some(home) = tensor.home {
                    groups[home].tensors.push((name, tensor));
                }
            }
            groups.retain(|group| !group.tensors.is_empty());
            let added = units.iter().filter(|(.., tensor)| tensor.home.is_none());
            groups.extend(pack(added, shard_bytes));
            groups
        }
    }
}

/// The names of the files that hold `groups`.
///
/// # Errors
/// If they are more than standard names can number.
pub(super) fn names(groups: &[Group], shards: Shards) -> Result<Vec<String>> {
    if shards == Shards::Single {
        return Ok(vec![OUTPUT.single_file().to_owned()]);
    }
    let kept = groups
        .iter()
        .map(|group| group.home.filter(|name| OUTPUT.is_shard(name.as_ref())));
    if shards == Shards::Keep
        && let Some(kept) = kept.collect::<Option<Vec<&str>>>()
    {
        return Ok(kept.into_iter().map(str::to_owned).collect());
    }
    let names = OUTPUT.standard_names(groups.len());
    let names = names.map_err(|error| error.with_hint(shards.advice_on_count()))?;
    Ok(names.collect())
}

/// A tensor with the number of its unit: a weight and its companions, the smallest thing that is put into
/// a shard.
pub(super) type InUnit<'a> = (usize, &'a Name, &'a Tensor);

/// The tensors in order, companions and weights drawn to whichever of them comes first.
pub(super) fn in_units(tensors: &IndexMap<Name, Tensor>) -> Vec<InUnit<'_>> {
    let mut units: Vec<usize> = (0..tensors.len()).collect();
    // The first of what belongs to each weight; a weight itself may not be there.
    let mut firsts: HashMap<&str, usize> = HashMap::new();
    for (companion, name) in tensors.keys().enumerate() {
        if let Some(weight) = weight_of(name) {
            let place = tensors.get_index_of(weight).unwrap_or(companion);
            let first = firsts.entry(weight).or_insert(place);
            *first = (*first).min(companion);
        }
    }
    for (place, name) in tensors.keys().enumerate() {
        let weight = weight_of(name).unwrap_or(name);
        units[place] = firsts.get(weight).copied().unwrap_or(place);
    }
    let mut ordered: Vec<InUnit> = units
        .into_iter()
        .zip(tensors)
        .map(|(unit, (name, tensor))| (unit, name, tensor))
        .collect();
    ordered.sort_by_key(|(unit, ..)| *unit);
    ordered
}

/// Fills shards one after the other; a unit that does not fit starts the next shard.
fn pack<'a, 'b>(tensors: impl Iterator<Item = &'b InUnit<'a>>, shard_bytes: u64) -> Vec<Group<'a>>
where
    'a: 'b,
{
    let tensors: Vec<InUnit> = tensors.copied().collect();
    let mut shards: Vec<Group> = Vec::new();
    let mut filled = 0u64;
    for unit in tensors.chunk_by(|(a, ..), (b, ..)| a == b) {
        let len: u64 = unit.iter().map(|(.., tensor)| tensor.len()).sum();
        let unit = unit.iter().map(|&(_, name, tensor)| (name, tensor));
        match shards.last_mut() {
            Some(shard) if filled.saturating_add(len) <= shard_bytes => {
                filled += len;
                shard.tensors.extend(unit);
            }
            _ => {
                filled = len;
                shards.push(Group {
                    home: None,
                    tensors: unit.collect(),
                });
            }
        }
    }
    shards
}
