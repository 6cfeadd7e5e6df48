//! Places that objects are in: which there are, and their bytes.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};

use crate::source::remote::fault::Attempt;

/// An object when it was listed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Object {
    /// Its name below the directory, with slashes.
    pub(super) name: String,
    /// The URL, without anything secret.
    pub(super) location: Arc<Path>,
    pub(super) len: u64,
    pub(super) modified: SystemTime,
    pub(super) pin: Pin,
}

impl Object {
    /// The URL as text.
    pub(super) fn url(&self) -> &str {
        self.location.to_str().unwrap_or_default()
    }

    /// What names its content: the URL, and all by which another content would be noticed.
    pub(super) fn content(&self) -> String {
        format!("{} ({}, {} bytes)", self.url(), self.pin, self.len)
    }
}

/// What every reply must agree with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Pin {
    /// The strong entity tag, with its quotes.
    Tag(String),
    /// The text of `Last-Modified`.
    Modified(String),
    /// The commit of a repository, and the hash of the file.
    Commit { commit: String, hash: String },
    /// Only the length.
    Nothing,
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pin::Tag(tag) => write!(f, "entity tag {tag}"),
            Pin::Modified(date) => write!(f, "modified {date}"),
            Pin::Commit { commit, hash } => write!(f, "{hash} of commit {commit}"),
            Pin::Nothing => f.write_str("unpinned"),
        }
    }
}

/// Bytes as they come.
pub(super) type Body = BoxStream<'static, Attempt<Bytes>>;

/// A place that objects are in. Each method makes one attempt.
pub(super) trait Store: fmt::Debug + Send + Sync {
    /// The objects that are there.
    fn list(&self) -> BoxFuture<'_, Attempt<Vec<Object>>>;

    /// Whether [`list`](Self::list) names all objects. Others are asked for by name.
    fn lists_all(&self) -> bool {
        true
    }

    /// The object called `name`; `None` if there is none.
    fn find<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Attempt<Option<Object>>>;

    /// The bytes `range` of `object`, of which there are some. The reply was checked to be of that
    /// range and of the object as it was listed.
    fn get<'a>(&'a self, object: &'a Object, range: Range<u64>) -> BoxFuture<'a, Attempt<Body>>;

    /// The file of this machine that has the bytes of `object`.
    fn local_copy(&self, object: &Object) -> Option<PathBuf> {
        let _ = object;
        None
    }
}
