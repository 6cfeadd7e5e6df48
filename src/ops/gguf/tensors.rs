//! The tensors of a view in GGUF's names and layout, before they are encoded.

use std::collections::BTreeMap;

use crate::catalog::{CONFIG_FILE, Tensor};
use crate::error::setting::{DROP, EXPERTS, GGUF};
use crate::error::{Code, Error, Hint, Result};
use crate::ops::gather;
use crate::ops::gguf::architecture::{
    Architecture, Change, Found, Heads, TensorRule, is_left_out, without_module,
};
use crate::ops::gguf::metadata::Hparams;
use crate::ops::gguf::numbers::{self, Function};
use crate::tensor::shape_text;

/// What becomes of tensors.
pub(super) struct Arranging<'a> {
    pub architecture: &'static Architecture,
    pub hparams: &'a Hparams,
    /// How many rows of the embedding are of tokens, where others are cut off.
    pub vocabulary: Option<u64>,
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
    ) -> Result<Vec<(String, Tensor)>> {
        let mut arranged = Vec::new();
        let mut waiting = Waiting::new();
        for (hf_name, tensor) in tensors {
            if is_left_out(hf_name) {
                continue;
            }
            let Some(found) = self.architecture.of_hf(&without_module(hf_name)) else {
                return Err(self.unknown(hf_name, tensor));
            };
            if found.rule.change == Change::Stack {
                self.wait(found, tensor, &mut waiting, &mut arranged)?;
                continue;
            }
            let names: Vec<String> = found.gguf_names().collect();
            let made = self.change(hf_name, tensor, found.rule.change)?;
            arranged.extend(names.into_iter().zip(made));
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
        arranged: &mut Vec<(String, Tensor)>,
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
                arranged.push((name.clone(), gather::stack(&name, &tensors, 0)?));
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
            _ => unreachable!("only what can be written is arranged"),
        }
    }

    fn misshapen(&self, name: &str, tensor: &Tensor, expected: &str) -> Error {
        let shape = shape_text(&tensor.shape);
        let problem = format!("its shape is {shape}; {expected} was expected");
        Error::of_tensor(Code::UnsupportedTensor, tensor.origin(), name, problem)
    }
}
