//! The figures of a plan in one flat object, for programs that ask before they go on.

use serde::Serialize;

use crate::catalog::{Role, SourceReport};
use crate::json::details::Details;
use crate::json::writing::Writing;
use crate::provenance::Counts;
use crate::recipe::Plan;

/// Counts are of tensors where their names say nothing else; bytes are bytes.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    /// Of the base, or of all models of a merge.
    base_tensors: usize,
    base_bytes: u64,
    /// Of all extras: theirs, those that the view takes, and those that it has already.
    extra_tensors: usize,
    added: usize,
    overlapping: usize,
    /// Those that the view takes of all grafts.
    grafted: usize,
    /// Heads that are a copy of the embedding now, and heads that are left out because they were one.
    untied: usize,
    tied: usize,
    renamed: usize,
    dropped: usize,
    cast: usize,
    dequantized: usize,
    /// Embeddings and heads with another number of rows.
    resized: usize,
    quantized: usize,
    /// Those that stay as they are.
    kept: usize,
    /// Of the view.
    tensors: usize,
    tensor_bytes: u64,
    files: usize,
    file_bytes: u64,
    /// Files that are whole files of sources.
    whole_files: usize,
    whole_file_bytes: u64,
    warnings: usize,
    /// Bytes that are written to the directory that was named, and free bytes there.
    #[serde(skip_serializing_if = "Option::is_none")]
    written_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    available_bytes: Option<u64>,
    /// What computing a view in GGUF takes when all of it is first read, on all processors, as this machine
    /// encodes just now. Only `plan` says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_load_seconds: Option<f64>,
}

impl Figures {
    pub(super) fn new(plan: &Plan, counts: &Counts, details: &Details) -> Self {
        let report = &plan.report;
        let of_roles = |roles: &[Role]| -> Vec<&SourceReport> {
            let sources = report.sources.iter();
            sources
                .filter(|source| roles.contains(&source.role))
                .collect()
        };
        let bases = of_roles(&[Role::Base, Role::Model]);
        let extras = of_roles(&[Role::Extra]);
        let grafts = of_roles(&[Role::Graft]);
        let outlook = details.writing.as_ref().map(Writing::outlook);
        Figures {
            base_tensors: bases.iter().map(|source| source.tensors).sum(),
            base_bytes: bases.iter().map(|source| source.bytes).sum(),
            extra_tensors: extras.iter().map(|source| source.tensors).sum(),
            added: extras.iter().map(|source| source.added).sum(),
            overlapping: extras.iter().map(|source| source.overlapping).sum(),
            grafted: grafts.iter().map(|source| source.added).sum(),
            untied: report.count("untied"),
            tied: report.count("tied"),
            renamed: report.count("renamed"),
            dropped: report.count("dropped"),
            cast: report.count("cast"),
            dequantized: report.count("dequantized"),
            resized: report.count("resized"),
            quantized: report.count("quantized"),
            kept: counts.kept.tensors,
            tensors: counts.total.tensors,
            tensor_bytes: counts.total.bytes,
            files: counts.shards.files + counts.other_files.files,
            file_bytes: counts.shards.bytes + counts.other_files.bytes,
            whole_files: counts.whole_files.files,
            whole_file_bytes: counts.whole_files.bytes,
            warnings: report.warnings.len(),
            written_bytes: outlook.map(|outlook| outlook.written_bytes),
            available_bytes: outlook.and_then(|outlook| outlook.available),
            first_load_seconds: details.first_load.map(|time| time.as_secs_f64()),
        }
    }
}
