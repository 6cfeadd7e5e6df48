//! What the plan tells about a view, beside the files themselves.

use std::any::Any;
use std::fmt::{self, Debug};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;
use serde::Serialize;

use crate::catalog::config::Edit;
use crate::error::Warning;
use crate::format::LeftOut;
use crate::shown::Show;
use crate::text::listing;

/// What an operator tells of what it did.
pub trait OperatorReport: Any + Debug + Send + Sync {
    /// Numbers of tensors, by what was done to them ("renamed").
    fn counts(&self) -> Vec<(&'static str, usize)> {
        Vec::new()
    }
}

/// Counts, warnings and remarks collected while a view is planned.
#[derive(Debug, Default, Clone)]
pub struct Report {
    pub sources: Vec<SourceReport>,
    /// How models are merged, if they are.
    pub merge: Option<MergeReport>,
    /// What operators tell of what they did, in the order in which they were applied.
    pub operators: Vec<Arc<dyn OperatorReport>>,
    /// What the view changes in config.json, if it does.
    pub edited_config: Option<EditedConfig>,
    /// What was asked to be changed in the files beside the weights, in this order.
    pub edits: Vec<FileEdit>,
    /// What is probably not what was meant.
    pub warnings: Vec<Warning>,
    /// What is worth knowing.
    pub notes: Vec<String>,
}

impl Report {
    /// Notes that the view has the tensors of `path`, a directory or file: it is not left out.
    pub fn name_source(&mut self, path: &Path) {
        for source in &mut self.sources {
            let is_other = |left_out: &LeftOut| left_out.file.as_deref() != Some(path);
            source.left_out.retain(is_other);
        }
    }

    /// Adds what an operator tells.
    pub fn add(&mut self, report: impl OperatorReport) {
        self.operators.push(Arc::new(report));
    }

    /// What was asked to be changed in the file at `path` of the view.
    pub fn edits_of(&self, path: &Path) -> impl Iterator<Item = &FileEdit> {
        let edits = self.edits.iter();
        edits.filter(move |edit| Path::new(&edit.file) == path)
    }

    /// All reports of the type `R`, in order.
    pub fn reports<R: OperatorReport>(&self) -> impl Iterator<Item = &R> {
        let any = self.operators.iter().map(|report| &**report as &dyn Any);
        any.filter_map(|report| report.downcast_ref())
    }

    /// The number of tensors that all operators together did `what` to ("renamed").
    pub fn count(&self, what: &str) -> usize {
        let counts = self.operators.iter().flat_map(|report| report.counts());
        let counts = counts.filter(|(counted, _)| *counted == what);
        counts.map(|(_, count)| count).sum()
    }
}

/// What a view changes in config.json.
#[derive(Debug, Clone, Serialize)]
pub struct EditedConfig {
    /// The file that it is in the source.
    pub from: PathBuf,
    /// Keys, `outer.key` inside of objects.
    pub edits: IndexMap<String, Edit>,
}

/// Something that was asked to be changed in the files beside the weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileEdit {
    /// Its path in the view.
    pub file: String,
    #[serde(flatten)]
    pub change: FileChange,
}

/// What is changed. JSON texts are on one line, and only their start is there if they are long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "edit", rename_all = "lowercase")]
pub enum FileChange {
    Set {
        path: String,
        /// Nothing if the key is new.
        old: Option<String>,
        new: String,
    },
    Unset {
        path: String,
        old: String,
    },
    /// The object at `path` is the top level, with keys of the old one.
    Promoted {
        path: String,
        kept: Vec<String>,
    },
    Added {
        from: PathBuf,
    },
    /// The same, where there was a file.
    Replaced {
        from: PathBuf,
    },
    Dropped,
}

/// In words: `config.json: model_type "qwen3" → "llama"`.
impl fmt::Display for FileEdit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.file.shown())?;
        match &self.change {
            FileChange::Set { path, old, new } => {
                let old = old.as_deref().unwrap_or("new");
                write!(f, "{} {} → {}", path.shown(), old.shown(), new.shown())
            }
            FileChange::Unset { path, old } => {
                write!(f, "{} removed (it was {})", path.shown(), old.shown())
            }
            FileChange::Promoted { path, kept } => {
                write!(f, "{} is the top level", path.shown())?;
                match &kept[..] {
                    [] => Ok(()),
                    kept => write!(f, ", with {} of the old one", listing(kept).shown()),
                }
            }
            FileChange::Added { from } => write!(f, "added, from {}", from.shown()),
            FileChange::Replaced { from } => write!(f, "replaced by {}", from.shown()),
            FileChange::Dropped => f.write_str("dropped"),
        }
    }
}

/// The part that a source plays in a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Base,
    Extra,
    /// A source whose tensors replace those of the same names.
    Graft,
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
    pub left_out: Vec<LeftOut>,
    /// What is counted only of a graft.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub graft: Option<GraftReport>,
}

/// What a graft does beside [giving tensors](SourceReport::added), which replace others.
#[derive(Debug, Clone, Serialize)]
pub struct GraftReport {
    /// The regular expression of the names that it may give; all without one.
    pub names: Option<String>,
    /// Tensors of it that the expression does not match.
    pub not_matching: usize,
    /// Tensors of it that the expression matches and the view lacks.
    pub not_in_view: usize,
    /// Tensors of the view that go with those that are replaced: scales, where the new weight has none.
    pub removed: usize,
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
