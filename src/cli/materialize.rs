//! `ckptfs materialize`

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use indicatif::BinaryBytes;

use ckptfs::materialize::{
    Options, Part, Share, Summary, left_by_earlier_run, materialize, outlook,
};
use ckptfs::recipe::Plan;
use ckptfs::shown::Show;
use ckptfs::source::Location;
use ckptfs::text::counted;

use crate::cli::args::parse_threads;
use crate::cli::confirm::confirm;
use crate::cli::messages::{self, Said};
use crate::cli::mounted::check_answers;
use crate::cli::plan::{self, to_stdout};
use crate::cli::progress::Bar;

/// The heading of these flags.
const OUTPUT: &str = "Output";

/// Where and how to write a view.
#[derive(Debug, Args)]
pub(crate) struct MaterializeArgs {
    /// Directory to write the view to, created if it does not exist; or a prefix of an object store:
    /// s3://bucket/prefix, gs://… or az://…
    #[arg(long, help_heading = OUTPUT, visible_alias = "output", value_name = "DIR|URL")]
    out: PathBuf,

    /// Hard-link unchanged shards; copies where that fails
    #[arg(long, help_heading = OUTPUT)]
    hardlink: bool,

    /// Replace the content of the directory, or all objects below the prefix
    #[arg(long, help_heading = OUTPUT, alias = "force")]
    overwrite: bool,

    /// Write only shards and index, into an existing model directory
    #[arg(long, help_heading = OUTPUT)]
    weights_only: bool,

    /// Write SHA256SUMS, for `sha256sum -c` and `ckptfs verify`
    #[arg(long, help_heading = OUTPUT, conflicts_with = "weights_only")]
    sha256: bool,

    /// Write only part I of N of the shards (I from 1 to N); other machines write the other parts
    #[arg(long, help_heading = OUTPUT, value_name = "I/N", value_parser = parse_part, conflicts_with = "weights_only")]
    part: Option<Part>,

    /// Complete a view that was written in parts: write all other files and move it into place
    #[arg(long, help_heading = OUTPUT, conflicts_with_all = ["part", "weights_only"])]
    finish: bool,

    /// Keep facts about whole tensors (norms, merge thresholds) in DIR for the next run; facts about
    /// changed sources are not used
    #[arg(long, help_heading = OUTPUT, value_name = "DIR")]
    facts_cache: Option<PathBuf>,

    /// Read source data that is not cached with O_DIRECT: faster from most disks, and it does not
    /// evict other files from the page cache
    #[arg(long, help_heading = OUTPUT)]
    direct_sources: bool,

    /// Do not ask for confirmation
    #[arg(long, short, help_heading = OUTPUT)]
    yes: bool,

    /// Start even if free space seems too small, for filesystems that compress
    #[arg(long, help_heading = OUTPUT)]
    no_space_check: bool,

    /// Threads that write [default: number of CPUs]
    #[arg(long, help_heading = OUTPUT, value_name = "N", value_parser = parse_threads)]
    jobs: Option<NonZeroUsize>,
}

/// Writes the view of `plan`. `inputs` are the files and directories that the view is made from.
pub(crate) fn run(
    plan: &Plan,
    inputs: &[PathBuf],
    args: &MaterializeArgs,
    quiet: bool,
) -> anyhow::Result<()> {
    let defaults = Options::default();
    let options = Options {
        hardlink: args.hardlink,
        start_again: true,
        overwrite: args.overwrite,
        weights_only: args.weights_only,
        sha256: args.sha256,
        check_space: !args.no_space_check,
        share: match (args.part, args.finish) {
            (Some(part), _) => Share::Part(part),
            (None, true) => Share::Finish,
            (None, false) => Share::Whole,
        },
        jobs: args.jobs.map_or(defaults.jobs, NonZeroUsize::get),
        facts_cache: args.facts_cache.clone(),
        direct_sources: args.direct_sources,
    };
    // Looking whether something is there would wait.
    if Location::from(&args.out).local().is_some() {
        check_answers(&args.out)?;
    }
    if quiet {
        plan::print_warnings(plan)?
    } else {
        plan::print_summary(plan)?
    }
    let ahead = outlook(plan, inputs, &args.out, &options)?;
    if options.check_space {
        ahead.check_space(&args.out)?;
    }
    if !args.yes {
        confirm(&ahead, &args.out)?;
    }
    let bar = Bar::new(quiet)?;
    let result = materialize(plan, inputs, &args.out, &options, &bar);
    let failed = |error| failed(error, plan, inputs, args, &options);
    let summary = bar.finish(result, failed)?;
    let mut text = String::new();
    for warning in &summary.warnings {
        text += &messages::line("warning", warning);
    }
    if !quiet {
        text += &done(&summary, args, &bar);
    }
    to_stdout(&text)
}

/// Says what is left after `error`, and what can be done.
fn failed(
    error: ckptfs::Error,
    plan: &Plan,
    inputs: &[PathBuf],
    args: &MaterializeArgs,
    options: &Options,
) -> anyhow::Error {
    let Some(partial) = left_by_earlier_run(&args.out, args.weights_only) else {
        return error.into();
    };
    let mut kept = format!("{} keeps what is complete", partial.shown());
    // The directory may be of something else, which is the error then.
    if let Ok(left) = outlook(plan, inputs, &args.out, options)
        && left.kept > 0
    {
        kept += &format!(
            ", {} of {} ({} of {})",
            left.kept,
            counted(left.files, "file"),
            BinaryBytes(left.kept_bytes),
            BinaryBytes(left.bytes)
        );
    }
    Said::with_note(
        error,
        &format!("{kept}, and the same command again resumes"),
    )
    .into()
}

fn parse_part(text: &str) -> Result<Part, String> {
    let numbers = text.split_once('/');
    let numbers = numbers.and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
    let Some((number, of)) = numbers else {
        return Err(format!("{text:?} is not a part; write for example 1/8"));
    };
    Part::new(number, of).map_err(|error| messages::problem_of_value(&error))
}

fn done(summary: &Summary, args: &MaterializeArgs, bar: &Bar) -> String {
    let written = summary.bytes - summary.linked_bytes - summary.kept_bytes;
    let part = args.part.map_or(String::new(), |part| {
        format!("part {} of {} of ", part.number(), part.count())
    });
    let mut text = format!(
        "wrote  {part}{}: {}, {} written ({})",
        args.out.shown(),
        counted(summary.files, "file"),
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
            ", {} linked ({})",
            counted(summary.linked, "shard"),
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
