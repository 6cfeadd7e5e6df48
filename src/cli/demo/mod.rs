//! `ckptfs demo`: the main job on checkpoints of its own, in a few seconds, leaving nothing
//! behind.

mod check;
mod checkpoints;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use ckptfs::fuse::{self, MountOptions};
use ckptfs::materialize;
use ckptfs::ops::{Operations, PatchParams, QuantizeParams};
use ckptfs::read::Reader;
use ckptfs::recipe::ViewRequest;
use indicatif::BinaryBytes;

use super::messages::flag;
use super::plan::summary;

/// Cache of computed tiles, in bytes.
const CACHE_BYTES: usize = 64 << 20;

/// Runs the demo.
pub(crate) fn run() -> anyhow::Result<()> {
    let directory = tempfile::Builder::new().prefix("ckptfs-demo-").tempdir()?;
    let path = |name: &str| directory.path().join(name);
    let (base, extra) = (path("base"), path("extra"));

    say("Two checkpoints: a base, and an extra with the MTP block that the base lacks.")?;
    checkpoints::write(&base, &extra)?;
    say(&format!("$ ls -R\n{}{}", list(&base)?, list(&extra)?))?;

    say("The view: the base, the tensors that only the extra has, all in block FP8.")?;
    let request = ViewRequest {
        operations: Operations {
            patch: PatchParams {
                extras: vec![extra.as_path().into()],
            },
            quantize: QuantizeParams::by_rules(),
            ..Operations::default()
        },
        ..ViewRequest::new(&base)
    };
    let plan = request.plan()?;
    say(&format!(
        "$ ckptfs plan --base base --extra extra --fp8\n{}",
        summary(&plan)
    ))?;

    let mountpoint = path("view");
    fs::create_dir(&mountpoint)?;
    let reader = Arc::new(Reader::new(plan.view.clone(), CACHE_BYTES));
    let options = MountOptions {
        source_name: base.clone().into(),
        sources: request.sources(),
        ..MountOptions::default()
    };
    match fuse::mount(reader, &mountpoint, &options) {
        Ok(mounted) => {
            say("$ ckptfs mount --base base --extra extra --fp8 view")?;
            let shown = show(&mountpoint, &base, &extra);
            mounted.unmount()?;
            shown?;
            say("$ ckptfs unmount view")?;
        }
        Err(error) => {
            say(&format!(
                "FUSE cannot be used here ({}), so the view is written to disk instead:\n$ ckptfs materialize --base base --extra extra --fp8 --out view",
                error.logged(flag)
            ))?;
            fs::remove_dir(&mountpoint)?;
            let options = materialize::Options::default();
            materialize::materialize(&plan, &request.inputs(), &mountpoint, &options, &())?;
            show(&mountpoint, &base, &extra)?;
        }
    }
    directory
        .close()
        .context("cannot remove the demo's files")?;
    say("Everything was right. Nothing is left behind.")
}

/// Lists the directory, reads it twice, and checks every tensor.
fn show(directory: &Path, base: &Path, extra: &Path) -> anyhow::Result<()> {
    say(&format!("$ ls view\n{}", list(directory)?))?;
    say(&format!("first read:   {}", read_all(directory)?))?;
    say(&format!("second read:  {}", read_all(directory)?))?;
    let checked = check::compare(directory, base, extra)?;
    say(&format!(
        "checked:      {} tensors equal to their source byte for byte; {} FP8 tensors within {:.1} % of their largest value\n",
        checked.equal,
        checked.quantized,
        100.0 * checked.largest_error
    ))
}

/// File names and sizes.
fn list(directory: &Path) -> anyhow::Result<String> {
    let mut lines = Vec::new();
    for entry in directory.read_dir()? {
        let entry = entry?;
        let name = Path::new(directory.file_name().unwrap_or_default()).join(entry.file_name());
        let size = BinaryBytes(entry.metadata()?.len()).to_string();
        lines.push(format!("{size:>12}  {}\n", name.display()));
    }
    lines.sort_by(|a, b| a[12..].cmp(&b[12..]));
    Ok(lines.concat())
}

/// Reads every file from front to back; says how much that was and how fast.
fn read_all(directory: &Path) -> anyhow::Result<String> {
    let start = Instant::now();
    let mut buffer = vec![0; 4 << 20];
    let mut total = 0;
    for entry in directory.read_dir()? {
        let mut file = File::open(entry?.path())?;
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                n => total += n as u64,
            }
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let rate = BinaryBytes((total as f64 / seconds) as u64);
    Ok(format!(
        "{} in {:.0} ms, {rate}/s",
        BinaryBytes(total),
        1000.0 * seconds
    ))
}

fn say(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}
