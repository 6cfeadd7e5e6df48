//! The tensors of a GGUF model in the names and the layout of Hugging Face.

use std::collections::HashSet;

use indexmap::IndexMap;

use crate::catalog::{Opened, Tensor};
use crate::error::{Code, Error, Result};
use crate::format::gguf::{Model, PlacedType};
use crate::format::{Checkpoint, LeftOut};
use crate::ops::convert;
use crate::ops::gather::{concatenate, interleave, permute_for_rope, transpose};
use crate::ops::gguf::architecture::{Change, Found, Heads};
use crate::ops::gguf::source::arithmetic::Function;
use crate::ops::gguf::source::dequantize::decoded;
use crate::ops::gguf::source::forms::{LinearHeads, key_value, with_middle};
use crate::ops::gguf::source::metadata::Metadata;
use crate::ops::numbers::Numbers;
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
    let metadata = Metadata::new(model)?;
    let source = Source {
        metadata,
        checkpoint: &checkpoint,
        numbers,
        first_predictor: first_predictor(metadata)?,
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
        notes: checkpoint.notes,
    })
}

/// The first layer that predicts more tokens, if there are such layers.
///
/// # Errors
/// If there are more of them than layers.
pub(super) fn first_predictor(metadata: Metadata) -> Result<Option<u64>> {
    const KEY: &str = ".nextn_predict_layers";
    // Others have them among their layers, in Hugging Face's layout too.
    if !metadata.architecture.name.starts_with("qwen3") {
        return Ok(None);
    }
    let Some(count) = metadata.find_number(KEY)?.filter(|count| *count > 0) else {
        return Ok(None);
    };
    let layers = metadata.number(".block_count")?;
    let first = layers.checked_sub(count);
    let first = first.ok_or_else(|| metadata.bad(KEY, "is more than block_count"))?;
    Ok(Some(first))
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
    /// The first layer that predicts more tokens, if there are such layers.
    first_predictor: Option<u64>,
}

impl Source<'_> {
    /// Gives the tensor that GGUF calls `name`, with those that are one with it; all of them are `done` then.
    fn give(self, name: &Name, tensors: &mut Tensors, done: &mut HashSet<String>) -> Result<()> {
        let architecture = self.metadata.architecture;
        let mut all = architecture.of_gguf(name);
        let Some(found) = all.find(|found| self.is_given(found)) else {
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
                let mut tensor = self.changed(&hf, change, &stored)?;
                if hf.ends_with(".mlp.shared_expert_gate.weight") && tensor.shape.len() == 1 {
                    // ggml drops a leading dimension of 1.
                    tensor = tensor.slice(0, [1, tensor.shape[0]]);
                }
                self.put(name, hf, tensor, tensors)
            }
        }
    }

    /// Whether a form is the one in which published checkpoints have the tensor.
    fn is_given(self, found: &Found) -> bool {
        // Of the architectures that have experts in two forms, these are published with fused ones.
        let is_fused = self.metadata.architecture.name == "qwen35moe";
        match found.rule.change {
            Change::Mxfp4 | Change::Mxfp4EvenOdd => false,
            Change::Stack => !is_fused,
            _ => true,
        }
    }

    fn put(self, name: &Name, hf: String, tensor: Tensor, tensors: &mut Tensors) -> Result<()> {
        let hf: Name = self.predictor(hf).into();
        if tensors.0.contains_key(&hf) {
            let problem = format!("another tensor of the file is {hf}, too");
            return Err(self.refuse(name, problem));
        }
        tensors.0.insert(hf, tensor);
        Ok(())
    }

    /// `hf`, or what it is called in the layers after all others that predict more tokens.
    fn predictor(self, hf: String) -> String {
        const SHARED: [(&str, &str); 4] = [
            ("eh_proj", "fc"),
            ("enorm", "pre_fc_norm_embedding"),
            ("hnorm", "pre_fc_norm_hidden"),
            ("shared_head.norm", "norm"),
        ];
        let Some(first) = self.first_predictor else {
            return hf;
        };
        let rest = hf.strip_prefix("model.layers.");
        let Some((layer, rest)) = rest.and_then(|rest| rest.split_once('.')) else {
            return hf;
        };
        let Some(i) = layer
            .parse()
            .ok()
            .and_then(|layer: u64| layer.checked_sub(first))
        else {
            return hf;
        };
        let (module, end) = rest.rsplit_once('.').unwrap_or((rest, ""));
        match SHARED.iter().find(|(known, _)| *known == module) {
            Some((_, shared)) => format!("mtp.{shared}.{end}"),
            None => format!("mtp.layers.{i}.{rest}"),
        }
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

    /// The numbers of all of `stored`, which are parts of what Hugging Face calls `hf`, in one dtype.
    fn all_decoded(self, hf: &str, stored: &[Stored]) -> Result<Vec<Tensor>> {
        let tensors = stored.iter().map(|part| self.decoded(hf, part));
        let tensors = tensors.collect::<Result<Vec<_>>>()?;
        if tensors
            .iter()
            .all(|tensor| tensor.dtype == tensors[0].dtype)
        {
            return Ok(tensors);
        }
        let to = self.numbers.dtype(hf);
        tensors
            .iter()
            .map(|tensor| convert(hf, tensor, to))
            .collect()
    }

    /// The tensor `hf`, of which `change` made `stored`.
    fn changed(self, hf: &str, change: Change, stored: &[Stored]) -> Result<Tensor> {
        let [first, ..] = stored else {
            unreachable!("a rule has names");
        };
        match change {
            // What was cut off is gone.
            Change::None | Change::CutVocabulary => self.decoded(hf, first),
            Change::Rope(heads) => {
                let heads = self.heads(heads)?;
                self.moved(hf, first, |rows| permute_for_rope(hf, rows, heads, false))
            }
            Change::PlusOne => Function::MinusOne.of(hf, &self.decoded(hf, first)?),
            Change::MinusExp => Function::LogOfNegative.of(hf, &self.decoded(hf, first)?),
            Change::Squeeze => with_middle(hf, &self.decoded(hf, first)?),
            Change::Halves => concatenate(hf, &self.all_decoded(hf, stored)?, 1),
            Change::EvenOdd => interleave(hf, &self.all_decoded(hf, stored)?, 1),
            Change::EvenOddTransposed => {
                let rows = interleave(hf, &self.all_decoded(hf, stored)?, 1)?;
                transpose(hf, &rows)
            }
            Change::Transpose => transpose(hf, &self.decoded(hf, first)?),
            Change::SplitKeyValue => key_value(hf, &self.all_decoded(hf, stored)?),
            Change::SplitByKeyHead => {
                let heads = LinearHeads::read(self.metadata)?;
                heads.by_key_head(hf, &self.all_decoded(hf, stored)?)
            }
            Change::TileRows | Change::TileHeads => {
                let heads = LinearHeads::read(self.metadata)?;
                self.moved(hf, first, |rows| heads.untiled(hf, rows))
            }
            Change::SqueezeAndTile => {
                let heads = LinearHeads::read(self.metadata)?;
                let channels = self.moved(hf, first, |rows| heads.untiled(hf, rows))?;
                with_middle(hf, &channels)
            }
            Change::TileHeadsMinusExp => {
                let heads = LinearHeads::read(self.metadata)?;
                let decay = self.moved(hf, first, |rows| heads.untiled(hf, rows))?;
                Function::LogOfNegative.of(hf, &decay)
            }
            Change::TileColumns => {
                let heads = LinearHeads::read(self.metadata)?;
                heads.untiled_columns(hf, &self.decoded(hf, first)?)
            }
            Change::Stack | Change::Mxfp4 | Change::Mxfp4EvenOdd => {
                unreachable!("stacks are taken apart, and MXFP4 is given as numbers")
            }
        }
    }

    /// The numbers of `stored`, called `hf`, once its rows were moved. Rows of bytes move as rows of numbers do, and
    /// are fewer bytes.
    fn moved(
        self,
        hf: &str,
        stored: &Stored,
        move_rows: impl Fn(&Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        if stored.placed.shape.len() < 2 {
            return move_rows(&self.decoded(hf, stored)?);
        }
        let rows = move_rows(&stored.rows)?;
        let placed = stored.placed.clone();
        self.decoded(hf, &Stored { rows, placed })
    }

    fn heads(self, heads: Heads) -> Result<u64> {
        let all = ".attention.head_count";
        if heads == Heads::KeyValue
            && let Some(heads) = self.metadata.find_number(".attention.head_count_kv")?
        {
            return Ok(heads);
        }
        self.metadata.number(all)
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
