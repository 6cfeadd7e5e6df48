//! Models in the names of Megatron-Core (`torch_dist`), for models like Llama, Qwen2 and Qwen3: layers, and experts, may be
//! dimensions of one tensor, and matrices that read the same input are one.
//!
//! | Megatron-Core | Hugging Face |
//! |---|---|
//! | `linear_qkv`: for each head of keys, the rows of the heads of queries that read it, of it, and of its values | `q_proj`, `k_proj`, `v_proj` |
//! | `linear_fc1`: rows of the gate, then as many of the other half | `gate_proj`, `up_proj` |
//! | embedding and head, with rows of padding at the end | as many rows as `vocab_size` |
//! | `linear_qkv.layer_norm_weight`, `linear_fc1.layer_norm_weight` | `input_layernorm`, `post_attention_layernorm` |
//!
//! Source: Megatron-Core's `transformer_layer.py`, `mlp.py`, `attention.py` and `tools/checkpoint`.
//!
//! | file | about |
//! |---|---|
//! | `names.rs` | names |
//! | `split.rs` | fused tensors |

mod names;
mod split;

use std::path::Path;

use crate::catalog::Tensor;
use crate::error::{Code, Error, Result};
use crate::format::LeftOut;
use crate::ops::gather::unstack;
use crate::ops::training::expected::{Expected, Tensors};
use crate::ops::training::megatron::names::{Form, OUTSIDE, in_layer, layer_name};
use crate::ops::training::megatron::split::{Heads, halves, query_key_value};
use crate::shown::Show;
use crate::tensor::Name;

const EMBEDDING: &str = "embedding.word_embeddings.weight";

/// The most layers of a model, and experts of a layer.
const MAX_LAYERS: u64 = 1 << 16;
const MAX_EXPERTS: u64 = 1 << 18;

/// What stands before `names`, if they are Megatron-Core's. Others have embeddings of that name too.
pub(in crate::ops::training) fn prefix<'a>(
    names: impl Iterator<Item = &'a str> + Clone,
) -> Option<&'a str> {
    let mut embeddings = names.clone();
    let prefix = embeddings.find_map(|name| name.strip_suffix(EMBEDDING))?;
    let in_layer = |name: &str| {
        let rest = name.strip_prefix(prefix);
        rest.is_some_and(|rest| rest.starts_with("decoder.layers."))
    };
    names.into_iter().any(in_layer).then_some(prefix)
}

/// `tensors` of the checkpoint at `path` as Hugging Face has them. Those that are not known are `left_out`.
///
/// # Errors
/// If config.json does not fit them.
pub(in crate::ops::training) fn renamed(
    path: &Path,
    tensors: Tensors,
    expected: &Expected,
    left_out: &mut Vec<LeftOut>,
) -> Result<Tensors> {
    let mut renaming = Renaming {
        path,
        expected,
        renamed: Tensors::new(),
    };
    for (name, tensor) in tensors {
        if !renaming.tensor(&name, &tensor)? {
            let what = format!(
                "tensor {}: its place in the model is not known",
                name.shown()
            );
            left_out.push(what.into());
        }
    }
    Ok(renaming.renamed)
}

struct Renaming<'a> {
    path: &'a Path,
    expected: &'a Expected,
    renamed: Tensors,
}

impl Renaming<'_> {
    fn refuse(&self, name: &str, problem: String) -> Error {
        Error::of_tensor(Code::LikeMismatch, self.path, name, problem)
    }

    fn put(&mut self, name: String, tensor: Tensor) -> Result<()> {
        let name: Name = name.into();
        if self.renamed.contains_key(&name) {
            return Err(self.refuse(&name, "two tensors are this one".to_owned()));
        }
        self.renamed.insert(name, tensor);
        Ok(())
    }

    /// Puts what the tensor `name` is; whether it is known.
    fn tensor(&mut self, name: &str, tensor: &Tensor) -> Result<bool> {
        if let Some(&(_, hf, is_vocabulary)) = OUTSIDE.iter().find(|(own, ..)| *own == name) {
            let tensor = match is_vocabulary {
                true => self.without_padding(name, tensor)?,
                false => tensor.clone(),
            };
            self.put(hf.to_owned(), tensor)?;
            return Ok(true);
        }
        let Some((layer, rest)) = layer_name(name) else {
            return Ok(false);
        };
        if in_layer(rest).is_none() {
            return Ok(false);
        }
        match layer {
            Some(layer) => self.in_layer(name, layer, rest, tensor)?,
            None => {
                let layers = tensor.shape.first().copied().unwrap_or(0);
                if layers > MAX_LAYERS {
                    return Err(self.refuse(name, format!("it has {layers} layers")));
                }
                for (layer, tensor) in (0..).zip(unstack(name, tensor, 0)?) {
                    self.in_layer(name, layer, rest, &tensor)?;
                }
            }
        }
        Ok(true)
    }

    /// The tensor of a layer that is called `rest` in it.
    fn in_layer(&mut self, name: &str, layer: u64, rest: &str, tensor: &Tensor) -> Result<()> {
        let found = in_layer(rest).expect("it was looked up before");
        let place = format!("model.layers.{layer}");
        if !found.of_experts {
            return self.parts(name, &found.form, &place, tensor);
        }
        match found.expert {
            Some(expert) => {
                let place = format!("{place}.mlp.experts.{expert}");
                self.parts(name, &found.form, &place, tensor)
            }
            None => {
                let experts = tensor.shape.first().copied().unwrap_or(0);
                if experts > MAX_EXPERTS || tensor.shape.len() != 3 {
                    return Err(
                        self.refuse(name, "it is no stack of matrices of experts".to_owned())
                    );
                }
                for (expert, tensor) in unstack(name, tensor, 0)?.iter().enumerate() {
                    let place = format!("{place}.mlp.experts.{expert}");
                    self.parts(name, &found.form, &place, tensor)?;
                }
                Ok(())
            }
        }
    }

    /// Puts the parts of a tensor below `place`.
    fn parts(&mut self, name: &str, form: &Form, place: &str, tensor: &Tensor) -> Result<()> {
        match form {
            Form::Same(hf) => self.put(format!("{place}.{hf}"), tensor.clone()),
            Form::GateAndUp(module) => {
                let [gate, up] = halves(name, tensor)?;
                self.put(format!("{place}.{module}gate_proj.weight"), gate)?;
                self.put(format!("{place}.{module}up_proj.weight"), up)
            }
            Form::QueryKeyValue(kind) => {
                let heads = Heads::read(self.expected)?;
                let parts = query_key_value(name, tensor, heads)?;
                let parts = parts.ok_or_else(|| {
                    let problem = format!(
                        "it is {:?}, and config.json has {} heads, {} of keys, of {} rows: it is fused in another way",
                        tensor.shape, heads.queries, heads.keys, heads.rows
                    );
                    self.refuse(name, problem)
                })?;
                for (module, part) in ["q_proj", "k_proj", "v_proj"].iter().zip(parts) {
                    self.put(format!("{place}.self_attn.{module}.{kind}"), part)?;
                }
                Ok(())
            }
        }
    }

    /// The rows of `tensor` that are tokens.
    fn without_padding(&self, name: &str, tensor: &Tensor) -> Result<Tensor> {
        let tokens = self.expected.number("vocab_size")?;
        match tensor.shape[..] {
            [rows, columns] if rows >= tokens => Ok(tensor.slice(0, [tokens, columns])),
            _ => {
                let problem = format!(
                    "it is {:?}, and config.json has {tokens} tokens",
                    tensor.shape
                );
                Err(self.refuse(name, problem))
            }
        }
    }
}
