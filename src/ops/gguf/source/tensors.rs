//! The tensors of a GGUF model in the names and the layout of Hugging Face.

use std::collections::HashSet;

use indexmap::IndexMap;

use crate::catalog::{Opened, Tensor};
use crate::error::{Code, Error, Result};
use crate::format::gguf::{Model, PlacedType};
use crate::format::{Checkpoint, LeftOut};
use crate::ops::gather::{concatenate, permute_for_rope};
use crate::ops::gguf::architecture::{Change, Found, Heads};
use crate::ops::gguf::source::arithmetic::Function;
use crate::ops::gguf::source::dequantize::decoded;
use crate::ops::gguf::source::metadata::Metadata;
use crate::ops::open::Numbers;
use crate::tensor::Name;

/// Factors of rotary embeddings, which config.json has as `rope_scaling`.
pub(super) const ROPE_FACTORS: &str = "rope_freqs.weight";

/// The most tensors that single experts are given as.
const MAX_EXPERTS: u64 = 1 << 18;

/// The tensors of `checkpoint`, which is `model`, as these `numbers`.
///
/// # Errors
/// If the architecture or a tensor is not known, or cannot be given so.
pub(in crate::ops) fn opened(
    checkpoint: Checkpoint,
    model: &Model,
    numbers: &Numbers,
) -> Result<Opened> {
    let source = Source {
        metadata: Metadata::new(model)?,
        checkpoint: &checkpoint,
        numbers,
    };
    let mut tensors = Tensors::default();
    let mut left_out = Vec::new();
    let mut done = HashSet::new();
    for name in model.types.keys() {
        if &**name == ROPE_FACTORS {
            let what = format!("{name}: config.json says the same by rope_scaling");
            left_out.push(LeftOut::from(what));
        } else if !done.contains(&**name) {
            source.give(name, &mut tensors, &mut done)?;
        }
    }
    let bytes = checkpoint.tensor_bytes();
    left_out.extend(checkpoint.left_out);
    Ok(Opened {
        path: checkpoint.path,
        attributes: checkpoint.attributes,
        shards: checkpoint.shards,
        tensors: tensors.0,
        bytes,
        aux: checkpoint.aux,
        left_out,
    })
}

/// Tensors in Hugging Face's names.
#[derive(Debug, Default)]
struct Tensors(IndexMap<Name, Tensor>);

/// A tensor as it is stored.
struct Stored {
    /// Plain numbers, or rows of bytes.
    rows: Tensor,
    placed: PlacedType,
}

#[derive(Debug, Clone, Copy)]
struct Source<'a> {
    metadata: Metadata<'a>,
    checkpoint: &'a Checkpoint,
    numbers: &'a Numbers,
}

impl Source<'_> {
    /// Gives the tensor that GGUF calls `name`, with those that are one with it; all of them are `done` then.
    fn give(self, name: &Name, tensors: &mut Tensors, done: &mut HashSet<String>) -> Result<()> {
        let architecture = self.metadata.architecture;
        let Some(found) = architecture.of_gguf(name).next() else {
            let problem = format!("the architecture {} has no such tensor", architecture.name);
            return Err(self.refuse(name, problem));
        };
        let parts: Vec<String> = found.gguf_names().collect();
        let mut stored = Vec::with_capacity(parts.len());
        for part in parts {
            stored.push(self.stored(&part, &found)?);
            done.insert(part);
        }
        match found.rule.change {
            Change::Stack => self.unstacked(name, &found, &stored[0], tensors),
            change => {
                let hf = found.hf_name();
                let tensor = self.changed(name, &hf, change, &stored)?;
                self.put(name, hf, tensor, tensors)
            }
        }
    }

    fn put(self, name: &Name, hf: String, tensor: Tensor, tensors: &mut Tensors) -> Result<()> {
        let hf: Name = hf.into();
        if tensors.0.contains_key(&hf) {
            let problem = format!("another tensor of the file is {hf}, too");
            return Err(self.refuse(name, problem));
        }
        tensors.0.insert(hf, tensor);
        Ok(())
    }

    fn refuse(self, name: &str, problem: String) -> Error {
        let shard = self.checkpoint.tensors.get(name);
        let shard = shard.map(|&shard| &self.checkpoint.shards[shard]);
        let file = shard.map_or(self.metadata.model.file.location(), |s| s.blob.location());
        Error::of_tensor(Code::UnsupportedTensor, file, name, problem)
    }

    fn stored(self, name: &str, found: &Found) -> Result<Stored> {
        let model = self.metadata.model;
        let Some((&shard, placed)) = self.checkpoint.tensors.get(name).zip(model.types.get(name))
        else {
            let problem = format!("it is missing, and needed for {}", found.hf_name());
            return Err(self.refuse(name, problem));
        };
        let (_, rows) = Tensor::stored(name, &self.checkpoint.shards[shard], None);
        Ok(Stored {
            rows,
            placed: placed.clone(),
        })
    }

    /// The numbers of `stored`, which is, or is a part of, what Hugging Face calls `hf`.
    fn decoded(self, hf: &str, stored: &Stored) -> Result<Tensor> {
        decoded(hf, &stored.rows, &stored.placed, self.numbers.dtype(hf))
    }

    /// The tensor `hf`, of which `change` made `stored`.
    fn changed(self, name: &str, hf: &str, change: Change, stored: &[Stored]) -> Result<Tensor> {
        let [first, ..] = stored else {
            unreachable!("a rule has names");
        };
        match change {
            // What was cut off is gone.
            Change::None | Change::CutVocabulary => self.decoded(hf, first),
            Change::Rope(heads) => {
                let key = match heads {
                    Heads::Attention => ".attention.head_count",
                    Heads::KeyValue => ".attention.head_count_kv",
                };
                let heads = match self.metadata.find_number(key)? {
                    Some(heads) => heads,
                    None => self.metadata.number(".attention.head_count")?,
                };
                // Rows of bytes move as rows of numbers do, and are fewer bytes.
                let is_matrix = first.placed.shape.len() > 1;
                if is_matrix {
                    let rows = permute_for_rope(hf, &first.rows, heads, false)?;
                    let placed = first.placed.clone();
                    return self.decoded(hf, &Stored { rows, placed });
                }
                permute_for_rope(hf, &self.decoded(hf, first)?, heads, false)
            }
            Change::PlusOne => Function::MinusOne.of(hf, &self.decoded(hf, first)?),
            Change::MinusExp => Function::LogOfNegative.of(hf, &self.decoded(hf, first)?),
            Change::Squeeze => {
                let tensor = self.decoded(hf, first)?;
                let [channels, width] = tensor.shape[..] else {
                    return Err(self.refuse(name, "it is no matrix".to_owned()));
                };
                Ok(tensor.slice(0, [channels, 1, width]))
            }
            Change::Halves => {
                let halves = stored.iter().map(|half| self.decoded(hf, half));
                concatenate(hf, &halves.collect::<Result<Vec<_>>>()?, 1)
            }
            _ => {
                let problem = format!("what becomes of it, {change:?}, cannot be undone yet");
                Err(self.refuse(name, problem))
            }
        }
    }

    /// The single experts of a stack.
    fn unstacked(
        self,
        name: &Name,
        found: &Found,
        stack: &Stored,
        tensors: &mut Tensors,
    ) -> Result<()> {
        let [experts, ref rest @ ..] = stack.placed.shape[..] else {
            return Err(self.refuse(name, "it has no dimension of experts".to_owned()));
        };
        if experts > MAX_EXPERTS || rest.is_empty() {
            let problem = format!("it has {experts} experts; at most {MAX_EXPERTS} are read");
            return Err(self.refuse(name, problem));
        }
        let row_shape = &stack.rows.shape[1..];
        let bytes = stack.rows.len() / experts.max(1);
        for expert in 0..experts {
            let hf = found.with_expert(Some(expert)).hf_name();
            let one = Stored {
                rows: stack.rows.slice(expert * bytes, row_shape),
                placed: PlacedType {
                    tensor_type: stack.placed.tensor_type,
                    shape: rest.into(),
                },
            };
            let tensor = self.decoded(&hf, &one)?;
            self.put(name, hf, tensor, tensors)?;
        }
        Ok(())
    }
}
