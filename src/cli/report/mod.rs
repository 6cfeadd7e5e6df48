//! `ckptfs report`: a view as one HTML file that needs nothing else.

mod data;
mod difference;
mod page;

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use indicatif::BinaryBytes;

use ckptfs::diff;
use ckptfs::inspect::{self, Inspection};
use ckptfs::read::Reader;
use ckptfs::recipe::{Plan, ViewRequest};

use crate::cli::check_values::{CACHE_BYTES, jobs};
use crate::cli::plan::to_stdout;
use crate::cli::progress::Bar;
use crate::cli::report::difference::Difference;

/// What to write, and where.
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// The file to write
    #[arg(long, visible_alias = "output", value_name = "FILE")]
    out: PathBuf,

    /// Write over a file that exists
    #[arg(long)]
    force: bool,

    /// Measure the quantization error of every tensor; reads all that is quantized
    #[arg(long)]
    errors: bool,

    /// Also tell what is different from this to the view: a checkpoint directory, a mount, or the
    /// recipe of a view; reads what is not the same bytes of the same file
    #[arg(long, value_name = "DIR")]
    diff: Option<PathBuf>,
}

/// Writes the report on the view of `request`.
pub(crate) fn run(request: &ViewRequest, args: &ReportArgs, quiet: bool) -> anyhow::Result<()> {
    let out = &args.out;
    if !args.force && out.symlink_metadata().is_ok() {
        bail!("{}: it exists; --force writes over it", out.display());
    }
    let plan = &request.plan()?;
    let inspection = args.errors.then(|| measured(plan, quiet)).transpose()?;
    let diff = args.diff.as_ref().map(|from| compared(from, plan, quiet));
    let page = page::page(&data::Data::of(
        plan,
        request.to_recipe(),
        inspection.as_ref(),
        diff.transpose()?,
    ))?;
    write(out, page.as_bytes(), args.force)
        .with_context(|| format!("{}: cannot write the report", out.display()))?;
    let len = BinaryBytes(page.len() as u64);
    to_stdout(&format!("{}: {len}\n", out.display()))
}

fn measured(plan: &Plan, quiet: bool) -> anyhow::Result<Inspection> {
    let tensors = inspect::quantized_tensors(plan);
    let reader = Reader::new(plan.view.clone(), CACHE_BYTES);
    let bar = Bar::new(quiet)?;
    let inspection = inspect::inspect(&reader, &tensors, jobs(), &bar);
    bar.finish(inspection, anyhow::Error::from)
}

fn compared(from: &Path, plan: &Plan, quiet: bool) -> anyhow::Result<Difference> {
    let other = diff::plan(from, &[])?;
    let bar = Bar::new(quiet)?;
    let found = diff::diff([&other, plan], true, jobs(), &bar);
    let found = bar.finish(found, anyhow::Error::from)?;
    Ok(Difference::of(from, &found))
}

/// Writes a file that is there as a whole or not at all.
fn write(path: &Path, bytes: &[u8], force: bool) -> std::io::Result<()> {
    // Whatever the process lets others do.
    const MODE: u32 = 0o666;
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut file = tempfile::Builder::new()
        .prefix(".ckptfs-report-")
        .permissions(Permissions::from_mode(MODE))
        .tempfile_in(directory)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    match force {
        true => file.persist(path)?,
        false => file.persist_noclobber(path)?,
    };
    Ok(())
}
