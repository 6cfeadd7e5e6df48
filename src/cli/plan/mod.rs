//! `ckptfs plan`, and the summary that every command on a view prints first.

mod files;
mod gguf;
#[cfg(feature = "fuse")]
mod passthrough;
mod shards;
mod summary;
mod writing;

use std::io::Write as _;

use ckptfs::json::{self, Details};
use ckptfs::provenance::{Counts, lineages};
use ckptfs::recipe::Plan;
use ckptfs::shown::lines;

use crate::cli::provenance;

pub(crate) use gguf::first_load;
pub(crate) use summary::summary;
pub(crate) use writing::writing_lines;

/// Prints the plan for people, the summary last.
pub(crate) fn print(plan: &Plan, details: &Details, only_summary: bool) -> anyhow::Result<()> {
    let mut text = String::new();
    let counts = if only_summary {
        Counts::of_plan(plan)
    } else {
        let lineages = lineages(plan);
        text += &provenance::text(plan, &lineages);
        text.push('\n');
        text += &files::lines(plan);
        text.push('\n');
        Counts::new(plan, lineages.iter().flatten())
    };
    text += &summary::of_plan(plan, &counts, details);
    to_stdout(&text)
}

/// Prints the summary alone.
pub(crate) fn print_summary(plan: &Plan) -> anyhow::Result<()> {
    to_stdout(&summary(plan))
}

/// Prints what is probably not what was meant.
pub(crate) fn print_warnings(plan: &Plan) -> anyhow::Result<()> {
    to_stdout(&summary::warnings(plan))
}

/// Prints the plan for programs.
pub(crate) fn print_json(plan: &Plan, details: &Details) -> anyhow::Result<()> {
    to_stdout(&json::plan(plan, details))
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
