//! Blobs: what tensors and files of a view take their stored bytes from, wherever those are.

use std::any::Any;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};
use crate::memory;
use crate::source::Attributes;
use crate::source::pointer::Pointer;

/// A run of bytes that can be read at any offset and is pinned: it returns the bytes that the view
/// was planned from, or an error.
#[allow(clippy::len_without_is_empty)]
pub trait Blob: Any + fmt::Debug + Send + Sync {
    /// Length in bytes when the view was planned.
    fn len(&self) -> u64;

    /// What pins the content. Two blobs at one location with one identity have the same bytes.
    fn identity(&self) -> Identity;

    /// Where it is, for messages, and to tell it from other blobs: a path for a local file. It need
    /// not be a path of this machine; ask `as_local` before opening it.
    fn location(&self) -> &Arc<Path>;

    /// Owner, mode and modification time when the view was planned.
    fn attributes(&self) -> Attributes;

    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// [`Code::SourceChanged`](crate::error::Code::SourceChanged) if the content is not what it was when the view was planned, also
    /// when it changed during this read: a wrong byte is never returned without an error.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()>;

    /// Checks that the content is still what the view was planned from.
    ///
    /// # Errors
    /// [`Code::SourceChanged`](crate::error::Code::SourceChanged) if it is not.
    fn check(&self) -> Result<()>;

    /// Whether reads may wait for another machine.
    fn is_remote(&self) -> bool {
        false
    }

    /// Whether reading `range` waits for nothing but this machine.
    fn is_near(&self, range: &Range<u64>) -> bool {
        let _ = range;
        true
    }

    /// The whole content.
    ///
    /// # Errors
    /// Also if it has more than `max` bytes, or stands for a file that was not downloaded: it is not the
    /// text that it should be.
    fn read_all(&self, max: u64) -> Result<Vec<u8>> {
        if self.len() > max {
            return Err(Error::of_file(
                Code::OverLimit,
                self.location(),
                format!("it has {} bytes; at most {max} are read", self.len()),
            ));
        }
        let mut content = memory::zeros(self.len())?;
        self.read_at(&mut content, 0)?;
        match Pointer::parse(&content) {
            Some(pointer) => Err(pointer.error(self.location())),
            None => Ok(content),
        }
    }
}

/// What pins a blob's content, such as inode, length and modification time of a file, or the entity
/// tag of an object. Only comparing and printing it makes sense.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Identity(String);

impl Identity {
    /// The identity that `text` spells. Each implementation of [`Blob`] has its own spelling.
    pub fn new(text: impl Into<String>) -> Self {
        Identity(text.into())
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
