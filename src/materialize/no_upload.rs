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

#[cfg(test)]
mod tests {
    use crate::materialize::{Options, materialize, outlook};
    use crate::recipe::ViewRequest;

    use super::*;

    #[test]
    fn a_url_is_refused_as_a_place_to_write_to() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("config.json"), "{}").unwrap();
        let header = br#"{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#;
        let shard = [&(header.len() as u64).to_le_bytes()[..], header, b"x"].concat();
        std::fs::write(at("model.safetensors"), shard).unwrap();
        let plan = ViewRequest::new(directory.path()).plan().unwrap();
        let options = Options::default();
        let url = "s3://bucket/m".as_ref();
        let errors = [
            materialize(&plan, &[], url, &options, &()).map(drop),
            outlook(&plan, &[], url, &options).map(drop),
        ];
        for error in errors {
            let error = error.unwrap_err();
            assert_eq!(error.code(), Code::UnsupportedPlace);
            let text = error.to_string();
            let start = "s3://bucket/m: this build writes to local directories only; build ckptfs";
            assert!(text.starts_with(start), "{text}");
        }
    }
}
