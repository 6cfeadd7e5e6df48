//! `ckptfs demo`: the main job on checkpoints of its own, in a few seconds, leaving nothing
//! behind.

mod check;
mod checkpoints;
#[cfg(feature = "fuse")]
mod mounting;

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use ckptfs::materialize;
use ckptfs::ops::{Operations, PatchParams, QuantizeParams};
use ckptfs::recipe::ViewRequest;
use indicatif::BinaryBytes;

use super::plan::summary;
#[cfg(feature = "fuse")]
use mounting::show_mounted;

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

    let out = path("view");
    if !show_mounted(&request, &plan, &out, [&base, &extra])? {
        say("$ ckptfs materialize --base base --extra extra --fp8 --out view")?;
        let options = materialize::Options::default();
        materialize::materialize(&plan, &request.inputs(), &out, &options, &())?;
        show(&out, &base, &extra)?;
    }
    directory
        .close()
        .context("cannot remove the demo's files")?;
    say("Everything was right. Nothing is left behind.")
}

/// Says that this build has no mounts.
#[cfg(not(feature = "fuse"))]
fn show_mounted(
    _: &ViewRequest,
    _: &ckptfs::recipe::Plan,
    _: &Path,
    _: [&Path; 2],
) -> anyhow::Result<bool> {
    say("This build has no mounts, so the view is written to disk instead:")?;
    Ok(false)
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
