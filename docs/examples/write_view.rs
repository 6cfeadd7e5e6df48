//! Writes a view to a directory: a base, completed by the tensors that only another checkpoint has.
//!
//!     cargo run --example write_view -- BASE EXTRA OUT
//!
//! A run that was stopped resumes when it is started again. OUT is complete or not there.

use std::error::Error;
use std::path::Path;

use ckptfs::materialize::{Options, materialize};
use ckptfs::ops::{Operations, PatchParams};
use ckptfs::recipe::ViewRequest;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [base, extra, out] = &arguments[..] else {
        return Err("usage: write_view BASE EXTRA OUT".into());
    };
    write_view(base.as_ref(), extra.as_ref(), out.as_ref())
}

pub(crate) fn write_view(base: &Path, extra: &Path, out: &Path) -> Result<(), Box<dyn Error>> {
    let request = ViewRequest {
        operations: Operations {
            patch: PatchParams {
                extras: vec![extra.into()],
            },
            ..Operations::default()
        },
        ..ViewRequest::new(base)
    };
    let plan = request.plan()?;
    for warning in &plan.report.warnings {
        eprintln!("warning: {warning}");
    }
    // `()` shows no progress; see `ckptfs::jobs::Progress`.
    materialize(&plan, &request.inputs(), out, &Options::default(), &())?;
    Ok(())
}
