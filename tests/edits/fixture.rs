//! Views with edits.

use std::path::Path;

use ckptfs::error::setting;
use ckptfs::ops::{Value, named_file};
use ckptfs::recipe::{Plan, ViewRequest};
use ckptfs::source::Location;

use crate::common::Workspace;
use crate::common::checkpoint::{Checkpoint, small};
use crate::common::readback::read_path;

/// An edit as flags say it: `set`, `unset`, `promote`, `keep`, `add_file` (`NAME=PATH`) or
/// `drop_file`, and its value.
pub(crate) type Edit<'a> = (&'a str, &'a str);

/// Asks for `edits`, one after the other.
pub(crate) fn ask(request: &mut ViewRequest, edits: &[Edit]) -> ckptfs::Result<()> {
    for (kind, text) in edits {
        let key = match *kind {
            "set" => setting::SET,
            "unset" => setting::UNSET,
            "promote" => setting::PROMOTE,
            "keep" => setting::KEEP,
            "add_file" => setting::ADD_FILE,
            _ => setting::DROP_FILE,
        };
        let value = match *kind {
            "add_file" => named_file(text).unwrap(),
            _ => Value::Text((*text).to_owned()),
        };
        request.operations.set(key, value)?;
    }
    Ok(())
}

/// A view of `base` with `edits`.
pub(crate) fn request(base: impl Into<Location>, edits: &[Edit]) -> ViewRequest {
    let mut request = ViewRequest::new(base);
    ask(&mut request, edits).unwrap();
    request
}

/// A checkpoint with this config.json.
pub(crate) fn checkpoint(config: &str) -> Checkpoint {
    Checkpoint::single(small(["a.weight", "b.weight"])).config(config)
}

/// The plan of `checkpoint` with `edits`.
pub(crate) fn plan(checkpoint: &Checkpoint, edits: &[Edit]) -> ckptfs::Result<Plan> {
    let workspace = Workspace::new();
    let base = workspace.write("base", checkpoint);
    let mut request = ViewRequest::new(base);
    ask(&mut request, edits)?;
    request.plan()
}

/// config.json with `edits`.
pub(crate) fn edited(config: &str, edits: &[Edit]) -> String {
    let workspace = Workspace::new();
    let base = workspace.write("base", &checkpoint(config));
    let plan = request(base, edits).plan();
    let plan = plan.unwrap_or_else(|e| panic!("{e}\n{config}\n{edits:?}"));
    text(&plan, "config.json")
}

/// The text of a file of a view.
pub(crate) fn text(plan: &Plan, path: impl AsRef<Path>) -> String {
    let content = read_path(plan, path).expect("the view has the file");
    String::from_utf8(content).expect("the file is UTF-8")
}
