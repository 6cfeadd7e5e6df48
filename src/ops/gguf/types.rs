//! Which type each tensor has: the rules of `convert_hf_to_gguf.py` and of `llama-quantize` (llama.cpp
//! b11434, `src/llama-quant.cpp`).

use crate::error::{Code, Error, Result};
use crate::format::gguf::TensorType;
use crate::ops::gguf::kind::GgufKind;

use TensorType as T;

/// What the choice of types depends on, besides the tensors.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Facts {
    /// Query heads for each key-value head.
    pub gqa: u64,
    /// 0 without experts.
    pub experts: u64,
    pub layers: u64,
    /// Whether this is what llama.cpp calls a 70B model: a Llama or Qwen2 of 80 layers.
    pub is_70b: bool,
    pub has_imatrix: bool,
    /// Whether llama-quantize makes the file; else the converter does.
    pub by_quantizer: bool,
}

/// The part of a model that a tensor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Category {
    Output,
    Embedding,
    AttentionQkv,
    AttentionKvB,
    AttentionV,
    AttentionK,
    AttentionOutput,
    FfnDown,
    Other,
}

impl Category {
    fn of(name: &str) -> Self {
        match name {
            "output.weight" => return Category::Output,
            "token_embd.weight" => return Category::Embedding,
            _ => {}
        }
        let parts = [
            ("attn_qkv.weight", Category::AttentionQkv),
            ("attn_kv_b.weight", Category::AttentionKvB),
            ("attn_v.weight", Category::AttentionV),
            ("attn_k.weight", Category::AttentionK),
            ("attn_q.weight", Category::Other),
            ("attn_output.weight", Category::AttentionOutput),
            ("ffn_up", Category::Other),
            ("ffn_gate", Category::Other),
            ("ffn_down", Category::FfnDown),
        ];
        let found = parts.iter().find(|(part, _)| name.contains(part));
        found.map_or(Category::Other, |(_, category)| *category)
    }

    /// Those on which attention depends most.
    fn is_value(self) -> bool {
        use Category::{AttentionKvB, AttentionQkv, AttentionV};
        matches!(self, AttentionV | AttentionQkv | AttentionKvB)
    }
}

/// Whether the converter keeps a tensor in F32, whatever is asked.
pub(super) fn stays_f32(name: &str, shape: &[u64]) -> bool {
    let is_router = ["ffn_gate_inp.weight", "ffn_gate_inp_shexp.weight"];
    shape.len() <= 1
        || name.ends_with("_norm.weight")
        || !name.ends_with(".weight")
        || is_router.iter().any(|end| name.ends_with(end))
        || name.ends_with("ssm_conv1d.weight")
}

/// Whether llama-quantize may give a tensor another type, of those that the converter does not keep in F32.
fn may_quantize(shape: &[u64]) -> bool {
    // Dimensions of length 1 in front are none to ggml.
    let matrix = shape.iter().rev().skip(1);
    matrix.into_iter().any(|len| *len > 1)
}

/// The type of each of `tensors` (names and shapes) of a file in `kind`, in their order. `asked` says which
/// type somebody wants a tensor to have.
///
/// # Errors
/// If the name of a layer's tensor has no layer in it.
pub(super) fn choose(
    kind: GgufKind,
    facts: Facts,
    tensors: &[(&str, &[u64])],
    asked: impl Fn(&str) -> Option<TensorType>,
) -> Result<Vec<TensorType>> {
    let categories = tensors.iter().map(|(name, _)| Category::of(name));
    let categories: Vec<Category> = categories.collect();
    let has = |wanted: Category| categories.contains(&wanted);
    let mut mix = Mix {
        kind,
        facts,
        values: categories.iter().filter(|c| c.is_value()).count() as u64,
        is_tied: !has(Category::Output),
        value: 0,
        down: 0,
    };
    let types = tensors
        .iter()
        .zip(&categories)
        .map(|((name, shape), category)| {
            if stays_f32(name, shape) {
                return Ok(T::F32);
            }
            let columns = *shape.last().expect("it has dimensions");
            if let Some(asked) = asked(name).filter(|_| may_quantize(shape)) {
                return Ok(fitting(asked, columns));
            }
            if !facts.by_quantizer {
                let kind = kind.default_type();
                return Ok(if kind.row_bytes(columns).is_some() {
                    kind
                } else {
                    T::F16
                });
            }
            if !may_quantize(shape) {
                return Ok(T::F32);
            }
            let is_of_experts = shape.len() > 2 && shape[shape.len() - 3] > 1;
            let chosen = match kind {
                GgufKind::Mxfp4 if is_of_experts => T::MXFP4,
                GgufKind::Mxfp4 => T::Q8_0,
                _ => mix.choose(name, *category, columns)?,
            };
            Ok(fitting(chosen, columns))
        });
    types.collect()
}

/// `kind`, or what llama-quantize falls back on where rows of `columns` are not whole blocks.
fn fitting(kind: TensorType, columns: u64) -> TensorType {
    if kind.row_bytes(columns).is_some() {
        return kind;
    }
    let smaller = match kind {
        T::Q2_K | T::Q3_K => T::Q4_0,
        T::Q4_K => T::Q5_0,
        T::Q5_K => T::Q5_1,
        T::Q6_K => T::Q8_0,
        other => other,
    };
    if smaller.row_bytes(columns).is_some() {
        smaller
    } else {
        T::F16
    }
}

/// The mix of a file, tensor after tensor.
struct Mix {
    kind: GgufKind,
    facts: Facts,
    /// How many tensors are of [values](Category::is_value).
    values: u64,
    is_tied: bool,
    /// How many of values, and how many `ffn_down`, were met.
    value: u64,
    down: u64,
}

impl Mix {
    fn choose(&mut self, name: &str, category: Category, columns: u64) -> Result<TensorType> {
        use GgufKind as K;
        let (kind, facts) = (self.kind, self.facts);
        let default = kind.default_type();
        if category == Category::Output || category == Category::Embedding && self.is_tied {
            let fits = default.row_bytes(columns).is_some();
            return Ok(match default {
                T::Q8_0 => T::Q8_0,
                _ if !fits => T::Q8_0,
                _ => T::Q6_K,
            });
        }
        if category.is_value() {
            let i = self.value;
            self.value += 1;
            let mut chosen = match kind {
                K::Q2K if facts.gqa >= 4 => T::Q4_K,
                K::Q2K => T::Q3_K,
                K::Q3KM if i < 2 => T::Q5_K,
                K::Q3KM => T::Q4_K,
                K::Q3KL => T::Q5_K,
                K::Q4KM | K::Q5KM if takes_more(i, self.values) => T::Q6_K,
                K::Q4KS if i < 4 => T::Q5_K,
                _ => default,
            };
            if facts.is_70b && (chosen == T::Q3_K || chosen == T::Q4_K) {
                chosen = T::Q5_K;
            }
            return Ok(if facts.experts == 8 { T::Q8_0 } else { chosen });
        }
        Ok(match category {
            Category::AttentionK if facts.experts == 8 => T::Q8_0,
            Category::FfnDown => {
                let i = match facts.experts {
                    0 | 1 => self.down,
                    _ => layer(name, facts.layers)?,
                };
                self.down += 1;
                let n = facts.layers;
                match kind {
                    K::Q2K => T::Q3_K,
                    K::Q3KM if i < n / 16 => T::Q5_K,
                    K::Q3KM => T::Q4_K,
                    K::Q3KL => T::Q5_K,
                    K::Q4KM | K::Q5KM if takes_more(i, n) => T::Q6_K,
                    K::Q4KS if i < n / 8 => T::Q5_K,
                    K::Q4_0 if facts.has_imatrix && i < n / 8 => T::Q4_1,
                    K::Q5_0 if facts.has_imatrix && i < n / 8 => T::Q5_1,
                    _ => default,
                }
            }
            Category::AttentionOutput if facts.experts == 8 => match kind {
                K::Q2K | K::Q3KS | K::Q3KM | K::Q4KS | K::Q4KM => T::Q5_K,
                _ => default,
            },
            Category::AttentionOutput => match kind {
                K::Q2K => T::Q3_K,
                K::Q3KM => T::Q4_K,
                K::Q3KL => T::Q5_K,
                _ => default,
            },
            _ => default,
        })
    }
}

/// Whether the tensor of layer `i` of `n` is one of those that get more bits: of the first and last eighth,
/// and every third of the others.
fn takes_more(i: u64, n: u64) -> bool {
    i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2
}

fn layer(name: &str, layers: u64) -> Result<u64> {
    let number = name
        .strip_prefix("blk.")
        .and_then(|rest| rest.split_once('.'));
    let number = number.and_then(|(number, _)| number.parse().ok());
    number.filter(|layer| *layer < layers).ok_or_else(|| {
        let problem = format!("{name} is of none of the {layers} layers of the model");
        Error::new(Code::ConfigMismatch, problem)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LLAMA_8B: Facts = Facts {
        gqa: 4,
        experts: 0,
        layers: 32,
        is_70b: false,
        has_imatrix: false,
        by_quantizer: true,
    };

    /// The types of the `ffn_down` and `attn_v` of a model of `layers`, in the order of llama-quantize.
    fn types(kind: GgufKind, facts: Facts, end: &str) -> Vec<TensorType> {
        let mut names: Vec<String> = (0..facts.layers)
            .map(|l| format!("blk.{l}.{end}"))
            .collect();
        names.push("output.weight".to_owned());
        let shape: &[u64] = &[4096, 4096];
        let tensors: Vec<_> = names.iter().map(|name| (&**name, shape)).collect();
        let mut types = choose(kind, facts, &tensors, |_| None).unwrap();
        assert_eq!(types.pop(), Some(T::Q6_K));
        types
    }

    /// By the rule in words: the first and last eighth, and of the rest every third.
    #[test]
    fn half_of_the_layers_of_q4_k_m_get_six_bits() {
        for end in ["ffn_down.weight", "attn_v.weight"] {
            let types = types(GgufKind::Q4KM, LLAMA_8B, end);
            for (i, found) in types.iter().enumerate() {
                let more = !(4..28).contains(&i) || [6, 9, 12, 15, 18, 21, 24, 27].contains(&i);
                assert_eq!(*found, if more { T::Q6_K } else { T::Q4_K }, "{end} {i}");
            }
        }
    }

    #[test]
    fn rows_that_are_not_whole_blocks_fall_back() {
        for (kind, columns, expected) in [
            (T::Q4_K, 256, T::Q4_K),
            (T::Q4_K, 288, T::Q5_0),
            (T::Q6_K, 288, T::Q8_0),
            (T::Q3_K, 288, T::Q4_0),
            (T::Q5_K, 288, T::Q5_1),
            (T::Q4_0, 100, T::F16),
            (T::Q4_K, 100, T::F16),
        ] {
            assert_eq!(fitting(kind, columns), expected, "{kind} {columns}");
        }
    }

    #[test]
    fn what_is_not_a_matrix_stays() {
        let tensors: &[(&str, &[u64])] = &[
            ("blk.0.attn_norm.weight", &[64]),
            ("blk.0.attn_q.bias", &[64]),
            ("blk.0.ffn_gate_inp.weight", &[8, 256]),
            ("blk.0.attn_q.weight", &[64, 256]),
        ];
        let types = choose(GgufKind::Q4_0, LLAMA_8B, tensors, |_| None).unwrap();
        assert_eq!(types, [T::F32, T::F32, T::F32, T::Q4_0]);
        let asked = |name: &str| name.contains("attn_q").then_some(T::Q8_0);
        let types = choose(GgufKind::Q4_0, LLAMA_8B, tensors, asked).unwrap();
        assert_eq!(types, [T::F32, T::F32, T::F32, T::Q8_0]);
    }
}
