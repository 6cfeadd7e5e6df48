//! The index of a sharded checkpoint, `model.safetensors.index.json` or `pytorch_model.bin.index.json`: which shard
//! holds which tensor.

use std::fmt;
use std::path::Path;

use indexmap::map::Entry;
use indexmap::{IndexMap, IndexSet};
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::error::{Code, Error, Result};
use crate::format::text::Text;
use crate::source::not_json;
use crate::tensor::Name;

/// A parsed index. The order of its keys is kept: it is the checkpoint's own order.
#[derive(Debug, Deserialize)]
pub struct Index {
    pub weight_map: WeightMap,
}

/// Which tensor is in which shard.
#[derive(Debug, Default)]
pub struct WeightMap {
    /// Every tensor and the position of its shard in `shards`, in file order, each name once.
    pub tensors: IndexMap<Name, usize>,
    /// File names, in the order in which the tensors first give them.
    pub shards: IndexSet<String>,
}

impl Index {
    /// The longest index that is read: enough for millions of tensors.
    pub const MAX_BYTES: u64 = 512 << 20;

    /// Parses the text of the index at `path`.
    ///
    /// # Errors
    /// If it is not JSON with a `weight_map` of strings, names a tensor twice, or gives a shard
    /// that is not a plain file name (a path could lead out of the checkpoint).
    pub fn parse(text: &[u8], path: &Path) -> Result<Self> {
        let invalid = |problem: String| {
            Error::of_file(
                Code::BadIndex,
                path,
                format!("not a valid index: {problem}"),
            )
        };
        // Of a value that nobody asks for, the parser would not look at the bytes.
        let utf8 = std::str::from_utf8(text).map_err(|e| invalid(e.to_string()))?;
        let index: Index = serde_json::from_str(utf8).map_err(|e| invalid(not_json(text, &e)))?;
        let WeightMap { tensors, shards } = &index.weight_map;
        let outside = shards.iter().position(|shard| !is_plain_file_name(shard));
        if let Some((tensor, &shard)) = tensors.iter().find(|(_, s)| Some(**s) == outside) {
            return Err(Error::of_tensor(
                Code::BadIndex,
                path,
                tensor,
                format!(
                    "its shard {:?} is not a plain file name inside the directory",
                    shards[shard]
                ),
            ));
        }
        Ok(index)
    }
}

fn is_plain_file_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\0'])
}

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = WeightMap;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a map from tensor names to shard file names")
            }

            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<WeightMap, A::Error> {
                let mut weights = WeightMap::default();
                while let Some((Text(tensor), Text(shard))) = map.next_entry::<Text, Text>()? {
                    let shard = match weights.shards.get_index_of(&*shard) {
                        Some(position) => position,
                        None => weights.shards.insert_full(shard.into_owned()).0,
                    };
                    match weights.tensors.entry(tensor.into()) {
                        Entry::Vacant(entry) => entry.insert(shard),
                        Entry::Occupied(entry) => {
                            return Err(A::Error::custom(format!(
                                "tensor {} is listed twice in weight_map",
                                entry.key()
                            )));
                        }
                    };
                }
                Ok(weights)
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// The text of the index of `tensors`, each with the name of its shard and its length in bytes. Keys
/// are in this order: that of shards, and of offsets within a shard.
pub(super) fn text<'a>(tensors: impl Iterator<Item = (&'a Name, &'a str, u64)> + Clone) -> Vec<u8> {
    #[derive(Serialize)]
    struct Metadata {
        total_size: u64,
    }
    #[derive(Serialize)]
    struct Index<W: Serialize> {
        metadata: Metadata,
        weight_map: W,
    }
    struct Entries<I>(I);
    impl<'a, I: Iterator<Item = (&'a Name, &'a str, u64)> + Clone> Serialize for Entries<I> {
        fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
            serializer.collect_map(self.0.clone().map(|(name, shard, _)| (name, shard)))
        }
    }
    let index = Index {
        metadata: Metadata {
            total_size: tensors.clone().map(|(.., len)| len).sum(),
        },
        weight_map: Entries(tensors.clone()),
    };
    // A line has twelve characters beside its two names.
    let lines = tensors.map(|(name, shard, _)| name.len() + shard.len() + 12);
    let mut text = Vec::with_capacity(100 + lines.sum::<usize>());
    serde_json::to_writer_pretty(&mut text, &index).expect("strings and numbers have a JSON text");
    text.push(b'\n');
    text
}
