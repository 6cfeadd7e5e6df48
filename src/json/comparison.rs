//! What is different: of two views, and of a directory and a view.

use std::path::PathBuf;

use serde::Serialize;

use crate::diff::{self, Diff, Row};
use crate::error::Spelling;
use crate::json::plan::text;
use crate::json::warnings::SpelledWarning;
use crate::verify::{CompareReport, ManifestReport, StructureReport};

/// `diff` as JSON.
pub fn difference(diff: &Diff) -> String {
    text(&DiffJson {
        diff,
        rows: &diff::rows(&diff.different),
    })
}

/// `report` as JSON.
pub fn comparison(report: &CompareReport) -> String {
    let differences = report.differences.iter();
    text(&CompareJson {
        files: report.files,
        bytes: report.bytes,
        problems: differences.map(ToString::to_string).collect(),
        extra: &report.extra,
    })
}

/// `report` as JSON, with what its checksums say if it has some.
pub fn structure(
    report: &StructureReport,
    summed: Option<&ManifestReport>,
    spelling: Spelling,
) -> String {
    let mut warnings = SpelledWarning::each(&report.warnings, spelling);
    let mut problems = SpelledWarning::each(&report.problems, spelling);
    if let Some(summed) = summed {
        warnings.extend(SpelledWarning::each(&summed.warnings, spelling));
        problems.extend(SpelledWarning::each(&summed.problems, spelling));
    }
    text(&StructureJson {
        tensors: report.tensors,
        bytes: report.bytes,
        shards: report.shards,
        summed_files: summed.map(|summed| summed.files),
        warnings,
        problems,
    })
}

#[derive(Serialize)]
struct DiffJson<'a> {
    #[serde(flatten)]
    diff: &'a Diff,
    /// The same as `different`, layers folded.
    rows: &'a [Row],
}

#[derive(Serialize)]
struct CompareJson<'a> {
    /// Files of the view, and their bytes.
    files: usize,
    bytes: u64,
    /// What is not as in the view, a text each.
    problems: Vec<String>,
    /// Files that the directory has and the view does not, apart from weights.
    extra: &'a [PathBuf],
}

#[derive(Serialize)]
struct StructureJson {
    tensors: usize,
    bytes: u64,
    shards: usize,
    /// Files that were compared with checksums; null if there are none.
    summed_files: Option<usize>,
    warnings: Vec<SpelledWarning>,
    problems: Vec<SpelledWarning>,
}
