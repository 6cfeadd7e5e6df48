//! `--gguf`: the view as a file of llama.cpp, byte for byte what `convert_hf_to_gguf.py` and, for types that it
//! does not write, `llama-quantize` after it make of the same tensors (llama.cpp b11434, x86-64).
//!
//! | step | where |
//! |---|---|
//! | names, and values that are not the same | `architecture/`, `tensors.rs`, `numbers.rs` |
//! | types | `types.rs` |
//! | weights of columns | `importance.rs` |
//! | rows to blocks | `encode.rs`, `mxfp4.rs` |
//! | metadata | `metadata/`, `tokenizer/` |
//!
//! The way back, from files of llama.cpp to a checkpoint in Hugging Face's layout, is `source/`.

pub mod architecture;
mod encode;
mod files;
mod importance;
mod kind;
mod metadata;
mod model;
mod mxfp4;
mod numbers;
mod rope_factors;
pub(in crate::ops) mod source;
mod speed;
mod tensors;
mod tokenizer;
mod types;

pub use kind::GgufKind;
pub use model::GgufReport;

use std::path::Path;

use crate::catalog::{Catalog, GgufModel};
use crate::error::setting::{GGUF, GGUF_PRE, GGUF_SPLIT, GGUF_TYPE, IMATRIX};
use crate::error::{Code, Error, Hint, Result};
use crate::format::gguf::TensorType;
use crate::kernels::lanes::Precision;
use crate::named::Named;
use crate::ops::dtype::InDtype;
use crate::ops::params::chosen;
use crate::ops::{Conversions, Group, Operator, Params, Setting, Takes, Value, pattern};
use crate::size::parse_size;
use crate::source::Location;

/// Give the view as GGUF.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GgufParams {
    /// What most matrices are in. Without it, the view is in safetensors.
    pub kind: Option<GgufKind>,
    /// Types of the tensors that an expression matches a part of the name of, in GGUF. The first counts.
    pub types: Vec<(String, TensorType)>,
    /// Split the file where one would have more bytes of tensors.
    pub split: Option<Split>,
    /// What llama.cpp calls the pre-tokenizer, where it cannot be recognized.
    pub pre: Option<String>,
    /// An importance matrix: how much columns count when they are quantized.
    pub imatrix: Option<Location>,
}

/// A size, and as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    pub bytes: u64,
    text: String,
}

/// The types that a single tensor can be asked in.
const TYPES: [TensorType; 14] = [
    TensorType::F32,
    TensorType::F16,
    TensorType::BF16,
    TensorType::Q8_0,
    TensorType::Q4_0,
    TensorType::Q4_1,
    TensorType::Q5_0,
    TensorType::Q5_1,
    TensorType::Q2_K,
    TensorType::Q3_K,
    TensorType::Q4_K,
    TensorType::Q5_K,
    TensorType::Q6_K,
    TensorType::MXFP4,
];

impl Params for GgufParams {
    fn settings(&self) -> &'static [Setting] {
        &[
            Setting {
                key: GGUF,
                flag: "gguf",
                takes: Takes::Choice(GgufKind::NAMES),
                group: Group::Gguf,
                help: "Give the view as a GGUF file of this type, for llama.cpp",
                comment: "",
            },
            Setting {
                key: GGUF_TYPE,
                flag: "gguf-type",
                takes: Takes::Texts("REGEX=TYPE"),
                group: Group::Gguf,
                help: "Give the matrices whose GGUF name has a part that matches REGEX in TYPE, such as ffn_down=q6_k (repeatable, the first match counts)",
                comment: "REGEX=TYPE, the first that matches",
            },
            Setting {
                key: GGUF_SPLIT,
                flag: "gguf-split",
                takes: Takes::Text("SIZE"),
                group: Group::Gguf,
                help: "Split the GGUF file into files of at most SIZE bytes of tensors, such as 4GiB",
                comment: "",
            },
            Setting {
                key: GGUF_PRE,
                flag: "gguf-pre",
                takes: Takes::Text("NAME"),
                group: Group::Gguf,
                help: "Name the pre-tokenizer of llama.cpp, such as llama-bpe [default: recognized by what it does]",
                comment: "",
            },
            Setting {
                key: IMATRIX,
                flag: "imatrix",
                takes: Takes::File,
                group: Group::Gguf,
                help: "Quantize to GGUF by the weights of columns in this file, or at this URL, which llama-imatrix made",
                comment: "",
            },
        ]
    }

    fn set(&mut self, key: &str, value: Value) -> Result<()> {
        match key {
            GGUF => self.kind = Some(chosen(value)?),
            GGUF_TYPE => {
                let text = value.into_text();
                let refuse = |problem: String| {
                    Error::new(Code::BadValue, problem).about_value(GGUF_TYPE, &*text)
                };
                let Some((names, kind)) = text.rsplit_once('=') else {
                    let problem = "expected REGEX=TYPE, for example ffn_down=q6_k";
                    return Err(refuse(problem.to_owned()));
                };
                let kind = TYPES
                    .into_iter()
                    .find(|known| known.name().eq_ignore_ascii_case(kind));
                let Some(kind) = kind else {
                    let known = TYPES.map(|kind| kind.name().to_ascii_lowercase());
                    return Err(refuse(format!("the type is none of {}", known.join(", "))));
                };
                pattern::compile(GGUF_TYPE, names)?;
                self.types.push((names.to_owned(), kind));
            }
            GGUF_SPLIT => {
                let text = value.into_text();
                let refuse = |problem: String| {
                    Error::new(Code::BadValue, problem).about_value(GGUF_SPLIT, &*text)
                };
                match parse_size(&text) {
                    Ok(0) => return Err(refuse("it must not be 0".to_owned())),
                    Ok(bytes) => self.split = Some(Split { bytes, text }),
                    Err(problem) => return Err(refuse(problem)),
                }
            }
            IMATRIX => self.imatrix = Some(value.into_file().1),
            _ => {
                let name = value.into_text();
                tokenizer::check_pre(&name)?;
                self.pre = Some(name);
            }
        }
        Ok(())
    }

    fn get(&self, key: &str) -> Vec<Value> {
        match key {
            GGUF => self
                .kind
                .iter()
                .map(|kind| Value::text(kind.name()))
                .collect(),
            GGUF_TYPE => {
                let types = self.types.iter();
                let text = |(names, kind): &(String, TensorType)| {
                    format!("{names}={}", kind.name().to_ascii_lowercase())
                };
                types.map(|rule| Value::text(text(rule))).collect()
            }
            GGUF_SPLIT => self
                .split
                .iter()
                .map(|split| Value::text(&*split.text))
                .collect(),
            IMATRIX => self.imatrix.iter().map(Value::file).collect(),
            _ => self.pre.iter().map(|pre| Value::text(&**pre)).collect(),
        }
    }

    fn relative_to(&mut self, directory: &Path) {
        if let Some(imatrix) = self.imatrix.take() {
            self.imatrix = Some(imatrix.relative_to(directory));
        }
    }

    fn operators(&self, conversions: &Conversions) -> Result<Vec<Box<dyn Operator>>> {
        if self.kind.is_none() {
            let asked = self.asked();
            let (setting, _) = asked.first().expect("something is asked");
            let problem = "it is about GGUF, and the view is in safetensors";
            let error = Error::new(Code::Conflict, problem).about(setting.key);
            let hint = Hint::give(GGUF).or(Hint::leave_out(setting.key));
            return Err(error.with_hint(hint));
        }
        if self.imatrix.is_some() && self.kind.is_some_and(GgufKind::is_plain) {
            let problem = "it is about quantized types, and this file has none";
            let error = Error::new(Code::Conflict, problem).about(IMATRIX);
            let hint = Hint::leave_out(IMATRIX).or(Hint::give_value(GGUF, "q4_k_m"));
            return Err(error.with_hint(hint));
        }
        let mut operators: Vec<Box<dyn Operator>> = Vec::new();
        if conversions.dtype.is_none() || conversions.quantizes {
            let to_f32 = InDtype::only_quantized(Precision::F32);
            operators.push(Box::new(mxfp4::Dequantize { to_f32 }));
        }
        Ok(operators)
    }
}

impl GgufParams {
    /// The view as GGUF in `kind`: what becomes of `catalog`, whose tensors the converter would meet in
    /// `order`.
    ///
    /// # Errors
    /// If its architecture is not known, or something that a file needs is missing.
    pub fn model(
        &self,
        kind: GgufKind,
        catalog: &mut Catalog,
        order: &[usize],
    ) -> Result<GgufModel> {
        let importance = self.imatrix.as_ref().map(importance::Importance::open);
        let importance = importance.transpose()?;
        let asked = model::Asked {
            kind,
            types: &self.types,
            pre: self.pre.as_deref(),
            split_bytes: self.split.as_ref().map(|split| split.bytes),
            importance: importance.as_ref(),
        };
        model::model(catalog, order, &asked)
    }
}
