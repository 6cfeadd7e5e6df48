//! The prefix that a view is written to, and whether it may be.

use std::path::PathBuf;

use crate::error::setting::{HARDLINK, WEIGHTS_ONLY};
use crate::error::{Code, Error, Hint, Result};
use crate::materialize::options::Options;
use crate::outputs::OutputCheck;
use crate::recipe::Plan;
use crate::source::remote::{Bucket, Network, spelled};

/// A prefix of an object store. It is no source, holds none and is inside of none.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) bucket: Bucket,
}

impl Target {
    /// The prefix at `url`.
    ///
    /// # Errors
    /// If no view can be written there, or not as `options` say.
    pub(super) fn resolve(
        url: &str,
        plan: &Plan,
        inputs: &[PathBuf],
        options: &Options,
    ) -> Result<Self> {
        check_scheme(url)?;
        check_options(url, options)?;
        let bucket = Network::shared()?.bucket(url)?;
        let refuse = |problem: String| {
            let error = Error::of_file(Code::BadDestination, bucket.url(), problem);
            error.with_hint("choose another place")
        };
        if bucket.is_whole_bucket() {
            let problem =
                "a view cannot be all of a bucket; name a prefix, as in s3://bucket/model";
            return Err(Error::of_file(Code::BadDestination, url, problem));
        }
        let mut sources = Vec::new();
        plan.view
            .for_each_source(&mut |blob| sources.push(blob.location().to_path_buf()));
        let is_url = |path: &&PathBuf| path.to_string_lossy().contains("://");
        for source in inputs.iter().chain(&sources).filter(is_url) {
            let source = source.to_string_lossy();
            if let Some(relation) = relation(bucket.url(), &spelled(&source)) {
                return Err(refuse(format!(
                    "this {relation} {source}, which the view is made from"
                )));
            }
        }
        if let Some(facts) = &options.facts_cache {
            OutputCheck::new(inputs, &plan.view)?.check(facts)?;
        }
        Ok(Target { bucket })
    }
}

fn check_scheme(url: &str) -> Result<()> {
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
    let refuse = |problem: &str, hint: &'static str| {
        let error = Error::of_file(Code::UnsupportedPlace, url, problem);
        Err(error.with_hint(hint))
    };
    match scheme.to_ascii_lowercase().as_str() {
        "s3" | "gs" | "az" => Ok(()),
        "hf" => refuse(
            "ckptfs writes no repository of the Hub",
            "mount the view, and upload the files of the mount with `hf upload`",
        ),
        _ => refuse(
            "nothing can be written there",
            "the places that a view can be written to are directories of this machine, s3://, gs:// and az://",
        ),
    }
}

fn check_options(url: &str, options: &Options) -> Result<()> {
    let refuse = |problem: &str, setting: &'static str| {
        let error = Error::of_file(Code::Conflict, url, problem);
        Err(error.with_hint(Hint::leave_out(setting)))
    };
    if options.hardlink {
        return refuse("an object store has no hard links", HARDLINK);
    }
    if options.weights_only {
        return refuse(
            "weights alone are written to directories of this machine only",
            WEIGHTS_ONLY,
        );
    }
    Ok(())
}

/// How the place at `out` is related to that at `source`, if it is.
fn relation(out: &str, source: &str) -> Option<&'static str> {
    let below = |inner: &str, outer: &str| {
        let rest = inner.strip_prefix(outer);
        rest.is_some_and(|rest| rest.starts_with('/'))
    };
    if out == source {
        Some("is")
    } else if below(out, source) {
        Some("is inside")
    } else if below(source, out) {
        Some("holds")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_related_by_whole_names() {
        let out = "s3://bucket/models/m";
        for (source, found) in [
            ("s3://bucket/models/m", Some("is")),
            ("s3://bucket/models", Some("is inside")),
            ("s3://bucket", Some("is inside")),
            ("s3://bucket/models/m/shard.safetensors", Some("holds")),
            ("s3://bucket/models/m2", None),
            ("s3://bucket/models/other", None),
            ("s3://buck", None),
            ("gs://bucket/models/m", None),
        ] {
            assert_eq!(relation(out, source), found, "{source}");
        }
    }
}
