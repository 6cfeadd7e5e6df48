//! Directories of checkpoints: which files there are, before anybody knows what is in them.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::error::Result;
use crate::manifest::MANIFEST_FILE;
use crate::source::{Attributes, Blob};

/// The directory of a checkpoint.
pub trait Directory: fmt::Debug + Send + Sync {
    /// Where it is, for messages and reports. It need not be a path of this machine.
    fn location(&self) -> &Path;

    /// Owner, mode and modification time, as a view shows them.
    fn attributes(&self) -> Attributes;

    /// The names in it, in order.
    ///
    /// # Errors
    /// If it cannot be listed.
    fn names(&self) -> Result<Vec<OsString>>;

    /// Whether there is something called `name` that can be opened.
    fn has(&self, name: &str) -> bool;

    /// The file called `name`.
    ///
    /// # Errors
    /// If there is none.
    fn file(&self, name: &str) -> Result<Arc<dyn Blob>>;

    /// The same of a file that holds tensors.
    ///
    /// # Errors
    /// As [`file`](Self::file).
    fn weights(&self, name: &str) -> Result<Arc<dyn Blob>> {
        self.file(name)
    }

    /// The directory called `name` in it, if there is one, and if such can be opened here.
    ///
    /// # Errors
    /// If it cannot be opened.
    fn below(&self, _name: &str) -> Result<Option<Arc<dyn Directory>>> {
        Ok(None)
    }

    /// How many of its files are worth opening at once, where that is not a matter of processors: each
    /// may wait for an answer.
    fn opened_at_once(&self) -> Option<usize> {
        None
    }

    /// What of `names` a view shows as it is, by what `class` says of each, with everything below
    /// directories.
    ///
    /// # Errors
    /// If it cannot be listed, or is more than a view may have.
    fn aux(&self, names: &[OsString], class: &mut dyn FnMut(&OsStr) -> Class) -> Result<AuxFiles>;
}

/// What a name in the directory of a checkpoint is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Weights, or their index.
    Weights,
    /// Everything else that belongs to the model.
    Aux,
    /// What is not shown, for this reason.
    LeftOut(&'static str),
}

/// What a view shows as it is.
#[derive(Debug, Default)]
pub struct AuxFiles {
    /// In name order.
    pub entries: Vec<AuxEntry>,
    /// What is not shown, each with its reason.
    pub left_out: Vec<String>,
}

/// A file or directory beside the weights.
#[derive(Debug, Clone)]
pub enum AuxEntry {
    File {
        name: OsString,
        file: Arc<dyn Blob>,
    },
    /// A file with another text than in the source.
    Edited {
        name: OsString,
        /// What it was.
        file: Arc<dyn Blob>,
        text: Arc<Vec<u8>>,
    },
    Directory {
        name: OsString,
        attributes: Attributes,
        entries: Vec<AuxEntry>,
    },
}

impl AuxEntry {
    /// The name inside its directory.
    pub fn name(&self) -> &OsString {
        match self {
            AuxEntry::File { name, .. }
            | AuxEntry::Edited { name, .. }
            | AuxEntry::Directory { name, .. } => name,
        }
    }
}

/// The directory at the top of a mount that tells about it. What a source has of that name is not
/// shown, mounted or written, so that it stands for one thing everywhere.
pub const MOUNT_DIRECTORY: &str = ".ckptfs";

/// Why no view shows what has this name in a source, whatever its weights are in.
pub(crate) fn never_shown(name: &str) -> Option<&'static str> {
    if matches!(name, ".git" | ".cache") || name.ends_with(".ckptfs-partial") {
        Some("not part of the model")
    } else if name == MOUNT_DIRECTORY {
        Some("the name of the directory in which a mount tells about itself")
    } else if name == MANIFEST_FILE {
        Some("checksums of this directory's files, not of the view's")
    } else {
        None
    }
}
