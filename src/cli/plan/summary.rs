//! What every command on a view prints first.

use indicatif::BinaryBytes;

use ckptfs::catalog::{AdapterReport, MergeReport, Role, StretchReport};
use ckptfs::recipe::{Plan, Surveys};
use ckptfs::shown::Show;

use crate::cli::plan::{aux_files, kept, tensor_count};

/// The summary, with the warnings.
pub(crate) fn summary(plan: &Plan) -> String {
    let mut text = plan
        .report
        .merge
        .as_ref()
        .map_or_else(String::new, merge_summary);
    let mut models = plan.report.merge.iter().flat_map(|merge| &merge.models);
    for source in &plan.report.sources {
        let path = source.path.shown();
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
        text += &format!("reference  {}\n", reference.path.shown());
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
                text += &format!("left out: {}\n", left_out.shown());
            }
        }
    }
    for note in &plan.report.notes {
        text += &format!("note: {}\n", note.shown());
    }
    text + &warnings(plan)
}

/// What is probably not what was meant.
pub(super) fn warnings(plan: &Plan) -> String {
    let warnings = plan.report.warnings.iter();
    warnings
        .map(|warning| format!("warning: {}\n", warning.shown()))
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
        adapter.path.shown(),
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
        n if n <= SHOWN => format!("  ({})", names.join(", ").shown()),
        _ => format!("  ({}, …)", names[..SHOWN].join(", ").shown()),
    }
}
