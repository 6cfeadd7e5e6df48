//! `ckptfs report`: a view as one HTML file that needs nothing else.

mod data;
mod difference;
mod page;

use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::BinaryBytes;

use ckptfs::diff;
use ckptfs::inspect::{self, Inspection};
use ckptfs::outputs::OutputCheck;
use ckptfs::read::Reader;
use ckptfs::recipe::{Plan, ViewRequest};
use ckptfs::shown::Show;

use crate::cli::check_values::{CACHE_BYTES, jobs};
use crate::cli::output_file::OutputFile;
use crate::cli::plan::to_stdout;
use crate::cli::progress::Bar;
use crate::cli::report::difference::Difference;
use crate::cli::waiting::note_silent_mount;

/// What to write, and where.
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// File to write
    #[arg(long, visible_alias = "output", value_name = "FILE")]
    out: PathBuf,

    /// Replace an existing file
    #[arg(long, alias = "force")]
    overwrite: bool,

    /// Measure the quantization error of every quantized tensor
    #[arg(long)]
    errors: bool,

    /// Add a comparison of this checkpoint directory, mount or recipe with the view
    #[arg(long, value_name = "DIR")]
    diff: Option<PathBuf>,
}

/// Writes the report on the view of `request`.
pub(crate) fn run(request: &ViewRequest, args: &ReportArgs, quiet: bool) -> anyhow::Result<()> {
    let plan = &request.plan()?;
    let mut inputs = request.inputs();
    let other = args.diff.as_ref().map(|from| {
        note_silent_mount(from);
        let other = diff::request(from, &[])?;
        inputs.extend(other.inputs());
        other.plan()
    });
    let other = other.transpose()?;
    let check = OutputCheck::new(&inputs, &plan.view)?;
    let out = OutputFile::new(&args.out, args.overwrite, &check)?;
    let inspection = args.errors.then(|| measured(plan, quiet)).transpose()?;
    let diff = args.diff.as_ref().zip(other.as_ref());
    let diff = diff.map(|(from, other)| compared(from, other, plan, quiet));
    let page = page::page(&data::Data::new(
        plan,
        request.to_recipe(),
        inspection.as_ref(),
        diff.transpose()?,
    ))?;
    out.write("report", page.as_bytes())?;
    let len = BinaryBytes(page.len() as u64);
    to_stdout(&format!("{}: {len}\n", args.out.shown()))
}

fn measured(plan: &Plan, quiet: bool) -> anyhow::Result<Inspection> {
    let tensors = inspect::quantized_tensors(plan);
    let reader = Reader::new(plan.view.clone(), CACHE_BYTES);
    let bar = Bar::new(quiet)?;
    let inspection = inspect::inspect(&reader, &tensors, jobs(), &bar);
    bar.finish(inspection, anyhow::Error::from)
}

fn compared(from: &Path, other: &Plan, plan: &Plan, quiet: bool) -> anyhow::Result<Difference> {
    let bar = Bar::new(quiet)?;
    let found = diff::diff([other, plan], true, jobs(), &bar);
    let found = bar.finish(found, anyhow::Error::from)?;
    Ok(Difference::new(from, &found))
}
