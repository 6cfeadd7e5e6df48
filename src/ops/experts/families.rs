//! What a family, told by its model_type, does otherwise than most. All of it is read from transformers
//! 5.23: its models, and the names that it reads and writes checkpoints by.

use crate::ops::experts::weight::Singles;

/// How the weights of all experts lie in their fused tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// `gate_up_proj` `[E, 2I, H]`, of each expert the rows of gate, then those of up; `down_proj` `[E, H, I]`.
    Rows,
    /// `[E, H, 2I]`, in each row the columns of gate, then those of up; `[E, I, H]`.
    Columns,
    /// `[E, H, 2I]`, in each row a column of gate and one of up by turns; `[E, I, H]`.
    Interleaved,
}

/// A family that stores fused experts transposed.
#[derive(Debug)]
pub(super) struct Transposed {
    /// The beginning of its model_type.
    name: &'static str,
    pub layout: Layout,
    /// Whether projections have biases: `gate_up_proj_bias` `[E, 2I]`, `down_proj_bias` `[E, H]`.
    pub has_biases: bool,
    /// Whether [`Layout::Rows`] is read too, and is told by its shapes.
    pub reads_rows: bool,
}

const fn columns(name: &'static str) -> Transposed {
    Transposed {
        name,
        layout: Layout::Columns,
        has_biases: false,
        reads_rows: false,
    }
}

const TRANSPOSED: [Transposed; 5] = [
    columns("aria"),
    Transposed {
        layout: Layout::Interleaved,
        has_biases: true,
        ..columns("gpt_oss")
    },
    columns("llama4"),
    Transposed {
        has_biases: true,
        ..columns("openai_privacy_filter")
    },
    Transposed {
        reads_rows: true,
        ..columns("qwen3_vl_moe")
    },
];

/// Families whose single experts are called as those of Mixtral, by the beginning of their model_type.
const NUMBERED: [&str; 7] = [
    "deepseek_v4",
    "kimi_linear",
    "lfm2_moe",
    "minimax",
    "mistral_large4",
    "mixtral",
    "phimoe",
];

fn is_of(model_type: &str, family: &str) -> bool {
    let rest = model_type.strip_prefix(family);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
}

/// The family of `model_type`, if it is one that stores fused experts transposed.
pub(super) fn transposed(model_type: &str) -> Option<&'static Transposed> {
    TRANSPOSED
        .iter()
        .find(|family| is_of(model_type, family.name))
}

/// What families that store fused experts transposed are called.
pub(super) fn transposed_names() -> impl Iterator<Item = &'static str> {
    TRANSPOSED.iter().map(|family| family.name)
}

/// How the family of `model_type` calls the weights of single experts, if it is otherwise than most.
pub(super) fn numbered(model_type: &str) -> Option<Singles> {
    let mut families = NUMBERED.iter();
    families
        .any(|family| is_of(model_type, family))
        .then_some(Singles::NUMBERED)
}

/// What families that call them so are called.
pub(super) fn numbered_names() -> impl Iterator<Item = &'static str> {
    NUMBERED.into_iter()
}
