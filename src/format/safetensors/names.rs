//! How the files of a safetensors checkpoint are called.

use std::ffi::OsStr;
use std::sync::LazyLock;

use regex::Regex;

use crate::error::{Code, Error, Result};

/// The file name of an index.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// The name of a shard that is the whole checkpoint, without an index.
pub const SINGLE_FILE: &str = "model.safetensors";

/// What the names of all files that hold tensors end in.
const EXTENSION: &str = ".safetensors";

/// Whether `name` is one that loaders expect without an index telling them.
pub fn is_standard_name(name: &str) -> bool {
    static STANDARD: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"^model(-[0-9]{5}-of-[0-9]{5})?\.safetensors$").expect("a valid expression")
    });
    STANDARD.is_match(name)
}

/// Whether `name` is that of a file that holds tensors.
pub(in crate::format) fn is_shard(name: &OsStr) -> bool {
    name.as_encoded_bytes().ends_with(EXTENSION.as_bytes())
}

/// The standard names of `count` shards.
///
/// # Errors
/// If they are more than such names can number.
pub(in crate::format) fn standard_names(count: usize) -> Result<impl Iterator<Item = String>> {
    const MAX_SHARDS: usize = 99_999;
    if count > MAX_SHARDS {
        return Err(Error::new(
            Code::ShardLimit,
            format!(
                "the view would have {count} shards, more than the {MAX_SHARDS} that standard names can number"
            ),
        ));
    }
    Ok((1..=count).map(move |number| format!("model-{number:05}-of-{count:05}.safetensors")))
}
