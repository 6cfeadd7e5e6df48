//! The plan of a view.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use crate::catalog::{EditedConfig, FileEdit, MergeReport, SourceReport};
use crate::inspect::NonFiniteValues;
use crate::json::details::Details;
use crate::json::figures::Figures;
#[cfg(feature = "fuse")]
use crate::json::passthrough::PassthroughJson;
use crate::json::warnings::SpelledWarning;
use crate::json::writing::WritingJson;
use crate::layout::{PlannedTensor, ShardCosts};
use crate::ops::lora::AdapterReport;
use crate::ops::quantize::{ReferenceReport, UnquantizedReport};
use crate::provenance::{
    self, Counts, FileCount, Group, Lineage, groups_of_plan, links_leading_out,
};
use crate::recipe::{Plan, Surveys};

/// `plan` as JSON.
pub fn plan(plan: &Plan, details: &Details<'_>) -> String {
    let lineages = provenance::lineages(plan);
    let counts = Counts::new(plan, lineages.iter().flatten());
    let json = PlanJson {
        figures: Figures::new(plan, &counts, details),
        tensors: counts.total.tensors,
        untied: plan.report.count("untied"),
        tied: plan.report.count("tied"),
        renamed: plan.report.count("renamed"),
        dropped: plan.report.count("dropped"),
        cast: plan.report.count("cast"),
        dequantized: plan.report.count("dequantized"),
        resized: plan.report.count("resized"),
        quantized: plan.report.count("quantized"),
        kept: counts.kept.tensors,
        bytes: counts.shards.bytes + counts.other_files.bytes,
        tensor_bytes: counts.total.bytes,
        links_out: links_leading_out(&plan.view, &details.directories),
        counts,
        merge: plan.report.merge.as_ref(),
        sources: &plan.report.sources,
        adapters: plan.report.reports().collect(),
        references: plan.report.reports().collect(),
        unquantized: plan.report.reports().next(),
        warnings: SpelledWarning::each(&plan.report.warnings, details.spelling),
        notes: &plan.report.notes,
        groups: groups_of_plan(plan, &lineages).0,
        shards: plan
            .shards
            .iter()
            .zip(&lineages)
            .map(|(shard, lineages)| ShardJson {
                name: &shard.name,
                len: shard.len,
                whole_file: shard.whole_file.as_deref(),
                tensors: shard
                    .tensors
                    .iter()
                    .zip(lineages)
                    .map(|(tensor, lineage)| TensorJson {
                        tensor,
                        scale_fmt: computed_scale_format(tensor),
                        provenance: details.provenance.then_some(lineage),
                    })
                    .collect(),
            })
            .collect(),
        shard_choices: &plan.costs,
        edited_config: plan.report.edited_config.as_ref(),
        edits: &plan.report.edits,
        aux_files: plan
            .aux_files()
            .map(|(path, content)| AuxJson {
                path: path.to_string_lossy().into_owned(),
                len: content.len(),
                whole_file: content
                    .whole_file()
                    .map(|blob| blob.location().to_path_buf()),
            })
            .collect(),
        first_reads: FirstReadsJson::from_plan(plan),
        #[cfg(feature = "fuse")]
        passthrough: PassthroughJson::new(plan),
        writing: details.writing.as_ref().map(WritingJson::new),
        non_finite: details.non_finite,
    };
    text(&json)
}

/// `value` in lines. Its keys are texts and its numbers finite or null, which is all that JSON asks.
pub(super) fn text(value: &impl Serialize) -> String {
    let text = serde_json::to_string_pretty(value);
    text.expect("it has nothing that JSON cannot say") + "\n"
}

#[derive(Serialize)]
struct PlanJson<'a> {
    figures: Figures,
    /// Tensors in the view, scales included.
    tensors: usize,
    untied: usize,
    tied: usize,
    renamed: usize,
    dropped: usize,
    cast: usize,
    dequantized: usize,
    resized: usize,
    quantized: usize,
    kept: usize,
    /// Tensors by what becomes of them, and files.
    counts: Counts,
    /// Files outside of the sources, to which links in them lead.
    links_out: FileCount,
    /// Bytes of all files.
    bytes: u64,
    /// Bytes of all tensors, as in the index.
    tensor_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    merge: Option<&'a MergeReport>,
    sources: &'a [SourceReport],
    adapters: Vec<&'a AdapterReport>,
    references: Vec<&'a ReferenceReport>,
    /// What the rules for FP8 leave unquantized; only if rules are asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    unquantized: Option<&'a UnquantizedReport>,
    warnings: Vec<SpelledWarning>,
    notes: &'a [String],
    /// Tensors that come about in the same way.
    groups: Vec<Group>,
    shards: Vec<ShardJson<'a>>,
    /// How much of the tensors is in whole source files, and how much would be with other shards.
    shard_choices: &'a ShardCosts,
    /// What is changed in config.json; only if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    edited_config: Option<&'a EditedConfig>,
    /// The requested changes of files other than the weights.
    edits: &'a [FileEdit],
    aux_files: Vec<AuxJson>,
    /// What is streamed to find facts about whole tensors; only if some need any.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_reads: Option<FirstReadsJson>,
    /// What a mount by this user on this machine reads straight from the sources.
    #[cfg(feature = "fuse")]
    passthrough: PassthroughJson,
    /// What writing the view would take; only if a directory is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    writing: Option<WritingJson<'a>>,
    /// Tensors with values that cannot be quantized; only if the values were checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    non_finite: Option<&'a [NonFiniteValues]>,
}

#[derive(Serialize)]
struct ShardJson<'a> {
    name: &'a str,
    len: u64,
    whole_file: Option<&'a Path>,
    tensors: Vec<TensorJson<'a>>,
}

#[derive(Serialize)]
struct TensorJson<'a> {
    #[serde(flatten)]
    tensor: &'a PlannedTensor,
    /// Only of block scales that the view computes.
    #[serde(skip_serializing_if = "Option::is_none")]
    scale_fmt: Option<Value>,
    /// Only if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    provenance: Option<&'a Lineage>,
}

/// The format of the scales that `tensor` is, if a kernel computes them.
fn computed_scale_format(tensor: &PlannedTensor) -> Option<Value> {
    let (node, output, _) = tensor.extents.as_computed()?;
    let mut parameters = node.kernel.step(output)?.parameters;
    match parameters.get("gives").and_then(Value::as_str) {
        Some("scales") => parameters.remove("scale_fmt"),
        _ => None,
    }
}

#[derive(Serialize)]
struct AuxJson {
    path: String,
    len: u64,
    whole_file: Option<PathBuf>,
}

#[derive(Serialize)]
struct FirstReadsJson {
    /// At most so many bytes of sources before the first byte of a tensor.
    largest: u64,
    /// Of all tensors.
    all: u64,
}

impl FirstReadsJson {
    fn from_plan(plan: &Plan) -> Option<Self> {
        let Surveys { largest, all } = plan.surveys();
        (all > 0).then_some(FirstReadsJson { largest, all })
    }
}
