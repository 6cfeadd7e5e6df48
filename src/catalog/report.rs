//! What the plan tells about a view, beside the files themselves.

use std::path::PathBuf;

use indexmap::IndexMap;
use serde::Serialize;

use crate::catalog::config::Edit;

/// Counts, warnings and remarks collected while a view is planned.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Report {
    pub sources: Vec<SourceReport>,
    /// How each reference compares with the built-in rule set.
    pub references: Vec<ReferenceReport>,
    /// How models are merged, if they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merge: Option<MergeReport>,
    /// What each adapter changes, in the order in which they are merged.
    pub adapters: Vec<AdapterReport>,
    /// Tensors that have another name than in their source.
    pub renamed: usize,
    /// Tensors that the view leaves out although a source has them, scales included.
    pub dropped: usize,
    /// Tensors given in another dtype, without those dequantized.
    pub cast: usize,
    /// Quantized tensors given as numbers.
    pub dequantized: usize,
    /// Tensors quantized by this view.
    pub quantized: usize,
    /// What the view changes in config.json, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edited_config: Option<EditedConfig>,
    /// What is probably not what was meant.
    pub warnings: Vec<String>,
    /// What is worth knowing.
    pub notes: Vec<String>,
}

/// Which tensors of the view a reference has quantized, beside those that the built-in rule set
/// would quantize. The reference decides.
#[derive(Debug, Clone, Serialize)]
pub struct ReferenceReport {
    pub path: PathBuf,
    /// Tensors that both quantize.
    pub agreed: usize,
    /// Quantized in the reference, not by the rule set.
    pub only_in_reference: Vec<String>,
    /// Quantized by the rule set, not in the reference.
    pub only_by_rules: Vec<String>,
}

/// What a view changes in config.json.
#[derive(Debug, Clone, Serialize)]
pub struct EditedConfig {
    /// The file that it is in the source.
    pub from: PathBuf,
    /// Keys, `outer.key` inside of objects.
    pub edits: IndexMap<String, Edit>,
}

/// What a LoRA adapter changes.
#[derive(Debug, Clone, Serialize)]
pub struct AdapterReport {
    pub path: PathBuf,
    /// What its scalings were multiplied by.
    pub weight: f64,
    /// Tensors that it is merged into.
    pub merged: usize,
    /// Tensors that it gives as a whole.
    pub replaced: usize,
    /// The different scalings of its products, in ascending order.
    pub scalings: Vec<f64>,
}

/// The part that a source directory plays in a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Base,
    Extra,
    /// One of the models that are merged.
    Model,
}

/// What one source gives to the view.
#[derive(Debug, Clone, Serialize)]
pub struct SourceReport {
    pub role: Role,
    pub path: PathBuf,
    /// Tensors in the source.
    pub tensors: usize,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Tensors that the view takes from it.
    pub added: usize,
    /// Bytes of these.
    pub added_bytes: u64,
    /// Tensors that an earlier source also has; they are dropped.
    pub overlapping: usize,
    /// What the directory holds but the view does not show.
    pub left_out: Vec<String>,
}

/// How models are merged.
#[derive(Debug, Clone, Serialize)]
pub struct MergeReport {
    pub method: String,
    /// As the recipe names them, in the order of the sources with [`Role::Model`].
    pub models: Vec<String>,
    pub base: Option<String>,
    /// The model that gives config.json and the other files.
    pub files_of: String,
    /// The dtype of the arithmetic, if the recipe sets it.
    pub dtype: Option<String>,
    /// The dtype of the result, if the recipe sets it.
    pub out_dtype: Option<String>,
    pub stretches: Vec<StretchReport>,
}

/// What a stretch of the merged model is made of.
#[derive(Debug, Clone, Serialize)]
pub struct StretchReport {
    pub what: String,
    /// The models, with their layers where those are not the output's.
    pub from: Vec<String>,
    /// Whether these tensors are those of the models, byte for byte.
    pub stored: bool,
    pub tensors: usize,
}
