//! `ckptfs plan`, and the summary that every command on a view prints first.

mod json;
mod summary;

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use indicatif::BinaryBytes;

use ckptfs::catalog::{CONFIG_FILE, Edit, EditedConfig};
use ckptfs::fuse::PassthroughOutlook;
use ckptfs::inspect::NonFiniteValues;
use ckptfs::recipe::Plan;
use ckptfs::shown::{Show, lines};
use ckptfs::view::FileContent;

use crate::cli::provenance;

pub(crate) use json::json;
pub(crate) use summary::summary;

/// Prints the plan for people.
pub(crate) fn print(plan: &Plan) -> anyhow::Result<()> {
    let mut text = summary(plan);
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
    text += &provenance::text(plan);
    text.push('\n');
    for shard in &plan.shards {
        let computed = shard.tensors.iter().filter(|t| t.computed).count();
        let how = match &shard.whole_file {
            Some(source) => format!("= {}", source.shown()),
            None => format!("{} tensors, {computed} computed", shard.tensors.len()),
        };
        writeln!(
            text,
            "{}  {}  {how}",
            shard.name.shown(),
            BinaryBytes(shard.len)
        )?;
    }
    for (path, content) in aux_files(plan) {
        let how = match (content.whole_file(), &plan.report.edited_config) {
            (Some(source), _) => format!("= {}", source.path().shown()),
            (None, Some(config)) if path == Path::new(CONFIG_FILE) => edits(config),
            _ => "new".to_owned(),
        };
        writeln!(
            text,
            "{}  {}  {how}",
            path.shown(),
            BinaryBytes(content.len())
        )?;
    }
    to_stdout(&text)
}

/// What is edited in config.json, in a line.
fn edits(config: &EditedConfig) -> String {
    let edits = config.edits.iter().map(|(key, edit)| match edit {
        Edit::Set => format!("{key} set"),
        Edit::Removed => format!("{key} removed"),
    });
    let edits: Vec<String> = edits.collect();
    format!("edited: {}", edits.join(", "))
}

/// Prints the summary alone.
pub(crate) fn print_summary(plan: &Plan) -> anyhow::Result<()> {
    to_stdout(&summary(plan))
}

/// Prints what is probably not what was meant.
pub(crate) fn print_warnings(plan: &Plan) -> anyhow::Result<()> {
    to_stdout(&summary::warnings(plan))
}

/// Prints the plan for programs, with what checking the values found if that was done.
pub(crate) fn print_json(
    plan: &Plan,
    non_finite: Option<&[NonFiniteValues]>,
    with_provenance: bool,
) -> anyhow::Result<()> {
    to_stdout(&json(plan, non_finite, with_provenance)?)
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

/// Writes `text` to standard output. What a terminal would obey is escaped, so that JSON and YAML are
/// the same.
pub(crate) fn to_stdout(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout
        .write_all(lines(text).as_bytes())
        .and_then(|()| stdout.flush())
    {
        // Whoever closed the pipe has read enough.
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}
