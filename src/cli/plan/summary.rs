//! What every command on a view prints first, and `plan` last.

use indicatif::BinaryBytes;

use ckptfs::catalog::{MergeReport, Role, SourceReport, StretchReport};
use ckptfs::format::LeftOut;
use ckptfs::json::Details;
use ckptfs::ops::lora::AdapterReport;
use ckptfs::ops::quantize::{ReferenceReport, UnquantizedReport};
use ckptfs::provenance::{Counts, links_leading_out};
use ckptfs::recipe::{Plan, Surveys};
use ckptfs::shown::Show;
use ckptfs::text::{counted, listing, percent};

use crate::cli::messages::{self, flag};
use crate::cli::plan::gguf;
use crate::cli::plan::shards;
use crate::cli::plan::writing::writing_lines;

/// The summary, with the warnings.
pub(crate) fn summary(plan: &Plan) -> String {
    let counts = Counts::of_plan(plan);
    let mut text = head(plan, &counts);
    text += &surveys_line(plan.surveys());
    text + &remarks(plan)
}

/// The summary of `ckptfs plan`.
pub(super) fn of_plan(plan: &Plan, counts: &Counts, details: &Details) -> String {
    let mut text = head(plan, counts);
    let links = links_leading_out(&plan.view, &details.directories);
    text += &shards::line(plan);
    if links.files > 0 {
        text += &format!(
            "links  {} of {} outside of the sources: mount --allow-other needs --follow-symlinks\n",
            counted(links.files, "file"),
            BinaryBytes(links.bytes)
        );
    }
    if let Some(first_load) = details.first_load {
        text += &gguf::first_load_line(first_load);
    }
    text += &surveys_line(plan.surveys());
    #[cfg(feature = "fuse")]
    text.push_str(&super::passthrough::mount_line(plan, counts));
    if let Some(writing) = &details.writing {
        text += &writing_lines(writing.outlook());
    }
    text + &remarks(plan)
}

/// Sources, tensors, bytes and files.
fn head(plan: &Plan, counts: &Counts) -> String {
    let merge = plan.report.merge.as_ref();
    let mut text = merge.map_or_else(String::new, merge_summary);
    let mut models = merge.into_iter().flat_map(|merge| &merge.models);
    for source in &plan.report.sources {
        let path = source.path.shown();
        let tensors = counted(source.tensors, "tensor");
        let bytes = BinaryBytes(source.bytes);
        text += &match source.role {
            Role::Base => format!("base   {path}: {tensors} of {bytes}\n"),
            Role::Model => format!(
                "model  {} in {path}: {tensors} of {bytes}\n",
                models.next().map_or("?", String::as_str),
            ),
            Role::Extra => format!(
                "extra  {path}: {tensors} of {bytes}, {} taken, {} overlapping and dropped\n",
                source.added, source.overlapping
            ),
            Role::Graft => graft_line(source),
        };
    }
    for adapter in plan.report.reports::<AdapterReport>() {
        text += &adapter_line(adapter);
    }
    let changes = list(
        ["untied", "tied", "renamed", "dropped", "resized"]
            .map(|what| (plan.report.count(what), what)),
    );
    if !changes.is_empty() {
        text += &format!("change {changes}\n");
    }
    for edit in &plan.report.edits {
        text += &format!("edit   {edit}\n");
    }
    text + &gguf::line(plan) + &view_lines(plan, counts)
}

fn graft_line(source: &SourceReport) -> String {
    let mut parts = vec![format!("{} taken", source.added)];
    if let Some(graft) = &source.graft {
        let names = graft.names.as_deref().unwrap_or_default().shown();
        parts.extend(
            (graft.not_matching > 0)
                .then(|| format!("{} not matching {names}", graft.not_matching)),
        );
        parts.extend(
            (graft.not_in_view > 0).then(|| format!("{} not in the view", graft.not_in_view)),
        );
        parts.extend(
            (graft.removed > 0).then(|| format!("{} removed", counted(graft.removed, "scale"))),
        );
    }
    format!(
        "graft  {}: {} of {}, {}\n",
        source.path.shown(),
        counted(source.tensors, "tensor"),
        BinaryBytes(source.bytes),
        parts.join(", ")
    )
}

/// The figures of the view.
fn view_lines(plan: &Plan, counts: &Counts) -> String {
    let changed = match &counts.changed_by[..] {
        [] => String::new(),
        [by] => format!("changed ({})", by.operators.join(" → ")),
        several => {
            let several = several
                .iter()
                .map(|by| format!("{} {}", by.count.tensors, by.operators.join(" → ")));
            format!("changed ({})", several.collect::<Vec<_>>().join(", "))
        }
    };
    let scales = match counts.scales.tensors {
        1 => "scale",
        _ => "scales",
    };
    let tensors = list([
        (counts.kept.tensors, "kept"),
        (counts.added.tensors, "added"),
        (counts.grafted.tensors, "grafted"),
        (counts.changed.tensors, &*changed),
        (counts.scales.tensors, scales),
    ]);
    let (before, after) = (counts.before.bytes, counts.total.bytes);
    let bytes = if before == after {
        format!("{} of tensors, as before", BinaryBytes(after))
    } else {
        format!(
            "{} → {} of tensors",
            BinaryBytes(before),
            BinaryBytes(after)
        )
    };
    let unchanged = plan.shards.iter().filter(|s| s.whole_file.is_some());
    format!(
        "view   {}: {tensors}\nbytes  {bytes}\nfiles  {} of {} ({} unchanged), {} of {}\n",
        counted(counts.total.tensors, "tensor"),
        counted(counts.shards.files, "shard"),
        BinaryBytes(counts.shards.bytes),
        unchanged.count(),
        counted(counts.other_files.files, "other file"),
        BinaryBytes(counts.other_files.bytes),
    )
}

/// The counts that are not 0.
fn list<'a>(counts: impl IntoIterator<Item = (usize, &'a str)>) -> String {
    let counts = counts.into_iter().filter(|(count, _)| *count > 0);
    let counts = counts.map(|(count, what)| format!("{count} {what}"));
    counts.collect::<Vec<_>>().join(", ")
}

/// What references decide, what is left out, notes and warnings.
fn remarks(plan: &Plan) -> String {
    let mut text = String::new();
    for unquantized in plan.report.reports::<UnquantizedReport>() {
        text += &unquantized_line(unquantized);
    }
    for reference in plan.report.reports::<ReferenceReport>() {
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
                text += &left_out_line(left_out);
            }
        }
    }
    for note in &plan.report.notes {
        text += &format!("note: {}\n", note.shown());
    }
    text + &warnings(plan)
}

fn left_out_line(left_out: &LeftOut) -> String {
    let hint = left_out.hint();
    let hint = hint.map_or_else(String::new, |hint| format!("; {}", hint.spelled(flag)));
    format!("left out: {}{}\n", left_out.what.shown(), hint.shown())
}

/// What is probably not what was meant.
pub(super) fn warnings(plan: &Plan) -> String {
    let warnings = plan.report.warnings.iter();
    let too_large = gguf::too_large(plan);
    warnings
        .chain(&too_large)
        .map(|warning| messages::line("warning", warning))
        .collect()
}

/// What rules leave unquantized, if anything.
fn unquantized_line(report: &UnquantizedReport) -> String {
    if report.bytes == 0 {
        return String::new();
    }
    format!(
        "unquantized  {} of the bytes of weights in layers ({})\n",
        percent(report.bytes, report.layer_bytes),
        listing(&report.shares()).shown()
    )
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
        "lora   {}{weight}: merged into {}{scalings}, {} replaced\n",
        adapter.path.shown(),
        counted(adapter.merged, "tensor"),
        adapter.replaced
    )
}

/// What is merged how, a line for each stretch of the output.
fn merge_summary(merge: &MergeReport) -> String {
    let mut text = format!(
        "merge  {} of {}",
        merge.method,
        counted(merge.models.len(), "model")
    );
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
        let how = if stretch.stored {
            "as stored in"
        } else {
            &merge.method
        };
        let from = stretch.from.join(" + ");
        let StretchReport { what, tensors, .. } = stretch;
        let tensors = counted(*tensors, "tensor");
        text += &format!("  {what}: {tensors}, {how} {from}\n");
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
