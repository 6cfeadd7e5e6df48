//! The tensors of a view in GGUF's names and layout, before they are encoded.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::catalog::{CONFIG_FILE, Tensor};
use crate::error::setting::{DROP, EXPERTS, GGUF};
use crate::error::{Code, Error, Hint, Result};
use crate::format::gguf::PlacedType;
use crate::ops::gather;
use crate::ops::gguf::architecture::{
    Architecture, Change, Found, Heads, TensorRule, is_left_out, without_module,
};
use crate::ops::gguf::metadata::Hparams;
use crate::ops::gguf::mxfp4;
use crate::ops::gguf::numbers::{self, Function};
use crate::tensor::{Shape, shape_text};

/// What becomes of tensors.
pub(super) struct Arranging<'a> {
    pub architecture: &'static Architecture,
    pub hparams: &'a Hparams,
    /// How many rows of the embedding are of tokens, where others are cut off.
    pub vocabulary: Option<u64>,
}

/// A tensor in GGUF's name and layout.
#[derive(Debug)]
pub(super) struct Arranged {
    pub name: String,
    /// Numbers, or rows of the blocks that `blocks` says.
    pub tensor: Tensor,
    /// What it is stored in, where that are blocks of GGUF already.
    pub blocks: Option<PlacedType>,
}

impl Arranged {
    pub(super) fn numbers(name: impl Into<String>, tensor: Tensor) -> Self {
        Arranged {
            name: name.into(),
            tensor,
            blocks: None,
        }
    }

    /// The shape of its elements.
    pub(super) fn shape(&self) -> &Shape {
        match &self.blocks {
            Some(blocks) => &blocks.shape,
            None => &self.tensor.shape,
        }
    }
}

/// Single experts of a layer that wait for the others, by the rule's name and their number.
type Waiting = BTreeMap<u64, BTreeMap<(&'static str, u64), (Found, Tensor)>>;

impl Arranging<'_> {
    /// `tensors` with their names in Hugging Face's layout, in the order in which the converter meets them;
    /// the result is in the order in which it writes them.
    ///
    /// # Errors
    /// If a tensor has no name in GGUF, or not the shape that config.json says.
    pub(super) fn arrange<'t>(
        &self,
        tensors: impl Iterator<Item = (&'t str, &'t Tensor)>,
    ) -> Result<Vec<Arranged>> {
        let tensors: Vec<(&str, &Tensor)> = tensors.collect();
        let (mut arranged, repacked) = self.mxfp4(&tensors)?;
        let mut waiting = Waiting::new();
        for (hf_name, tensor) in tensors {
            if is_left_out(hf_name) || repacked.contains(hf_name) {
                continue;
            }
            let name = self.in_layers(&without_module(hf_name));
            if self.is_beyond(&name) {
                continue;
            }
            let Some(found) = self.architecture.of_hf(&name) else {
                return Err(self.unknown(hf_name, tensor));
            };
            if found.rule.change == Change::Stack {
                self.wait(found, tensor, &mut waiting, &mut arranged)?;
                continue;
            }
            let made = self.change(hf_name, tensor, found.rule.change)?;
            let made = found.gguf_names().zip(made);
            arranged.extend(made.map(|(name, tensor)| Arranged::numbers(name, tensor)));
        }
        match waiting.first_key_value() {
            None => Ok(arranged),
            Some((layer, experts)) => {
                let (found, tensor) = experts.values().next().expect("one waits");
                let problem = format!(
                    "layer {layer} has {} of the {} tensors of its experts",
                    experts.len(),
                    self.stacks().count() as u64 * self.experts()?,
                );
                let name = found.hf_name();
                let code = Code::ExpertsIncomplete;
                Err(Error::of_tensor(code, tensor.origin(), name, problem))
            }
        }
    }

    /// The weights of experts that are in MXFP4, which the converter writes first, and the names of the tensors that
    /// they are made of.
    fn mxfp4<'t>(
        &self,
        tensors: &[(&'t str, &Tensor)],
    ) -> Result<(Vec<Arranged>, HashSet<&'t str>)> {
        let by_name: HashMap<&str, (&'t str, &Tensor)> =
            tensors.iter().map(|pair| (pair.0, *pair)).collect();
        let mut arranged = Vec::new();
        let mut names = HashSet::new();
        for &(scales_name, scales) in tensors {
            let Some(weight) = scales_name.strip_suffix("_scales") else {
                continue;
            };
            let name = format!("{weight}_blocks");
            let Some(found) = self.architecture.of_hf(&without_module(&name)) else {
                continue;
            };
            let halves = match found.rule.change {
                Change::Mxfp4 => 1,
                Change::Mxfp4EvenOdd => 2,
                _ => continue,
            };
            let Some(&(codes_name, codes)) = by_name.get(&*name) else {
                let problem = format!("there is no {name} that goes with it");
                let code = Code::MissingWeight;
                return Err(Error::of_tensor(
                    code,
                    scales.origin(),
                    scales_name,
                    problem,
                ));
            };
            let codes = gather::deinterleave(codes_name, codes, 1, halves)?;
            let scales = gather::deinterleave(scales_name, scales, 1, halves)?;
            for (name, (codes, scales)) in found.gguf_names().zip(codes.iter().zip(&scales)) {
                let (tensor, blocks) = mxfp4::repacked(codes_name, codes, scales)?;
                arranged.push(Arranged {
                    name,
                    tensor,
                    blocks: Some(blocks),
                });
            }
            names.extend([codes_name, scales_name]);
        }
        Ok((arranged, names))
    }

    /// `name`, or that of a layer after all others, if it is of one that predicts more tokens.
    fn in_layers(&self, name: &str) -> String {
        let layers = self.hparams.whole("num_hidden_layers").unwrap_or_default();
        let Some(rest) = mtp_part(name).filter(|_| self.architecture.has_nextn()) else {
            return name.to_owned();
        };
        if let Some((layer, rest)) = mtp_layer(rest) {
            return format!("model.layers.{}.{rest}", layers.saturating_add(layer));
        }
        let (module, end) = rest.split_once('.').unwrap_or((rest, ""));
        let module = match module {
            "fc" => "eh_proj",
            "pre_fc_norm_embedding" => "enorm",
            "pre_fc_norm_hidden" => "hnorm",
            "norm" => "shared_head.norm",
            other => other,
        };
        format!("model.layers.{layers}.{module}.{end}")
    }

    /// Whether the tensor is one that the converter leaves out of DeepSeek's: of the layers that predict more
    /// tokens, or of a head that is tied.
    fn is_beyond(&self, name: &str) -> bool {
        if self.architecture.name != "deepseek2" {
            return false;
        }
        let layers = self.hparams.whole("num_hidden_layers").unwrap_or_default();
        let layer = name
            .strip_prefix("model.layers.")
            .and_then(|rest| rest.split_once('.'));
        let layer = layer.and_then(|(layer, _)| layer.parse::<u64>().ok());
        let is_tied = self
            .hparams
            .get("tie_word_embeddings")
            .and_then(serde_json::Value::as_bool);
        layer.is_some_and(|layer| layer >= layers)
            || name == "lm_head.weight" && is_tied == Some(true)
    }

    fn unknown(&self, name: &str, tensor: &Tensor) -> Error {
        let problem = format!(
            "GGUF has no name for it in the architecture {}",
            self.architecture.name
        );
        let error = Error::of_tensor(Code::UnsupportedTensor, tensor.origin(), name, problem);
        let mut hint = Hint::give(DROP).to("leave it out");
        if name.contains(".experts.") {
            hint = hint.or(Hint::give(EXPERTS).to("give the experts in the other form"));
        }
        error.about(GGUF).with_hint(hint)
    }

    /// The rules of stacks of experts, in the order in which they are written.
    fn stacks(&self) -> impl Iterator<Item = &'static TensorRule> {
        let rules = self.architecture.tensors.iter().copied().flatten();
        rules.filter(|rule| rule.change == Change::Stack)
    }

    fn experts(&self) -> Result<u64> {
        const KEYS: [&str; 3] = ["num_local_experts", "num_experts", "n_routed_experts"];
        let experts = self
            .hparams
            .first(&KEYS)
            .and_then(serde_json::Value::as_u64);
        experts.ok_or_else(|| self.hparams.missing("num_experts"))
    }

    /// Has `tensor`, one expert's, wait for the others of its layer, and stacks them once they are there.
    fn wait(
        &self,
        found: Found,
        tensor: &Tensor,
        waiting: &mut Waiting,
        arranged: &mut Vec<Arranged>,
    ) -> Result<()> {
        let layer = found.layer.unwrap_or_default();
        let experts = self.experts()?;
        let key = (found.rule.hf, found.expert.unwrap_or_default());
        if key.1 >= experts {
            let problem = format!("{CONFIG_FILE} says that there are {experts} experts");
            let name = found.hf_name();
            return Err(Error::of_tensor(
                Code::ConfigMismatch,
                tensor.origin(),
                name,
                problem,
            ));
        }
        let here = waiting.entry(layer).or_default();
        here.insert(key, (found, tensor.clone()));
        if (here.len() as u64) < self.stacks().count() as u64 * experts {
            return Ok(());
        }
        let here = waiting.remove(&layer).expect("it was there");
        for rule in self.stacks() {
            let of_rule = here.range((rule.hf, 0)..=(rule.hf, u64::MAX));
            let of_rule: Vec<&(Found, Tensor)> = of_rule.map(|(_, expert)| expert).collect();
            let (found, _) = of_rule[0];
            let tensors: Vec<Tensor> = of_rule.iter().map(|(_, tensor)| tensor.clone()).collect();
            for name in found.gguf_names() {
                let stack = gather::stack(&name, &tensors, 0)?;
                arranged.push(Arranged::numbers(name, stack));
            }
        }
        Ok(())
    }

    /// What `change` makes of `tensor`, called `name`.
    fn change(&self, name: &str, tensor: &Tensor, change: Change) -> Result<Vec<Tensor>> {
        let one = |tensor: Result<Tensor>| tensor.map(|tensor| vec![tensor]);
        match change {
            Change::None => Ok(vec![tensor.clone()]),
            Change::Rope(heads) => {
                let key = match heads {
                    Heads::Attention => "num_attention_heads",
                    Heads::KeyValue => "num_key_value_heads",
                };
                let heads = self.hparams.need(key)?;
                one(gather::permute_for_rope(name, tensor, heads, true))
            }
            Change::PlusOne => one(numbers::apply(name, tensor, Function::PlusOne)),
            Change::MinusExp => one(numbers::apply(name, tensor, Function::MinusExp)),
            Change::CutVocabulary => {
                let rows = tensor.shape.first().copied().unwrap_or_default();
                let kept = self.vocabulary.unwrap_or(rows).min(rows);
                one(gather::narrow(name, tensor, 0, 0..kept))
            }
            Change::Halves => match tensor.shape[..] {
                [_, rows, _] if rows.is_multiple_of(2) => gather::chunk(name, tensor, 1, 2),
                _ => Err(self.misshapen(name, tensor, "[E, 2R, C]")),
            },
            Change::Squeeze => Ok(vec![squeezed(tensor)]),
            Change::SqueezeAndTile => one(self.tile_rows(name, &squeezed(tensor))),
            Change::TileRows => one(self.tile_rows(name, tensor)),
            Change::TileHeads => one(self.tile(name, tensor, 0)),
            Change::TileHeadsMinusExp => {
                let tiled = self.tile(name, tensor, 0)?;
                one(numbers::apply(name, &tiled, Function::MinusExp))
            }
            Change::TileColumns => one(self.tile(name, tensor, 1)),
            Change::SplitByKeyHead => self.split_by_key_head(name, tensor),
            Change::SplitKeyValue => self.split_key_value(name, tensor),
            Change::EvenOdd => gather::deinterleave(name, tensor, 1, 2),
            Change::EvenOddTransposed => {
                gather::deinterleave(name, &gather::transpose(name, tensor)?, 1, 2)
            }
            Change::Transpose => one(gather::transpose(name, tensor)),
            Change::Mxfp4 | Change::Mxfp4EvenOdd => {
                let scales = name.replace("_blocks", "_scales");
                let problem = format!("there is no {scales} that goes with it");
                let code = Code::MissingScales;
                Err(Error::of_tensor(code, tensor.origin(), name, problem))
            }
            Change::Stack => unreachable!("single experts wait for the others"),
        }
    }

    /// Key heads, and value heads for each of them.
    fn linear_heads(&self) -> Result<(u64, u64)> {
        let keys = self.hparams.need("linear_num_key_heads")?;
        let values = self.hparams.need("linear_num_value_heads")?;
        if keys == 0 || !values.is_multiple_of(keys) {
            let problem = "it must be a multiple of linear_num_key_heads";
            return Err(self.hparams.bad("linear_num_value_heads", problem));
        }
        Ok((keys, values / keys))
    }

    /// The value heads along `dimension` in tiled order.
    fn tile(&self, name: &str, tensor: &Tensor, dimension: usize) -> Result<Tensor> {
        let (keys, each) = self.linear_heads()?;
        let len = tensor.shape.get(dimension).copied().unwrap_or_default();
        let heads = keys * each;
        if each == 1 {
            return Ok(tensor.clone());
        }
        if heads == 0 || !len.is_multiple_of(heads) {
            return Err(self.misshapen(name, tensor, &format!("a multiple of {heads} heads")));
        }
        let (before, after) = tensor.shape.split_at(dimension);
        let by_head = [before, &[heads, len / heads], &after[1..]].concat();
        let by_head = tensor.slice(0, by_head);
        let parts = gather::deinterleave(name, &by_head, dimension, each)?;
        let tiled = gather::concatenate(name, &parts, dimension)?;
        Ok(tiled.slice(0, &*tensor.shape))
    }

    /// The same of rows, where those of queries and keys come first and stay.
    fn tile_rows(&self, name: &str, tensor: &Tensor) -> Result<Tensor> {
        let (keys, each) = self.linear_heads()?;
        let values = keys * each * self.hparams.need("linear_value_head_dim")?;
        let rows = tensor.shape.first().copied().unwrap_or_default();
        let Some(kept) = rows.checked_sub(values) else {
            return Err(self.misshapen(name, tensor, &format!("at least {values} rows")));
        };
        let tiled = self.tile(name, &gather::narrow(name, tensor, 0, kept..rows)?, 0)?;
        if kept == 0 {
            return Ok(tiled);
        }
        let kept = gather::narrow(name, tensor, 0, 0..kept)?;
        gather::concatenate(name, &[kept, tiled], 0)
    }

    /// All of q, k and v, and all of z, of a projection that has them by key head.
    fn split_by_key_head(&self, name: &str, tensor: &Tensor) -> Result<Vec<Tensor>> {
        let (keys, each) = self.linear_heads()?;
        let key = self.hparams.need("linear_key_head_dim")?;
        let value = each * self.hparams.need("linear_value_head_dim")?;
        let rows = 2 * key + 2 * value;
        let &[found, columns] = &tensor.shape[..] else {
            return Err(self.misshapen(name, tensor, "a matrix"));
        };
        if found != keys * rows {
            return Err(self.misshapen(name, tensor, &format!("{} rows", keys * rows)));
        }
        let by_head = tensor.slice(0, [keys, rows, columns]);
        let part = |range: std::ops::Range<u64>| {
            let len = range.end - range.start;
            let part = gather::narrow(name, &by_head, 1, range)?;
            Ok(part.slice(0, [keys * len, columns]))
        };
        let q = part(0..key)?;
        let k = part(key..2 * key)?;
        let v = part(2 * key..2 * key + value)?;
        let z = part(2 * key + value..rows)?;
        Ok(vec![gather::concatenate(name, &[q, k, v], 0)?, z])
    }

    /// The keys of each head, transposed, and the values of each head.
    fn split_key_value(&self, name: &str, tensor: &Tensor) -> Result<Vec<Tensor>> {
        let heads = self.hparams.need("num_key_value_heads")?;
        let key = self.hparams.need("qk_nope_head_dim")?;
        let value = self.hparams.need("v_head_dim")?;
        let &[rows, rank] = &tensor.shape[..] else {
            return Err(self.misshapen(name, tensor, "a matrix"));
        };
        if rows != heads * (key + value) {
            let expected = format!("{} rows", heads * (key + value));
            return Err(self.misshapen(name, tensor, &expected));
        }
        let by_head = tensor.slice(0, [heads, key + value, rank]);
        let keys = gather::narrow(name, &by_head, 1, 0..key)?;
        let values = gather::narrow(name, &by_head, 1, key..key + value)?;
        Ok(vec![gather::transpose(name, &keys)?, values])
    }

    fn misshapen(&self, name: &str, tensor: &Tensor, expected: &str) -> Error {
        let shape = shape_text(&tensor.shape);
        let problem = format!("its shape is {shape}; {expected} was expected");
        Error::of_tensor(Code::UnsupportedTensor, tensor.origin(), name, problem)
    }
}

/// What follows `mtp.` in the name of a tensor of layers that predict more tokens.
pub(super) fn mtp_part(name: &str) -> Option<&str> {
    name.strip_prefix("model.")
        .unwrap_or(name)
        .strip_prefix("mtp.")
}

/// The number of such a layer, and the rest of the name.
pub(super) fn mtp_layer(rest: &str) -> Option<(u64, &str)> {
    let (layer, rest) = rest.strip_prefix("layers.")?.split_once('.')?;
    Some((layer.parse().ok()?, rest))
}

/// Without dimensions of length 1.
fn squeezed(tensor: &Tensor) -> Tensor {
    let shape = tensor.shape.iter().copied().filter(|len| *len != 1);
    tensor.slice(0, shape.collect::<Vec<u64>>())
}
