//! Views at URLs, in a build without the feature `remote`: it writes none.

use std::path::PathBuf;

use crate::error::{Code, Error, Result};
use crate::jobs::Progress;
use crate::materialize::options::{Options, Summary};
use crate::materialize::space::Outlook;
use crate::recipe::Plan;

pub(super) fn upload(
    _plan: &Plan,
    _inputs: &[PathBuf],
    url: &str,
    _options: &Options,
    _progress: &dyn Progress,
) -> Result<Summary> {
    Err(refused(url))
}

pub(super) fn outlook(
    _plan: &Plan,
    _inputs: &[PathBuf],
    url: &str,
    _options: &Options,
) -> Result<Outlook> {
    Err(refused(url))
}

pub(super) fn left_by_earlier_run(_url: &str) -> Option<PathBuf> {
    None
}

fn refused(url: &str) -> Error {
    let problem = "this build writes to local directories only";
    let error = Error::of_file(Code::UnsupportedPlace, url, problem);
    error.with_hint(
        "build ckptfs with the Cargo feature remote, or name a directory of this machine",
    )
}
