//! `ckptfs materialize`

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use indicatif::BinaryBytes;

use ckptfs::materialize::{Options, Part, Share, Summary, left_by_earlier_run, materialize};
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

    /// Write SHA256SUMS, the checksums of all files, for `sha256sum -c` and `ckptfs verify`
    #[arg(long, conflicts_with = "weights_only")]
    sha256: bool,

    /// Write only this share of the shards (I from 1 to N); other machines write the others, and
    /// --finish puts them together
    #[arg(long, value_name = "I/N", value_parser = parse_part, conflicts_with = "weights_only")]
    part: Option<Part>,

    /// Put the parts together, once all are complete: write what is no shard, and have the view
    /// take its place
    #[arg(long, conflicts_with_all = ["part", "weights_only"])]
    finish: bool,

    /// Keep facts about whole tensors (norms, thresholds of merges) in this directory from one
    /// run to the next; facts of sources that changed are never used
    #[arg(long, value_name = "DIR")]
    facts_cache: Option<PathBuf>,

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
        sha256: args.sha256,
        share: match (args.part, args.finish) {
            (Some(part), _) => Share::Part(part),
            (None, true) => Share::Finish,
            (None, false) => Share::Whole,
        },
        jobs: args.jobs.map_or(defaults.jobs, NonZeroUsize::get),
        facts_cache: args.facts_cache.clone(),
    };
    let bar = Bar::new();
    bar.cancel_on_signal()?;
    let result = materialize(plan, sources, &args.out, &options, &bar);
    bar.finish();
    let summary = result.map_err(|error| failed(error, args))?;
    let mut text = String::new();
    for warning in &summary.warnings {
        text += &format!("warning: {warning}\n");
    }
    text += &done(&summary, args, &bar);
    to_stdout(&text)
}

/// Says what can be done after `error`.
fn failed(error: ckptfs::Error, args: &MaterializeArgs) -> anyhow::Error {
    match left_by_earlier_run(&args.out, args.weights_only) {
        Some(partial) => anyhow::anyhow!(
            "{error}\nnote: {} keeps what is complete, for the same request to go on with",
            partial.display()
        ),
        None => error.into(),
    }
}

fn parse_part(text: &str) -> Result<Part, String> {
    let numbers = text.split_once('/');
    let numbers = numbers.and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
    let Some((number, of)) = numbers else {
        return Err(format!("{text:?} is not a part; write for example 1/8"));
    };
    Part::new(number, of).map_err(|error| error.to_string())
}

fn done(summary: &Summary, args: &MaterializeArgs, bar: &Bar) -> String {
    let written = summary.bytes - summary.linked_bytes - summary.kept_bytes;
    let part = args.part.map_or(String::new(), |part| {
        format!("part {} of {} of ", part.number(), part.of())
    });
    let mut text = format!(
        "wrote  {part}{}: {} files, {} written ({})",
        args.out.display(),
        summary.files,
        BinaryBytes(written),
        bar.rate(written),
    );
    if summary.kept > 0 {
        text += &format!(
            ", {} were complete ({})",
            summary.kept,
            BinaryBytes(summary.kept_bytes)
        );
    }
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
    text += "\n";
    if args.part.is_some() {
        text += "the view takes its place once all parts are complete and --finish is run\n";
    }
    text
}
