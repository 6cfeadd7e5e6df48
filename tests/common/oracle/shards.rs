//! Which tensors lie in which shard of a view.

use std::collections::BTreeSet;

use ckptfs::recipe::Shards;

use super::numbers::scale_name;
use super::{ViewTensor, Wanted};

/// A shard that the view must have.
#[derive(Debug)]
pub(crate) struct ExpectedShard {
    pub(crate) name: String,
    pub(crate) tensors: Vec<ViewTensor>,
    /// The base's shard that this one is, byte for byte.
    pub(crate) unchanged: Option<String>,
}

impl Wanted {
    /// The shards of the view, in order.
    pub(crate) fn shards(&self) -> Vec<ExpectedShard> {
        let tensors = self.tensors();
        let standard = self.base.shards.iter().all(|s| is_standard(&s.file));
        let patched = !self.extras.is_empty();
        // A plain patch renumbers whatever the names are; all else packs what has other names.
        let repack = match self.shards {
            Some(Shards::Single) => {
                return vec![ExpectedShard {
                    name: "model.safetensors".to_owned(),
                    tensors,
                    unchanged: None,
                }];
            }
            Some(Shards::Repack) => true,
            Some(Shards::Keep | Shards::Renumber) => false,
            None => !standard && (!patched || self.fp8.is_some()),
        };
        if repack {
            let packs = self.pack(tensors);
            return numbered(packs.into_iter().map(|tensors| (tensors, None)).collect());
        }
        let (kept, added): (Vec<_>, Vec<_>) = tensors.into_iter().partition(|t| t.home.is_some());
        let mut shards = Vec::new();
        for shard in self.base.shards_in_order() {
            let is_here = |t: &&ViewTensor| t.home.as_ref() == Some(&shard.file);
            let tensors: Vec<_> = kept.iter().filter(is_here).cloned().collect();
            let unchanged = shard.unnamed.is_empty() && tensors.iter().all(|t| !t.computed);
            shards.push((tensors, unchanged.then(|| shard.file.clone())));
        }
        if patched || self.shards == Some(Shards::Renumber) && !self.is_numbered() {
            shards.extend(self.pack(added).into_iter().map(|pack| (pack, None)));
            return numbered(shards);
        }
        let names = self.base.shards_in_order().into_iter();
        names
            .zip(shards)
            .map(|(shard, (tensors, unchanged))| ExpectedShard {
                name: shard.file.clone(),
                tensors,
                unchanged,
            })
            .collect()
    }

    /// Whether the base's shards have all the names that renumbering would give.
    fn is_numbered(&self) -> bool {
        let files: BTreeSet<&str> = self.base.shards.iter().map(|s| s.file.as_str()).collect();
        let total = files.len();
        files
            .into_iter()
            .enumerate()
            .all(|(i, file)| file == number(i, total))
    }

    /// Packs in order: a shard is closed when the next tensor (with its scale) would make it
    /// larger than the shard size.
    fn pack(&self, tensors: Vec<ViewTensor>) -> Vec<Vec<ViewTensor>> {
        let mut packs: Vec<Vec<ViewTensor>> = Vec::new();
        for unit in units(tensors) {
            match packs.last_mut() {
                Some(pack) if bytes(pack) + bytes(&unit) <= self.shard_bytes => pack.extend(unit),
                _ => packs.push(unit),
            }
        }
        packs
    }
}

fn bytes(tensors: &[ViewTensor]) -> u64 {
    tensors.iter().map(|t| t.data.bytes.len() as u64).sum()
}

/// Joins every weight with its scale, at the place of whichever comes first.
fn units(tensors: Vec<ViewTensor>) -> Vec<Vec<ViewTensor>> {
    let names: BTreeSet<String> = tensors.iter().map(|t| t.data.name.clone()).collect();
    let weight_of = |name: &str| -> String {
        let weight = name.strip_suffix("_scale_inv").unwrap_or(name);
        if names.contains(weight) { weight } else { name }.to_owned()
    };
    let mut units: Vec<(String, Vec<ViewTensor>)> = Vec::new();
    for tensor in tensors {
        let weight = weight_of(&tensor.data.name);
        debug_assert!(tensor.data.name == weight || tensor.data.name == scale_name(&weight));
        match units.iter_mut().find(|(name, _)| *name == weight) {
            Some((_, unit)) => unit.push(tensor),
            None => units.push((weight, vec![tensor])),
        }
    }
    units.into_iter().map(|(_, unit)| unit).collect()
}

fn numbered(shards: Vec<(Vec<ViewTensor>, Option<String>)>) -> Vec<ExpectedShard> {
    let total = shards.len();
    let shards = shards.into_iter().enumerate();
    shards
        .map(|(i, (tensors, unchanged))| ExpectedShard {
            name: number(i, total),
            tensors,
            unchanged,
        })
        .collect()
}

/// The name of shard `i` of `total`, counted from 0.
fn number(i: usize, total: usize) -> String {
    format!("model-{:05}-of-{total:05}.safetensors", i + 1)
}

/// `model.safetensors` or `model-NNNNN-of-NNNNN.safetensors`.
fn is_standard(file: &str) -> bool {
    let five_digits = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
    let numbers = file
        .strip_prefix("model-")
        .and_then(|rest| rest.strip_suffix(".safetensors"))
        .and_then(|numbers| numbers.split_once("-of-"));
    file == "model.safetensors" || numbers.is_some_and(|(i, n)| five_digits(i) && five_digits(n))
}
