//! The FP8 rule set, as a parser of names.

/// Whether the rule set selects the tensor called `name`.
pub(crate) fn rule_set_selects(name: &str) -> bool {
    in_layer(name).is_some_and(|rest| {
        weight_of(
            rest,
            "self_attn.",
            &["q_proj", "k_proj", "v_proj", "o_proj"],
        ) || weight_of(rest, "mlp.", &GATED)
            || weight_of(rest, "mlp.shared_expert.", &GATED)
            || expert_weight(rest)
            || rest == "mlp.experts.gate_up_proj"
            || rest == "mlp.experts.down_proj"
            || weight_of(
                rest,
                "linear_attn.",
                &["in_proj_qkv", "in_proj_z", "out_proj"],
            )
    })
}

const GATED: [&str; 3] = ["gate_proj", "up_proj", "down_proj"];

/// What follows `layers.<i>.` behind one of the known beginnings.
fn in_layer(name: &str) -> Option<&str> {
    let model = name.strip_prefix("model.").unwrap_or(name);
    let language_model = model.strip_prefix("language_model.").unwrap_or(model);
    let layers = language_model.strip_prefix("layers.");
    after_number(layers.or_else(|| name.strip_prefix("mtp.layers."))?)
}

/// What follows a decimal number and a dot.
fn after_number(text: &str) -> Option<&str> {
    let (number, rest) = text.split_once('.')?;
    let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    digits.then_some(rest)
}

fn weight_of(rest: &str, parent: &str, projections: &[&str]) -> bool {
    rest.strip_prefix(parent)
        .and_then(|rest| rest.strip_suffix(".weight"))
        .is_some_and(|projection| projections.contains(&projection))
}

fn expert_weight(rest: &str) -> bool {
    rest.strip_prefix("mlp.experts.")
        .and_then(after_number)
        .is_some_and(|rest| weight_of(rest, "", &GATED))
}
