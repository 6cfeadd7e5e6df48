//! `ckptfs demo`: the main job on small checkpoints that it makes and removes, in a few seconds.

mod check;
mod checkpoints;
#[cfg(feature = "fuse")]
mod mounting;
mod showing;

#[cfg(not(feature = "fuse"))]
use std::path::Path;

use anyhow::Context;
use ckptfs::materialize;
use ckptfs::ops::{Operations, PatchParams, QuantizeParams};
use ckptfs::recipe::ViewRequest;

use super::plan::summary;
#[cfg(feature = "fuse")]
use mounting::show_mounted;
use showing::{list, say, show};

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
    say("Everything was right. The demo removed its files.")
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
