//! Llama in Meta's names, as Meta publishes it and torchtitan trains it: other names, and in the rows of each head of query
//! and key the two numbers of a rotated pair are next to each other.
//!
//! Source: transformers' `convert_llama_weights_to_hf.py`.

use std::path::Path;

use crate::error::{Code, Error, Result};
use crate::format::LeftOut;
use crate::ops::gather::permute_for_rope;
use crate::ops::training::expected::{Expected, Tensors};
use crate::shown::Show;
use crate::tensor::Name;

const EMBEDDING: &str = "tok_embeddings.weight";

/// Names outside and inside of layers.
const OUTSIDE: [(&str, &str); 3] = [
    (EMBEDDING, "model.embed_tokens.weight"),
    ("norm.weight", "model.norm.weight"),
    ("output.weight", "lm_head.weight"),
];
const INSIDE: [(&str, &str); 9] = [
    ("attention.wq.weight", "self_attn.q_proj.weight"),
    ("attention.wk.weight", "self_attn.k_proj.weight"),
    ("attention.wv.weight", "self_attn.v_proj.weight"),
    ("attention.wo.weight", "self_attn.o_proj.weight"),
    ("feed_forward.w1.weight", "mlp.gate_proj.weight"),
    ("feed_forward.w2.weight", "mlp.down_proj.weight"),
    ("feed_forward.w3.weight", "mlp.up_proj.weight"),
    ("attention_norm.weight", "input_layernorm.weight"),
    ("ffn_norm.weight", "post_attention_layernorm.weight"),
];

/// Models whose rows are in that order under these names.
const MODEL_TYPES: [&str; 2] = ["llama", "mistral"];

/// What stands before `names`, if they are Meta's.
pub(super) fn prefix<'a>(mut names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names.find_map(|name| name.strip_suffix(EMBEDDING))
}

/// `tensors` of the checkpoint at `path` in the names of Hugging Face, with rows in its order. Those that are not known
/// are `left_out`.
///
/// # Errors
/// If config.json is not of such a model.
pub(super) fn renamed(
    path: &Path,
    tensors: Tensors,
    expected: &Expected,
    left_out: &mut Vec<LeftOut>,
) -> Result<Tensors> {
    let model_type = expected.config.get("model_type");
    let model_type = model_type
        .as_ref()
        .and_then(|kind| kind.as_str())
        .unwrap_or("");
    if !MODEL_TYPES.contains(&model_type) {
        let problem = format!(
            "its names are those of Meta's Llama, and {} says that it is {model_type:?}: the order of its rows is not known",
            expected.config.path().display()
        );
        return Err(Error::of_file(Code::LikeMismatch, path, problem));
    }
    let heads = expected.number("num_attention_heads")?;
    let key_heads = expected.find_number("num_key_value_heads").unwrap_or(heads);
    let mut renamed = Tensors::new();
    for (name, mut tensor) in tensors {
        let Some(hf) = hf_name(&name) else {
            let what = format!("tensor {}: Llama has no such tensor", name.shown());
            left_out.push(what.into());
            continue;
        };
        let hf: Name = hf.into();
        let of_head = match &*name {
            name if name.ends_with(".attention.wq.weight") => Some(heads),
            name if name.ends_with(".attention.wk.weight") => Some(key_heads),
            _ => None,
        };
        if let Some(heads) = of_head {
            tensor = permute_for_rope(&hf, &tensor, heads, false)?;
        }
        renamed.insert(hf, tensor);
    }
    Ok(renamed)
}

fn hf_name(name: &str) -> Option<String> {
    if let Some((_, hf)) = OUTSIDE.iter().find(|(meta, _)| *meta == name) {
        return Some((*hf).to_owned());
    }
    let (layer, rest) = name.strip_prefix("layers.")?.split_once('.')?;
    layer.parse::<u32>().ok()?;
    let (_, hf) = INSIDE.iter().find(|(meta, _)| *meta == rest)?;
    Some(format!("model.layers.{layer}.{hf}"))
}
