//! The cache of repositories that `huggingface_hub` keeps. It is read, and nothing is written to it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Code, Error, Result};
use crate::source::remote::hub::address::Address;
use crate::source::remote::hub::options::HubOptions;

fn repository(options: &HubOptions, repository: &str) -> Option<PathBuf> {
    let name = format!("models--{}", repository.replace('/', "--"));
    Some(options.cache.as_ref()?.join(name))
}

/// The file of `path` at `commit` in the cache, if all of it is there: content is stored under its
/// hash, and what is not complete has another name.
pub(super) fn blob(
    options: &HubOptions,
    of: &str,
    commit: &str,
    path: &str,
    hash: &str,
    len: u64,
) -> Option<PathBuf> {
    let repository = repository(options, of)?;
    let is_complete = |path: &Path| {
        let metadata = fs::metadata(path);
        metadata.is_ok_and(|metadata| metadata.is_file() && metadata.len() == len)
    };
    let blob = repository.join("blobs").join(hash);
    if hash.is_empty() || hash.contains('/') || !is_complete(&blob) {
        return None;
    }
    let named = repository.join("snapshots").join(commit).join(path);
    let leads_there = || Some(named.canonicalize().ok()? == blob.canonicalize().ok()?);
    match leads_there() {
        Some(true) => Some(named),
        _ => Some(blob),
    }
}

/// The snapshot that is in the cache.
///
/// # Errors
/// If there is none.
pub(super) fn snapshot(options: &HubOptions, address: &Address) -> Result<PathBuf> {
    let found = repository(options, &address.repository).and_then(|repository| {
        let name = repository.join("refs").join(&address.revision);
        let commit = match address.commit() {
            Some(commit) => commit.to_owned(),
            None => fs::read_to_string(name).ok()?.trim().to_owned(),
        };
        let directory = repository.join("snapshots").join(commit);
        let directory = directory.join(&address.directory);
        directory.exists().then_some(directory)
    });
    found.ok_or_else(|| {
        let problem = "HF_HUB_OFFLINE is set, and the local cache of the Hub does not have it";
        let error = Error::of_file(Code::ModelMissing, address.root(), problem);
        error.with_hint("download it with hf download, or unset HF_HUB_OFFLINE")
    })
}
