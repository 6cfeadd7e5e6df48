//! `ckptfs materialize`

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use indicatif::BinaryBytes;

use ckptfs::materialize::{Options, Summary, materialize};
use ckptfs::recipe::Plan;

use crate::cli::plan::to_stdout;
use crate::cli::progress::Bar;

/// Where and how to write a view.
#[derive(Debug, Args)]
pub(crate) struct MaterializeArgs {
    /// Directory to write the view to; made if it does not exist
    #[arg(long, visible_alias = "output", value_name = "DIR")]
    out: PathBuf,

    /// Hard-link the shards that are whole source files, and copy where that fails
    #[arg(long)]
    hardlink: bool,

    /// Replace what the directory holds
    #[arg(long)]
    overwrite: bool,

    /// Place only shards and index into an existing model directory, and touch no other file
    #[arg(long)]
    weights_only: bool,

    /// Threads that write [default: as many as there are CPUs]
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
}

/// Writes the view of `plan`. `sources` are the directories that the view reads from.
pub(crate) fn run(plan: &Plan, sources: &[PathBuf], args: &MaterializeArgs) -> anyhow::Result<()> {
    let defaults = Options::default();
    let options = Options {
        hardlink: args.hardlink,
        overwrite: args.overwrite,
        weights_only: args.weights_only,
        jobs: args.jobs.map_or(defaults.jobs, NonZeroUsize::get),
    };
    let bar = Bar::new();
    bar.cancel_on_signal()?;
    let result = materialize(plan, sources, &args.out, &options, &bar);
    bar.finish();
    let summary = result?;
    let mut text = String::new();
    for warning in &summary.warnings {
        text += &format!("warning: {warning}\n");
    }
    text += &done(&summary, args, &bar);
    to_stdout(&text)
}

fn done(summary: &Summary, args: &MaterializeArgs, bar: &Bar) -> String {
    let written = summary.bytes - summary.linked_bytes;
    let mut text = format!(
        "wrote  {}: {} files, {} written ({})",
        args.out.display(),
        summary.files,
        BinaryBytes(written),
        bar.rate(written),
    );
    if args.hardlink {
        text += &format!(
            ", {} shards linked ({})",
            summary.linked,
            BinaryBytes(summary.linked_bytes)
        );
    }
    if summary.copied_instead > 0 {
        text += &format!(
            ", {} copied because they could not be linked",
            summary.copied_instead
        );
    }
    text + "\n"
}
