//! Checkpoints described in memory and written to a directory.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::Dtype;
use serde_json::{Map, Value, json};

use super::safetensors_file::serialize;
use super::values::{byte_len, dtype_name, encode, random_content};

/// A tensor with its content.
#[derive(Clone, PartialEq)]
pub(crate) struct TensorData {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Arc<[u8]>,
}

impl fmt::Debug for TensorData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dtype = dtype_name(self.dtype);
        write!(f, "{} {dtype} {:?}", self.name, self.shape)
    }
}

impl TensorData {
    pub(crate) fn new(name: &str, dtype: Dtype, shape: &[usize], bytes: Vec<u8>) -> Self {
        assert_eq!(bytes.len(), byte_len(dtype, shape), "{name}");
        TensorData {
            name: name.to_owned(),
            dtype,
            shape: shape.to_vec(),
            bytes: bytes.into(),
        }
    }
}

/// A tensor of seeded content.
pub(crate) fn tensor(name: &str, dtype: Dtype, shape: &[usize], seed: u64) -> TensorData {
    TensorData::new(name, dtype, shape, random_content(dtype, shape, seed))
}

/// A BF16 tensor whose seed is its name.
pub(crate) fn bf16(name: &str, shape: &[usize]) -> TensorData {
    let seed = name
        .bytes()
        .fold(7, |h, b| h * 31 % 1_000_003 + u64::from(b));
    tensor(name, Dtype::BF16, shape, seed)
}

/// A small BF16 matrix of each name.
pub(crate) fn small<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<TensorData> {
    names.into_iter().map(|name| bf16(name, &[2, 4])).collect()
}

/// A tensor of the given values, each rounded to `dtype`.
pub(crate) fn of_values(name: &str, dtype: Dtype, shape: &[usize], values: &[f32]) -> TensorData {
    TensorData::new(name, dtype, shape, encode(dtype, values))
}

/// One safetensors file of a checkpoint.
#[derive(Debug, Clone)]
pub(crate) struct Shard {
    pub(crate) file: String,
    /// Those that the index names, in offset order.
    pub(crate) tensors: Vec<TensorData>,
    /// In the header, after `tensors`, but not in the index.
    pub(crate) unnamed: Vec<TensorData>,
}

/// What the directory says about the order of its tensors.
#[derive(Debug, Clone)]
pub(crate) enum Index {
    /// No index file.
    Absent,
    /// An index that names tensors shard after shard.
    ByShard,
    /// An index in this order of names.
    Order(Vec<String>),
}

/// A whole checkpoint directory.
#[derive(Debug, Clone)]
pub(crate) struct Checkpoint {
    pub(crate) shards: Vec<Shard>,
    pub(crate) index: Index,
    pub(crate) aux: AuxFiles,
}

/// Relative path → content of every file that is neither shard nor index.
#[derive(Clone, Default)]
pub(crate) struct AuxFiles(pub(crate) BTreeMap<PathBuf, Vec<u8>>);

impl fmt::Debug for AuxFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// The config.json of checkpoints that do not bring their own.
pub(crate) const CONFIG: &str = r#"{
  "architectures": [
    "TestForCausalLM"
  ],
  "hidden_size": 256,
  "rms_norm_eps": 1e-06,
  "rope_theta": 10000.0,
  "torch_dtype": "bfloat16"
}
"#;

impl Checkpoint {
    /// No tensors yet, an index, and a plain config.json.
    pub(crate) fn new() -> Self {
        Checkpoint {
            shards: Vec::new(),
            index: Index::ByShard,
            aux: AuxFiles::default(),
        }
        .aux("config.json", CONFIG)
    }

    /// One `model.safetensors` without an index.
    pub(crate) fn single(tensors: impl IntoIterator<Item = TensorData>) -> Self {
        Checkpoint::new()
            .shard("model.safetensors", tensors)
            .without_index()
    }

    pub(crate) fn shard(
        mut self,
        file: &str,
        tensors: impl IntoIterator<Item = TensorData>,
    ) -> Self {
        self.shards.push(Shard {
            file: file.to_owned(),
            tensors: tensors.into_iter().collect(),
            unnamed: Vec::new(),
        });
        self
    }

    /// Puts tensors into the header of the last shard that the index does not name.
    pub(crate) fn unnamed(mut self, tensors: impl IntoIterator<Item = TensorData>) -> Self {
        let shard = self.shards.last_mut().expect("there is a shard");
        shard.unnamed.extend(tensors);
        self
    }

    pub(crate) fn without_index(mut self) -> Self {
        self.index = Index::Absent;
        self
    }

    pub(crate) fn index_order<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        self.index = Index::Order(names.into_iter().map(str::to_owned).collect());
        self
    }

    pub(crate) fn aux(mut self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.aux.0.insert(path.into(), content.as_ref().to_vec());
        self
    }

    pub(crate) fn config(self, text: &str) -> Self {
        self.aux("config.json", text)
    }

    pub(crate) fn without_config(mut self) -> Self {
        self.aux.0.remove(Path::new("config.json"));
        self
    }

    /// All tensors with the shard each is in, in the checkpoint's order: the index's, or, without
    /// one, files in name order and tensors in offset order.
    pub(crate) fn in_order(&self) -> Vec<(&TensorData, &Shard)> {
        let mut shards: Vec<&Shard> = self.shards.iter().collect();
        if let Index::Absent = self.index {
            shards.sort_by(|a, b| a.file.cmp(&b.file));
        }
        let by_shard: Vec<_> = shards
            .into_iter()
            .flat_map(|shard| shard.tensors.iter().map(move |tensor| (tensor, shard)))
            .collect();
        match &self.index {
            Index::Absent | Index::ByShard => by_shard,
            Index::Order(names) => {
                assert_eq!(names.len(), by_shard.len(), "the index names every tensor");
                let find = |name: &String| by_shard.iter().find(|(tensor, _)| tensor.name == *name);
                names
                    .iter()
                    .map(|name| *find(name).expect("the index names a tensor of the checkpoint"))
                    .collect()
            }
        }
    }

    /// The shards in the order in which [`Checkpoint::in_order`] first meets them.
    pub(crate) fn shards_in_order(&self) -> Vec<&Shard> {
        let mut shards: Vec<&Shard> = Vec::new();
        for (_, shard) in self.in_order() {
            if shards.iter().all(|seen| seen.file != shard.file) {
                shards.push(shard);
            }
        }
        shards
    }

    /// The tensor called `name`.
    pub(crate) fn get(&self, name: &str) -> &TensorData {
        let tensors = self.shards.iter().flat_map(|shard| &shard.tensors);
        let mut found = tensors.filter(|tensor| tensor.name == name);
        found.next().expect("the checkpoint has the tensor")
    }

    /// The text of the index.
    pub(crate) fn index_text(&self) -> String {
        let in_order = self.in_order();
        let total: usize = in_order.iter().map(|(tensor, _)| tensor.bytes.len()).sum();
        let map: Map<String, Value> = in_order
            .iter()
            .map(|(tensor, shard)| (tensor.name.clone(), shard.file.clone().into()))
            .collect();
        format!(
            "{:#}",
            json!({"metadata": {"total_size": total}, "weight_map": map})
        )
    }

    /// Writes everything into `directory`, which is made if need be.
    pub(crate) fn write(&self, directory: &Path) {
        fs::create_dir_all(directory).unwrap();
        for shard in &self.shards {
            let tensors = shard.tensors.iter().chain(&shard.unnamed);
            fs::write(directory.join(&shard.file), serialize(tensors)).unwrap();
        }
        if !matches!(self.index, Index::Absent) {
            let path = directory.join("model.safetensors.index.json");
            fs::write(path, self.index_text()).unwrap();
        }
        for (path, content) in &self.aux.0 {
            let path = directory.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
    }
}
