//! What is different from something else to the view, as the page shows it.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use ckptfs::diff::{self, Diff, FileDiff, KeyDiff, Values, What};

use crate::cli::diff::{figures, headers, shortened};

/// The script's `data.diff`.
#[derive(Serialize)]
pub(super) struct Difference {
    /// What the view was compared with.
    from: String,
    equal: usize,
    different: usize,
    /// What, name, tensors, dtypes and shapes, values.
    rows: Vec<(What, String, usize, String, String)>,
    rows_left_out: usize,
    files_equal: usize,
    /// What, path, and of config.json the keys, each with its two values.
    files: Vec<(What, String, Vec<[String; 3]>)>,
}

impl Difference {
    pub(super) fn new(from: &Path, diff: &Diff) -> Self {
        /// All are in the page, unlike tensors.
        const SHOWN: usize = 1000;
        let rows = diff::rows(&diff.different);
        let from = from.display().to_string();
        let values = |values: &Values| figures(values, [&from, "the view"]);
        let shown = rows.iter().take(SHOWN).map(|row| {
            let values = row.values.as_ref().map(values).unwrap_or_default();
            let name = row.name.to_string();
            (row.what, name, row.tensors, headers(row), values)
        });
        let file = |FileDiff { path, what, keys }: &FileDiff| {
            let keys = keys.iter().map(key).collect();
            (*what, path.to_string_lossy().into_owned(), keys)
        };
        Difference {
            equal: diff.equal,
            different: diff.different.len(),
            rows: shown.collect(),
            from,
            rows_left_out: rows.len().saturating_sub(SHOWN),
            files_equal: diff.files_equal,
            files: diff.files.iter().map(file).collect(),
        }
    }
}

fn key(KeyDiff { key, a, b }: &KeyDiff) -> [String; 3] {
    let value = |value: &Option<Value>| value.as_ref().map_or("–".to_owned(), shortened);
    [key.clone(), value(a), value(b)]
}
