//! An architecture, and one tensor of it: its names on both sides, and what is done to its values.

/// An architecture of GGUF files.
#[derive(Debug)]
pub struct Architecture {
    /// `general.architecture`, and the prefix of its keys.
    pub name: &'static str,
    /// `architectures` in config.json that are this architecture.
    pub classes: &'static [&'static str],
    /// Rules of tensors, in groups. The first that matches counts.
    pub tensors: &'static [&'static [TensorRule]],
    /// Rules of tensors that older files have in place of those of others, and no file is written with.
    pub former: &'static [TensorRule],
}

impl Architecture {
    /// The rule of the tensor that Hugging Face calls `name`.
    pub fn of_hf(&self, name: &str) -> Option<Found> {
        self.rules().find_map(|rule| rule.match_hf(name))
    }

    /// The rules of the tensor that GGUF calls `name`: of several, those of the same values in other forms (a
    /// stack of experts may have been single experts or fused with another).
    pub fn of_gguf(&self, name: &str) -> impl Iterator<Item = Found> {
        let rules = self.rules().chain(self.former);
        rules.filter_map(move |rule| rule.match_gguf(name))
    }

    /// Whether layers that predict more tokens are written, after the others.
    pub fn has_nextn(&self) -> bool {
        self.name.starts_with("qwen3next") || self.name.starts_with("qwen35")
    }

    pub(super) fn rules(&self) -> impl Iterator<Item = &'static TensorRule> {
        self.tensors.iter().copied().flatten()
    }
}

/// A kind of tensors, of every layer.
#[derive(Debug)]
pub struct TensorRule {
    /// The name in Hugging Face's layout, with `{l}` for the layer and `{e}` for the expert, without its
    /// [`Suffix`].
    pub hf: &'static str,
    /// The names in GGUF, likewise; several if the tensor is cut.
    pub gguf: &'static [&'static str],
    pub suffix: Suffix,
    pub change: Change,
}

/// How names end beyond what a rule says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suffix {
    /// `.weight` on both sides, or `.bias` on both.
    WeightOrBias,
    /// These, in Hugging Face's layout and in GGUF.
    Fixed(&'static str, &'static str),
}

/// What becomes of the values on the way to GGUF. On the way back it is undone. Shapes are those of
/// Hugging Face's layout, the slowest dimension first; arithmetic is in F32, or in F16 where that is the
/// source's dtype.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// Rows of each head are put in the order of interleaved rotary embeddings: of `d` rows of a head, row
    /// `2i + s` is the row `s·d/2 + i` before.
    Rope(Heads),
    /// One is added.
    PlusOne,
    /// Rows beyond the tokenizer's vocabulary are cut off.
    CutVocabulary,
    /// Single experts [R, C] become one tensor [E, R, C].
    Stack,
    /// [E, 2R, C] is cut into its first and last R rows.
    Halves,
    /// −exp(x).
    MinusExp,
    /// [C, 1, K] becomes [C, K].
    Squeeze,
    /// [C, 1, K] becomes [C, K], and value heads among the channels are [tiled](Change::TileRows).
    SqueezeAndTile,
    /// Of each key head, the rows of q, k, v and z: cut into all of q, k and v, and all of z.
    SplitByKeyHead,
    /// Value heads, of which each key head has several in a run, are put in an order in which the first of each
    /// key head come first: new `j·K + k` is old `k·r + j`. Rows of keys and queries, where there are some,
    /// come before them and stay.
    TileRows,
    /// The same, each head being one row.
    TileHeads,
    /// The same, then −exp(x).
    TileHeadsMinusExp,
    /// The same of columns.
    TileColumns,
    /// [H·(n + v), R] is cut by head into [H, R, n] (transposed) and [H, v, R].
    SplitKeyValue,
    /// Rows [E, 2R, …] of which even ones are the gate's and odd ones those of up.
    EvenOdd,
    /// The same of the last dimension, which becomes the row: [E, C, 2R] is transposed first.
    EvenOddTransposed,
    /// [E, C, R] becomes [E, R, C].
    Transpose,
    /// MXFP4 codes and scales, tensors `…_blocks` and `…_scales`, become blocks of one tensor.
    Mxfp4,
    /// The same, of which even rows are the gate's and odd ones those of up.
    Mxfp4EvenOdd,
}

/// Which heads a projection has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heads {
    /// As many as `num_attention_heads`.
    Attention,
    /// As many as `num_key_value_heads`.
    KeyValue,
}

/// A weight, or a bias, that stays as it is.
pub(super) const fn same(hf: &'static str, gguf: &'static [&'static str]) -> TensorRule {
    changed(hf, gguf, Change::None)
}

/// A weight, or a bias, of which this becomes.
pub(super) const fn changed(
    hf: &'static str,
    gguf: &'static [&'static str],
    change: Change,
) -> TensorRule {
    TensorRule {
        hf,
        gguf,
        suffix: Suffix::WeightOrBias,
        change,
    }
}

/// A tensor whose names end in these ways.
pub(super) const fn ending(
    hf: (&'static str, &'static str),
    gguf: (&'static [&'static str], &'static str),
    change: Change,
) -> TensorRule {
    TensorRule {
        hf: hf.0,
        gguf: gguf.0,
        suffix: Suffix::Fixed(hf.1, gguf.1),
        change,
    }
}

/// A rule and the numbers in the name that it matched.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    pub rule: &'static TensorRule,
    pub layer: Option<u64>,
    pub expert: Option<u64>,
    /// The suffixes in Hugging Face's layout and in GGUF.
    suffix: (&'static str, &'static str),
}

impl TensorRule {
    pub(super) fn match_hf(&'static self, name: &str) -> Option<Found> {
        self.matches(name, &[self.hf], |suffix| suffix.0)
    }

    pub(super) fn match_gguf(&'static self, name: &str) -> Option<Found> {
        self.matches(name, self.gguf, |suffix| suffix.1)
    }

    fn matches(
        &'static self,
        name: &str,
        patterns: &[&str],
        side: fn((&'static str, &'static str)) -> &'static str,
    ) -> Option<Found> {
        let suffixes: &[(&str, &str)] = match self.suffix {
            Suffix::WeightOrBias => &[(".weight", ".weight"), (".bias", ".bias")],
            Suffix::Fixed(hf, gguf) => &[(hf, gguf)],
        };
        suffixes.iter().find_map(|&suffix| {
            let stem = name.strip_suffix(side(suffix))?;
            let (layer, expert) = patterns.iter().find_map(|pattern| numbers(stem, pattern))?;
            Some(Found {
                rule: self,
                layer,
                expert,
                suffix,
            })
        })
    }
}

impl Found {
    /// The name in Hugging Face's layout.
    pub fn hf_name(&self) -> String {
        self.named(self.rule.hf, self.suffix.0)
    }

    /// The names in GGUF.
    pub fn gguf_names(&self) -> impl Iterator<Item = String> {
        let names = self.rule.gguf.iter();
        names.map(|name| self.named(name, self.suffix.1))
    }

    /// The same of another expert.
    pub fn with_expert(self, expert: Option<u64>) -> Self {
        Found { expert, ..self }
    }

    fn named(&self, pattern: &str, suffix: &str) -> String {
        let mut name = pattern.to_owned();
        for (place, number) in [("{l}", self.layer), ("{e}", self.expert)] {
            if let Some(number) = number {
                name = name.replace(place, &number.to_string());
            }
        }
        name + suffix
    }
}

/// The layer and the expert in `name`, if it is one of `pattern`.
fn numbers(name: &str, pattern: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (mut layer, mut expert) = (None, None);
    let (mut name, mut pattern) = (name, pattern);
    while let Some(at) = pattern.find('{') {
        name = name.strip_prefix(&pattern[..at])?;
        let end = name
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(name.len());
        let digits = &name[..end];
        if digits.len() > 1 && digits.starts_with('0') {
            return None;
        }
        let number = Some(digits.parse().ok()?);
        if pattern[at..].starts_with("{l}") {
            layer = number;
        } else {
            expert = number;
        }
        (name, pattern) = (&name[end..], &pattern[at + 3..]);
    }
    (name == pattern).then_some((layer, expert))
}
