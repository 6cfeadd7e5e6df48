//! What tensor names tell of a model: its layers, what stands before and after them, and which
//! rows are tokens.

/// `model.layers.7.mlp.gate.weight` → (`model.layers`, 7, `mlp.gate.weight`): the first component
/// between dots that is a number counts layers.
pub(in crate::ops) fn layer(name: &str) -> Option<(&str, u64, &str)> {
    let mut start = 0;
    for part in name.split('.') {
        let end = start + part.len();
        let inside = start > 0 && end < name.len();
        if inside && !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) {
            return Some((&name[..start - 1], part.parse().ok()?, &name[end + 1..]));
        }
        start = end + 1;
    }
    None
}

/// The name of a tensor of a layer.
pub(in crate::ops) fn in_layer(prefix: &str, layer: u64, rest: &str) -> String {
    format!("{prefix}.{layer}.{rest}")
}

/// Whether a tensor outside of layers stands behind them: a final norm or a head. Everything else
/// (embeddings, what makes them from images or sound) stands before.
pub(super) fn is_behind_layers(name: &str) -> bool {
    const BEHIND: [&str; 22] = [
        "lm_head",
        "embed_out",
        "output",
        "output_layer",
        "norm",
        "norm_f",
        "ln_f",
        "final_norm",
        "final_layernorm",
        "final_layer_norm",
        "decoderlayer_norm",
        "layer_norm",
        "layernorm_post",
        "post_layernorm",
        "classifier",
        "pre_classifier",
        "score",
        "pooler",
        "cls",
        "vocab_layer_norm",
        "vocab_projector",
        "vocab_transform",
    ];
    const BEFORE: [&str; 4] = ["embeddings", "multi_modal_projector", "merger", "visual"];
    let has = |words: &[&str]| name.split('.').any(|part| words.contains(&part));
    has(&BEHIND) && !has(&BEFORE)
}

/// Whether the rows of a tensor are tokens.
pub(super) fn is_vocabulary(name: &str) -> bool {
    const NAMES: [&str; 15] = [
        "embed_tokens.weight",
        "decoderembed_tokens.weight",
        "wte.weight",
        "word_embeddings.weight",
        "tok_embeddings.weight",
        "embed_in.weight",
        "embed_out.weight",
        "lm_head.weight",
        "lm_head.bias",
        "lm_head.linear.weight",
        "lm_head.linear.bias",
        "lm_head.decoder.weight",
        "output_layer.weight",
        "vocab_projector.weight",
        "vocab_projector.bias",
    ];
    const WHOLE: [&str; 3] = [
        "output.weight",
        "shared.weight",
        "backbone.embeddings.weight",
    ];
    WHOLE.contains(&name)
        || NAMES.iter().any(|end| match name.strip_suffix(end) {
            Some(start) => start.is_empty() || start.ends_with('.'),
            None => false,
        })
}

/// The embeddings that serve as the head `name` in a model that has no head of its own.
pub(super) fn tied_to(name: &str) -> &'static [&'static str] {
    match name {
        "lm_head.weight" => &[
            "model.embed_tokens.weight",
            "model.language_model.embed_tokens.weight",
            "transformer.wte.weight",
            "wte.weight",
            "backbone.embeddings.weight",
            "shared.weight",
        ],
        "language_model.lm_head.weight" => &["language_model.model.embed_tokens.weight"],
        "output.weight" => &["model.tok_embeddings.weight"],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_number_between_dots_counts_layers() {
        let experts = "model.layers.3.mlp.experts.11.up_proj.weight";
        let rest = "mlp.experts.11.up_proj.weight";
        assert_eq!(layer(experts), Some(("model.layers", 3, rest)));
        assert_eq!(layer("h.0.attn.bias"), Some(("h", 0, "attn.bias")));
        for none in [
            "model.norm.weight",
            "0.weight",
            "a.b1.c",
            "a..b",
            "a.7",
            "a.1x.b",
            "",
        ] {
            assert_eq!(layer(none), None, "{none}");
        }
    }

    #[test]
    fn heads_and_final_norms_stand_behind_the_layers() {
        for behind in [
            "lm_head.weight",
            "model.norm.weight",
            "transformer.ln_f.bias",
            "score.weight",
        ] {
            assert!(is_behind_layers(behind), "{behind}");
        }
        for before in [
            "model.embed_tokens.weight",
            "transformer.wpe.weight",
            "embeddings.norm.weight",
        ] {
            assert!(!is_behind_layers(before), "{before}");
        }
    }

    #[test]
    fn rows_of_embedding_and_head_are_tokens() {
        for tokens in [
            "model.embed_tokens.weight",
            "lm_head.weight",
            "wte.weight",
            "output.weight",
        ] {
            assert!(is_vocabulary(tokens), "{tokens}");
        }
        for other in [
            "transformer.wpe.weight",
            "model.norm.weight",
            "a.output.weight",
            "xlm_head.weight",
        ] {
            assert!(!is_vocabulary(other), "{other}");
        }
    }
}
