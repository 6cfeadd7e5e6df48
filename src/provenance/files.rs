//! What the files of a view are made of, as JSON that fits into an extended attribute.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;

use crate::catalog::{CONFIG_FILE, EditedConfig, FileEdit};
use crate::layout::PlannedTensor;
use crate::provenance::{Group, Lineage, groups};
use crate::recipe::Plan;
use crate::tensor::{Dtype, Shape};
use crate::view::EntryId;

/// The most bytes that Linux takes as the value of an extended attribute.
pub const MAX_ATTRIBUTE_BYTES: usize = 64 << 10;

/// More than an edit takes there, but for paths that are very long.
const MOST_EDIT_BYTES: usize = 1 << 10;

/// The provenance of the files of a view.
#[derive(Debug)]
pub struct Files {
    plan: Arc<Plan>,
    /// Where a shard stands in the plan.
    shards: HashMap<EntryId, usize>,
}

/// What is told of a file.
#[derive(Serialize)]
struct FileJson<'a> {
    file: String,
    bytes: u64,
    #[serde(flatten)]
    made: Made<'a>,
    /// What was asked to be changed in it.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    asked: &'a [&'a FileEdit],
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Made<'a> {
    /// A source file as it is.
    SourceFile {
        from: String,
        #[serde(flatten)]
        tensors: Option<Tensors<'a>>,
    },
    /// A config.json with some keys edited.
    EditedConfig(&'a EditedConfig),
    /// Another file that was asked to be edited.
    EditedFile,
    /// A file that the plan made.
    #[serde(rename = "made_by_the_plan")]
    New,
    /// A shard that is put together.
    Shard {
        /// Where the header is, which the plan made.
        header_bytes: [u64; 2],
        #[serde(flatten)]
        tensors: Tensors<'a>,
    },
}

#[derive(Serialize)]
#[serde(untagged)]
enum Tensors<'a> {
    Each {
        tensors: Vec<TensorJson<'a>>,
    },
    /// Where the tensors are too many.
    Summary {
        summary: &'static str,
        tensors: usize,
        groups: &'a [Group],
        #[serde(skip_serializing_if = "Option::is_none")]
        groups_left_out: Option<usize>,
    },
}

#[derive(Serialize)]
struct TensorJson<'a> {
    tensor: &'a str,
    dtype: Dtype,
    shape: &'a Shape,
    /// Offsets in the file.
    bytes: [u64; 2],
    #[serde(flatten)]
    lineage: &'a Lineage,
}

impl Files {
    /// What there is to tell of the files of `plan`'s view.
    pub fn new(plan: Arc<Plan>) -> Self {
        let shards = plan.shards.iter().enumerate();
        Files {
            shards: shards.map(|(i, shard)| (shard.entry, i)).collect(),
            plan,
        }
    }

    /// The provenance of the file `entry` as JSON of at most [`MAX_ATTRIBUTE_BYTES`]; a summary by
    /// groups of tensors where all would not fit. `None` if it is not a file.
    pub fn json(&self, entry: EntryId) -> Option<Vec<u8>> {
        let content = self.plan.view.file(entry)?;
        let path = self.plan.view.path(entry);
        let mut asked: Vec<&FileEdit> = self.plan.report.edits_of(&path).collect();
        // Many edits of a file that is no shard: the plan has all of them.
        asked.truncate(MAX_ATTRIBUTE_BYTES / MOST_EDIT_BYTES);
        let told = |made| {
            let json = FileJson {
                file: path.to_string_lossy().into_owned(),
                bytes: content.len(),
                made,
                asked: &asked,
            };
            serde_json::to_vec(&json).expect("strings and numbers have a JSON text")
        };
        let from = content.whole_file();
        let from = from.map(|source| source.location().to_string_lossy().into_owned());
        let Some(shard) = self.shards.get(&entry).map(|i| &self.plan.shards[*i]) else {
            return Some(told(match (from, &self.plan.report.edited_config) {
                (Some(from), _) => Made::SourceFile {
                    from,
                    tensors: None,
                },
                (None, Some(config)) if path == *CONFIG_FILE => Made::EditedConfig(config),
                _ if !asked.is_empty() => Made::EditedFile,
                _ => Made::New,
            }));
        };
        let header_bytes = [0, shard.tensors.first().map_or(shard.len, |t| t.offset)];
        let told = |tensors| match &from {
            Some(from) => told(Made::SourceFile {
                from: from.clone(),
                tensors: Some(tensors),
            }),
            None => told(Made::Shard {
                header_bytes,
                tensors,
            }),
        };
        let lineages = shard.tensors.iter();
        let lineages: Vec<Lineage> = lineages
            .map(|tensor| Lineage::trace(&self.plan, tensor))
            .collect();
        let tensors = || shard.tensors.iter().zip(&lineages);
        // With less than this for each there is no need to try.
        const LEAST_TENSOR_BYTES: usize = 128;
        if shard.tensors.len() <= MAX_ATTRIBUTE_BYTES / LEAST_TENSOR_BYTES {
            let each = told(Tensors::Each {
                tensors: tensors().map(TensorJson::from).collect(),
            });
            if each.len() <= MAX_ATTRIBUTE_BYTES {
                return Some(each);
            }
        }
        let (groups, _) = groups(tensors());
        let mut shown = groups.len();
        loop {
            let summary = told(Tensors::Summary {
                summary: "too many tensors for an extended attribute; the JSON plan with provenance lists each",
                tensors: shard.tensors.len(),
                groups: &groups[..shown],
                groups_left_out: Some(groups.len() - shown).filter(|left_out| *left_out > 0),
            });
            if summary.len() <= MAX_ATTRIBUTE_BYTES {
                return Some(summary);
            }
            if shown == 0 {
                return None;
            }
            shown /= 2;
        }
    }
}

impl<'a> From<(&'a PlannedTensor, &'a Lineage)> for TensorJson<'a> {
    fn from((tensor, lineage): (&'a PlannedTensor, &'a Lineage)) -> Self {
        TensorJson {
            tensor: &tensor.name,
            dtype: tensor.dtype,
            shape: &tensor.shape,
            bytes: [tensor.offset, tensor.offset + tensor.len],
            lineage,
        }
    }
}
