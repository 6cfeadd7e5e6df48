//! `model.safetensors.index.json`: which shard holds which tensor.

use std::fmt;
use std::path::Path;

use indexmap::IndexMap;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};

use crate::error::{Error, Result};

/// The file name of an index.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// A parsed index. The order of its keys is kept: it is the checkpoint's own order.
#[derive(Debug, Deserialize)]
pub struct Index {
    /// Tensor name → shard file name.
    pub weight_map: WeightMap,
}

/// Tensor name → shard file name, in file order, each name once.
#[derive(Debug, Default)]
pub struct WeightMap(pub IndexMap<String, String>);

impl Index {
    /// The longest index that is read: enough for millions of tensors.
    pub const MAX_BYTES: u64 = 512 << 20;

    /// Parses the text of the index at `path`.
    ///
    /// # Errors
    /// If it is not JSON with a `weight_map` of strings, names a tensor twice, or gives a shard
    /// that is not a plain file name (a path could lead out of the checkpoint).
    pub fn parse(text: &[u8], path: &Path) -> Result<Self> {
        let index: Index = serde_json::from_slice(text)
            .map_err(|e| Error::checkpoint(path, format!("not a valid index: {e}")))?;
        for (tensor, shard) in &index.weight_map.0 {
            if !is_plain_file_name(shard) {
                return Err(Error::tensor(
                    path,
                    tensor,
                    format!("its shard {shard:?} is not a plain file name inside the directory"),
                ));
            }
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
                let mut entries = IndexMap::new();
                while let Some((tensor, shard)) = map.next_entry::<String, String>()? {
                    if entries.contains_key(&tensor) {
                        return Err(A::Error::custom(format!(
                            "tensor {tensor} is listed twice in weight_map"
                        )));
                    }
                    entries.insert(tensor, shard);
                }
                Ok(WeightMap(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}
