//! The built-in rule set: which tensors of a Qwen-style model are quantized.
//!
//! | group | tensors, behind the prefix |
//! |---|---|
//! | attention | `self_attn.{q,k,v,o}_proj.weight` |
//! | dense MLP | `mlp.{gate,up,down}_proj.weight` |
//! | experts | `mlp.experts.<j>.{gate,up,down}_proj.weight` |
//! | fused experts (3-D) | `mlp.experts.{gate_up_proj,down_proj}` |
//! | shared expert | `mlp.shared_expert.{gate,up,down}_proj.weight` |
//! | linear attention | `linear_attn.{in_proj_qkv,in_proj_z,out_proj}.weight` |
//!
//! The prefix is `layers.<i>.` after an optional `model.` and an optional `language_model.`, or
//! `mtp.layers.<i>.`. Everything else keeps its dtype.

use std::sync::LazyLock;

use regex::Regex;

static RULES: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?x)
        ^ (?: (?:model\.)? (?:language_model\.)? | mtp\. ) layers\.[0-9]+\.
        (?: self_attn \. [qkvo]_proj \. weight
          | mlp \. (?: experts\.[0-9]+\. | shared_expert\. )? (?:gate|up|down)_proj \. weight
          | mlp \. experts \. (?:gate_up_proj|down_proj)
          | linear_attn \. (?:in_proj_qkv|in_proj_z|out_proj) \. weight
        ) $",
    )
    .expect("the rule set is a valid regular expression")
});

/// Whether the rule set quantizes the tensor called `name`.
pub(super) fn matches(name: &str) -> bool {
    RULES.is_match(name)
}
