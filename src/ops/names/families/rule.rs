//! How the two layouts of a family differ.

/// Models whose layouts differ in the same way.
#[derive(Debug)]
pub struct Family {
    /// Their `model_type` in config.json.
    pub model_types: &'static [&'static str],
    /// In this order from the released layout to that of transformers, and backwards.
    pub rules: &'static [&'static [Rule]],
}

/// How a part of the names differs: first what the authors released, then what transformers has. `#` is any number.
#[derive(Debug)]
pub enum Rule {
    /// Of the rules that begin with `^`, which match at the start of a name, the first that matches is applied; of
    /// the others each one that does.
    Renamed(&'static str, &'static str),
    Converted(Conversion),
}

/// Tensors that are others in the other layout. Patterns match at the end of the names of weights.
#[derive(Debug)]
pub struct Conversion {
    /// Each has a `#`, or none has.
    pub released: &'static [&'static str],
    pub transformers: &'static [&'static str],
    /// What makes those of transformers of the released ones, in order.
    pub steps: &'static [Step],
}

/// A step from the released layout to that of transformers, which can be undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The tensors of each number, one after the other along the first dimension.
    Concatenate,
    /// One tensor, parts of equal length along the first dimension.
    Chunk,
    /// Those of all numbers as entries of a new first dimension.
    Stack,
    /// Of the first tensors, this many, the rows of each head in the order of halves. config.json has the number of
    /// heads, `num_attention_heads` of `vision_config`.
    PermuteForRope(usize),
    /// The last two dimensions exchanged, where they are not already: hidden size and twice the intermediate size of the
    /// first tensor tell.
    TransposeExperts,
}

/// What is called `released` and `transformers`.
pub(super) const fn name(released: &'static str, transformers: &'static str) -> Rule {
    Rule::Renamed(released, transformers)
}

pub(super) const fn converted(
    released: &'static [&'static str],
    transformers: &'static [&'static str],
    steps: &'static [Step],
) -> Rule {
    Rule::Converted(Conversion {
        released,
        transformers,
        steps,
    })
}
