//! `ckptfs plan`, and the summary that every command on a view prints first.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use indicatif::BinaryBytes;
use serde::Serialize;

use ckptfs::catalog::{
    AdapterReport, EditedConfig, MergeReport, ReferenceReport, Role, SourceReport, StretchReport,
};
use ckptfs::fuse::PassthroughOutlook;
use ckptfs::inspect::NonFiniteValues;
use ckptfs::layout::PlannedTensor;
use ckptfs::provenance::{Group, Lineage};
use ckptfs::recipe::{Plan, Surveys};
use ckptfs::view::FileContent;

use crate::cli::provenance;

/// Prints the plan for people.
pub(crate) fn print(plan: &Plan) -> anyhow::Result<()> {
    let mut text = summary(plan);
    text += &provenance::text(plan);
    text += &match PassthroughOutlook::of(&plan.view) {
        PassthroughOutlook {
            files,
            bytes,
            obstacle: None,
        } => format!(
            "mounted, the kernel reads {files} files of {} (= below) straight from the sources\n",
            BinaryBytes(bytes)
        ),
        PassthroughOutlook {
            obstacle: Some(obstacle),
            ..
        } => format!("mounted, ckptfs answers every first read: {obstacle}\n"),
    };
    text.push('\n');
    for shard in &plan.shards {
        let computed = shard.tensors.iter().filter(|t| t.computed).count();
        let how = match &shard.whole_file {
            Some(source) => format!("= {}", source.display()),
            None => format!("{} tensors, {computed} computed", shard.tensors.len()),
        };
        writeln!(text, "{}  {}  {how}", shard.name, BinaryBytes(shard.len))?;
    }
    for (path, content) in aux_files(plan) {
        let how = match content.whole_file() {
            Some(source) => format!("= {}", source.path().display()),
            None => "new".to_owned(),
        };
        writeln!(
            text,
            "{}  {}  {how}",
            path.display(),
            BinaryBytes(content.len())
        )?;
    }
    to_stdout(&text)
}

/// Prints the summary alone.
pub(crate) fn print_summary(plan: &Plan) -> anyhow::Result<()> {
    to_stdout(&summary(plan))
}

/// Prints what is probably not what was meant.
pub(crate) fn print_warnings(plan: &Plan) -> anyhow::Result<()> {
    to_stdout(&warnings(plan))
}

/// Prints the plan for programs, with what checking the values found if that was done.
pub(crate) fn print_json(
    plan: &Plan,
    non_finite: Option<&[NonFiniteValues]>,
    with_provenance: bool,
) -> anyhow::Result<()> {
    to_stdout(&json(plan, non_finite, with_provenance)?)
}

/// The plan for programs.
pub(crate) fn json(
    plan: &Plan,
    non_finite: Option<&[NonFiniteValues]>,
    with_provenance: bool,
) -> anyhow::Result<String> {
    let lineages = provenance::lineages(plan);
    let json = PlanJson {
        tensors: tensor_count(plan),
        renamed: plan.report.renamed,
        dropped: plan.report.dropped,
        cast: plan.report.cast,
        dequantized: plan.report.dequantized,
        quantized: plan.report.quantized,
        kept: kept(plan),
        bytes: plan.view.files().map(|(_, _, file)| file.len()).sum(),
        tensor_bytes: plan
            .shards
            .iter()
            .flat_map(|shard| &shard.tensors)
            .map(|tensor| tensor.len)
            .sum(),
        merge: plan.report.merge.as_ref(),
        sources: &plan.report.sources,
        adapters: &plan.report.adapters,
        references: &plan.report.references,
        warnings: &plan.report.warnings,
        notes: &plan.report.notes,
        groups: provenance::groups(plan, &lineages).0,
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
                        provenance: with_provenance.then_some(lineage),
                    })
                    .collect(),
            })
            .collect(),
        edited_config: plan.report.edited_config.as_ref(),
        aux_files: aux_files(plan)
            .map(|(path, content)| AuxJson {
                path: path.to_string_lossy().into_owned(),
                len: content.len(),
                whole_file: content.whole_file().map(|file| file.path().to_owned()),
            })
            .collect(),
        first_reads: FirstReadsJson::of(plan),
        passthrough: PassthroughJson::of(plan),
        non_finite,
    };
    Ok(serde_json::to_string_pretty(&json)? + "\n")
}

#[derive(Serialize)]
struct PlanJson<'a> {
    /// Tensors in the view, scales included.
    tensors: usize,
    renamed: usize,
    dropped: usize,
    cast: usize,
    dequantized: usize,
    quantized: usize,
    kept: usize,
    /// Bytes of all files.
    bytes: u64,
    /// Bytes of all tensors, as in the index.
    tensor_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    merge: Option<&'a MergeReport>,
    sources: &'a [SourceReport],
    adapters: &'a [AdapterReport],
    references: &'a [ReferenceReport],
    warnings: &'a [String],
    notes: &'a [String],
    /// Tensors that come about in the same way.
    groups: Vec<Group>,
    shards: Vec<ShardJson<'a>>,
    /// What is changed in config.json; only if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    edited_config: Option<&'a EditedConfig>,
    aux_files: Vec<AuxJson>,
    /// What is streamed to find facts about whole tensors; only if some need any.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_reads: Option<FirstReadsJson>,
    /// What a mount by this user on this machine reads straight from the sources.
    passthrough: PassthroughJson,
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
    /// Only if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    provenance: Option<&'a Lineage>,
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
    fn of(plan: &Plan) -> Option<Self> {
        let Surveys { largest, all } = plan.surveys();
        (all > 0).then_some(FirstReadsJson { largest, all })
    }
}

#[derive(Serialize)]
struct PassthroughJson {
    /// Files that are whole source files, and their bytes.
    files: usize,
    bytes: u64,
    /// Why the kernel does not read them from the sources; null if it does.
    obstacle: Option<String>,
}

impl PassthroughJson {
    fn of(plan: &Plan) -> Self {
        let outlook = PassthroughOutlook::of(&plan.view);
        PassthroughJson {
            files: outlook.files,
            bytes: outlook.bytes,
            obstacle: outlook.obstacle,
        }
    }
}

pub(crate) fn summary(plan: &Plan) -> String {
    let mut text = plan
        .report
        .merge
        .as_ref()
        .map_or_else(String::new, merge_summary);
    let mut models = plan.report.merge.iter().flat_map(|merge| &merge.models);
    for source in &plan.report.sources {
        let path = source.path.display();
        text += &match source.role {
            Role::Base => format!("base   {path}: {} tensors\n", source.tensors),
            Role::Model => format!(
                "model  {} in {path}: {} tensors\n",
                models.next().map_or("?", String::as_str),
                source.tensors
            ),
            Role::Extra => format!(
                "extra  {path}: {} tensors, {} added, {} overlapping and dropped\n",
                source.tensors, source.added, source.overlapping
            ),
        };
    }
    for adapter in &plan.report.adapters {
        text += &adapter_line(adapter);
    }
    let report = &plan.report;
    let changes = [
        (report.renamed, "renamed"),
        (report.dropped, "dropped"),
        (report.cast, "cast"),
        (report.dequantized, "dequantized"),
    ];
    let changes: Vec<String> = changes
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    if !changes.is_empty() {
        text += &format!("change {}\n", changes.join(", "));
    }
    let whole = plan
        .shards
        .iter()
        .filter(|s| s.whole_file.is_some())
        .count();
    let shard_bytes = plan.shards.iter().map(|shard| shard.len).sum();
    text += &format!(
        "view   {} tensors ({} quantized, {} kept), {} shards of {} ({whole} unchanged), {} other files\n",
        tensor_count(plan),
        plan.report.quantized,
        kept(plan),
        plan.shards.len(),
        BinaryBytes(shard_bytes),
        aux_files(plan).count(),
    );
    text += &surveys_line(plan.surveys());
    for reference in &plan.report.references {
        text += &format!("reference  {}\n", reference.path.display());
        text += &format!(
            "  quantized there and by the rule set  {}\n",
            reference.agreed
        );
        for (what, names) in [
            ("only there", &reference.only_in_reference),
            ("only by the rule set (kept)", &reference.only_by_rules),
        ] {
            text += &format!("  {what:<35}  {}{}\n", names.len(), examples(names));
        }
    }
    for source in &plan.report.sources {
        if source.role == Role::Base {
            for left_out in &source.left_out {
                text += &format!("left out: {left_out}\n");
            }
        }
    }
    for note in &plan.report.notes {
        text += &format!("note: {note}\n");
    }
    text + &warnings(plan)
}

fn warnings(plan: &Plan) -> String {
    let warnings = plan.report.warnings.iter();
    warnings
        .map(|warning| format!("warning: {warning}\n"))
        .collect()
}

fn surveys_line(surveys: Surveys) -> String {
    match surveys {
        Surveys { all: 0, .. } => String::new(),
        Surveys { largest, all } => format!(
            "facts  the first read of a tensor streams up to {} of sources; of all tensors {}\n",
            BinaryBytes(largest),
            BinaryBytes(all)
        ),
    }
}

fn adapter_line(adapter: &AdapterReport) -> String {
    let scalings = match adapter.scalings[..] {
        [] => String::new(),
        [scaling] => format!(" (scaling {scaling})"),
        [least, .., most] => format!(" (scalings {least} to {most})"),
    };
    let weight = match adapter.weight {
        1.0 => String::new(),
        weight => format!(" times {weight}"),
    };
    format!(
        "lora   {}{weight}: merged into {} tensors{scalings}, {} replaced\n",
        adapter.path.display(),
        adapter.merged,
        adapter.replaced
    )
}

/// What is merged how, a line for each stretch of the output.
fn merge_summary(merge: &MergeReport) -> String {
    let mut text = format!("merge  {} of {} models", merge.method, merge.models.len());
    if let Some(base) = &merge.base {
        text += &format!(", base {base}");
    }
    for (what, dtype) in [
        ("computed in", &merge.dtype),
        ("given in", &merge.out_dtype),
    ] {
        if let Some(dtype) = dtype {
            text += &format!(", {what} {dtype}");
        }
    }
    text += &format!("; config and tokenizer of {}\n", merge.files_of);
    for stretch in &merge.stretches {
        let how = match stretch.stored {
            true => "as stored in",
            false => &merge.method,
        };
        let from = stretch.from.join(" + ");
        let StretchReport { what, tensors, .. } = stretch;
        text += &format!("  {what}: {tensors} tensors, {how} {from}\n");
    }
    text
}

/// The first few names, in parentheses.
fn examples(names: &[String]) -> String {
    const SHOWN: usize = 3;
    match names.len() {
        0 => String::new(),
        n if n <= SHOWN => format!("  ({})", names.join(", ")),
        _ => format!("  ({}, …)", names[..SHOWN].join(", ")),
    }
}

fn tensor_count(plan: &Plan) -> usize {
    plan.shards.iter().map(|shard| shard.tensors.len()).sum()
}

/// Tensors that are as they were: neither quantized nor the scales of those that are.
fn kept(plan: &Plan) -> usize {
    let tensors = plan.shards.iter().flat_map(|shard| &shard.tensors);
    tensors.filter(|tensor| !tensor.computed).count()
}

/// The files that are not shards, in path order.
pub(crate) fn aux_files(plan: &Plan) -> impl Iterator<Item = (PathBuf, &FileContent)> {
    let shards: HashSet<&Path> = plan.shards.iter().map(|s| Path::new(&s.name)).collect();
    let mut files: Vec<_> = plan
        .view
        .files()
        .map(|(_, path, content)| (path, content))
        .filter(|(path, _)| !shards.contains(path.as_path()))
        .collect();
    files.sort_by(|a, b| a.0.cmp(&b.0));
    files.into_iter()
}

/// Writes `text` to standard output.
pub(crate) fn to_stdout(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        // Whoever closed the pipe has read enough.
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}
