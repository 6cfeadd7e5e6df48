//! Names of Megatron-Core, and what they are in Hugging Face.

/// Tensors outside of layers, and whether they have a row for each token.
pub(super) const OUTSIDE: [(&str, &str, bool); 3] = [
    (
        "embedding.word_embeddings.weight",
        "model.embed_tokens.weight",
        true,
    ),
    ("output_layer.weight", "lm_head.weight", true),
    ("decoder.final_layernorm.weight", "model.norm.weight", false),
];

/// What a tensor is in Hugging Face's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// The one of this name.
    Same(&'static str),
    /// Gate and up projections of the module of this name, with its point.
    GateAndUp(&'static str),
    /// Projections of queries, keys and values: their weights, or biases.
    QueryKeyValue(&'static str),
}

/// A tensor in a layer.
#[derive(Debug)]
pub(super) struct InLayer {
    pub(super) form: Form,
    /// Whether it is of experts, and of which if it is of one.
    pub(super) of_experts: bool,
    pub(super) expert: Option<u64>,
}

const INSIDE: [(&str, Form); 16] = [
    (
        "self_attention.linear_qkv.weight",
        Form::QueryKeyValue("weight"),
    ),
    (
        "self_attention.linear_qkv.bias",
        Form::QueryKeyValue("bias"),
    ),
    (
        "self_attention.linear_qkv.layer_norm_weight",
        Form::Same("input_layernorm.weight"),
    ),
    (
        "input_layernorm.weight",
        Form::Same("input_layernorm.weight"),
    ),
    (
        "self_attention.linear_proj.weight",
        Form::Same("self_attn.o_proj.weight"),
    ),
    (
        "self_attention.q_layernorm.weight",
        Form::Same("self_attn.q_norm.weight"),
    ),
    (
        "self_attention.k_layernorm.weight",
        Form::Same("self_attn.k_norm.weight"),
    ),
    ("mlp.linear_fc1.weight", Form::GateAndUp("mlp.")),
    (
        "mlp.linear_fc1.layer_norm_weight",
        Form::Same("post_attention_layernorm.weight"),
    ),
    (
        "pre_mlp_layernorm.weight",
        Form::Same("post_attention_layernorm.weight"),
    ),
    ("mlp.linear_fc2.weight", Form::Same("mlp.down_proj.weight")),
    ("mlp.router.weight", Form::Same("mlp.gate.weight")),
    (
        "mlp.shared_experts.linear_fc1.weight",
        Form::GateAndUp("mlp.shared_expert."),
    ),
    (
        "mlp.shared_experts.linear_fc2.weight",
        Form::Same("mlp.shared_expert.down_proj.weight"),
    ),
    (
        "mlp.shared_experts.gate_weight",
        Form::Same("mlp.shared_expert_gate.weight"),
    ),
    (
        "self_attention.linear_proj.bias",
        Form::Same("self_attn.o_proj.bias"),
    ),
];

/// Tensors of experts.
const OF_EXPERT: [(&str, Form); 2] = [
    ("linear_fc1.weight", Form::GateAndUp("")),
    ("linear_fc2.weight", Form::Same("down_proj.weight")),
];

/// The layer of the tensor `name`, and what it is called in that; no layer if it has all.
pub(super) fn layer_name(name: &str) -> Option<(Option<u64>, &str)> {
    let rest = name.strip_prefix("decoder.layers.")?;
    match rest.split_once('.') {
        Some((number, inside)) if is_number(number) => Some((Some(number.parse().ok()?), inside)),
        _ => Some((None, rest)),
    }
}

/// What is called `rest` in a layer.
pub(super) fn in_layer(rest: &str) -> Option<InLayer> {
    if let Some(&(_, form)) = INSIDE.iter().find(|(own, _)| *own == rest) {
        return Some(InLayer {
            form,
            of_experts: false,
            expert: None,
        });
    }
    let rest = rest.strip_prefix("mlp.experts.")?;
    let rest = rest.strip_prefix("experts.").unwrap_or(rest);
    let (expert, rest) = match rest.split_once('.') {
        Some((number, inside)) if is_number(number) => (Some(number.parse().ok()?), inside),
        _ => (None, rest),
    };
    let &(_, form) = OF_EXPERT.iter().find(|(own, _)| *own == rest)?;
    Some(InLayer {
        form,
        of_experts: true,
        expert,
    })
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.len() < 10 && text.bytes().all(|digit| digit.is_ascii_digit())
}
