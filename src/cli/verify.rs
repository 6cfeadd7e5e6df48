//! `ckptfs verify`

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use indicatif::BinaryBytes;

use ckptfs::error::{Code, Error, Warning};
use ckptfs::materialize::Options;
use ckptfs::shown::Show;
use ckptfs::text::counted;
use ckptfs::verify;

use crate::cli::args::{VIEW_FLAGS, ViewArgs, parse_threads};
use crate::cli::messages;
use crate::cli::mounted::known_scales;
use crate::cli::operations::OPERATION_FLAGS;
use crate::cli::plan::to_stdout;
use crate::cli::progress::Bar;
use crate::cli::purpose::Purpose;
use crate::cli::waiting::note_silent_mount;

/// What to check: the structure of a directory, or its bytes against a view.
#[derive(Debug, Args)]
#[command(
    override_usage = "ckptfs verify DIR\n       ckptfs verify --base DIR [VIEW OPTIONS] --out DIR",
    mut_arg("base", |base| base.required_unless_present_any(["directory", "recipe"]))
)]
pub(crate) struct VerifyArgs {
    /// Directory, mount or URL to check: index, headers, lengths, scales and config.json; all bytes too if
    /// it has a SHA256SUMS
    #[arg(value_name = "DIR", conflicts_with_all = [VIEW_FLAGS, OPERATION_FLAGS, "out"])]
    directory: Option<PathBuf>,

    #[command(flatten)]
    view: ViewArgs,

    /// Directory, or URL, to compare with the view, byte by byte
    #[arg(
        long,
        visible_alias = "output",
        value_name = "DIR",
        required_unless_present = "directory"
    )]
    out: Option<PathBuf>,

    /// Threads that read and compare [default: number of CPUs]
    #[arg(long, value_name = "N", value_parser = parse_threads)]
    jobs: Option<NonZeroUsize>,
}

/// Prints what is wrong; the exit code says whether anything is.
pub(crate) fn run(args: &VerifyArgs, quiet: bool) -> anyhow::Result<ExitCode> {
    let jobs = args.jobs.map_or(Options::default().jobs, NonZeroUsize::get);
    match args {
        VerifyArgs {
            directory: Some(directory),
            view,
            ..
        } => {
            view.choose_network(Purpose::Job)?;
            structure(directory, jobs, quiet)
        }
        VerifyArgs {
            view,
            out: Some(out),
            ..
        } => against_view(view, out, jobs, quiet),
        _ => {
            let problem = "say what to check: a directory, or a view and --out";
            Err(Error::new(Code::Conflict, problem).into())
        }
    }
}

fn structure(directory: &Path, jobs: usize, quiet: bool) -> anyhow::Result<ExitCode> {
    let bar = Bar::new(quiet)?;
    note_silent_mount(directory);
    let known = known_scales(directory);
    let report = verify::structure(directory, &known, jobs, &bar);
    let checked = report.and_then(|r| Ok((r, verify::manifest(directory, jobs, &bar)?)));
    let (report, summed) = bar.finish(checked, anyhow::Error::from)?;
    let mut text = format!(
        "{}: {} of {} in {}\n",
        directory.shown(),
        counted(report.tensors, "tensor"),
        BinaryBytes(report.bytes),
        counted(report.shards, "shard")
    );
    if report.known_scales > 0 {
        text += &format!(
            "{}: computes the scales of {} as powers of two; these were not read\n",
            directory.shown(),
            counted(report.known_scales, "tensor")
        );
    }
    let (mut warnings, mut problems) = (report.warnings, report.problems);
    if let Some(summed) = summed {
        text += &format!(
            "{}: compared with the checksums of {}, {} ({})\n",
            directory.shown(),
            counted(summed.files, "file"),
            BinaryBytes(summed.bytes),
            bar.rate(summed.bytes)
        );
        warnings.extend(summed.warnings);
        problems.extend(summed.problems);
    }
    for warning in &warnings {
        text += &messages::line("warning", warning);
    }
    conclude(text, &problems)
}

fn against_view(view: &ViewArgs, out: &Path, jobs: usize, quiet: bool) -> anyhow::Result<ExitCode> {
    note_silent_mount(out);
    let plan = view.request()?.plan()?;
    let bar = Bar::new(quiet)?;
    let report = verify::against_view(&plan, out, jobs, &bar);
    let report = bar.finish(report, anyhow::Error::from)?;
    let mut text = format!(
        "{}: compared with {} of the view, {} ({})\n",
        out.shown(),
        counted(report.files, "file"),
        BinaryBytes(report.bytes),
        bar.rate(report.bytes)
    );
    for path in &report.extra {
        text += &format!("note: {} is not in the view\n", path.shown());
    }
    let differences = report.differences.iter();
    let problems: Vec<Warning> = differences
        .map(|difference| Warning::new(Code::ViewDiffers, difference.to_string()))
        .collect();
    conclude(text, &problems)
}

fn conclude(mut text: String, problems: &[Warning]) -> anyhow::Result<ExitCode> {
    for problem in problems {
        text += &messages::line("problem", problem);
    }
    let (verdict, code) = match problems.len() {
        0 => ("no problems found".to_owned(), ExitCode::SUCCESS),
        n => (
            format!("{} found", counted(n, "problem")),
            ExitCode::FAILURE,
        ),
    };
    text += &format!("{verdict}\n");
    to_stdout(&text)?;
    Ok(code)
}
