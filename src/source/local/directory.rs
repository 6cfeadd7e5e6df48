//! A directory of this machine, and everything in it that is not a weight: config, tokenizer, code,
//! licences, whole subdirectories.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Code, Error, Result};
use crate::source::directory::never_shown;
use crate::source::naming::check_directory;
use crate::source::{Attributes, AuxEntry, AuxFiles, Blob, Class, Directory, LocalFile, with_room};

/// The most files and directories beside the weights.
const MOST_ENTRIES: usize = 1 << 18;

/// The most links to directories that are followed: they can multiply a few files into any number.
const MOST_LINKS: usize = 256;

/// A directory of this machine.
#[derive(Debug)]
pub(crate) struct LocalDirectory {
    path: PathBuf,
    attributes: Attributes,
}

impl LocalDirectory {
    /// The directory at `path`.
    ///
    /// # Errors
    /// If there is none; the message names what is near it.
    pub(crate) fn open(path: PathBuf) -> Result<Self> {
        check_directory(&path)?;
        let attributes = Attributes::read(&path)?;
        Ok(LocalDirectory { path, attributes })
    }
}

impl Directory for LocalDirectory {
    fn location(&self) -> &Path {
        &self.path
    }

    fn attributes(&self) -> Attributes {
        self.attributes
    }

    fn names(&self) -> Result<Vec<OsString>> {
        sorted_names(&self.path)
    }

    fn has(&self, name: &str) -> bool {
        self.path.join(name).exists()
    }

    fn file(&self, name: &str) -> Result<Arc<dyn Blob>> {
        Ok(Arc::new(LocalFile::new(self.path.join(name))?))
    }

    fn weights(&self, name: &str) -> Result<Arc<dyn Blob>> {
        Ok(Arc::new(LocalFile::of_weights(self.path.join(name))?))
    }

    fn below(&self, name: &str) -> Result<Option<Arc<dyn Directory>>> {
        let path = self.path.join(name);
        match path.is_dir() {
            true => Ok(Some(Arc::new(LocalDirectory::open(path)?))),
            false => Ok(None),
        }
    }

    fn aux(&self, names: &[OsString], class: &mut dyn FnMut(&OsStr) -> Class) -> Result<AuxFiles> {
        let mut aux = AuxFiles::default();
        let mut seen = Seen::default();
        for name in names {
            let text = name.to_string_lossy();
            let reason = match class(name) {
                Class::Weights => continue,
                Class::LeftOut(reason) => Some(reason),
                Class::Aux => never_shown(&text),
            };
            if let Some(reason) = reason {
                aux.left_out.push(format!("{text}: {reason}"));
                continue;
            }
            let mut walk = Walk {
                ancestors: vec![canonical(&self.path)?],
                left_out: &mut aux.left_out,
                seen: &mut seen,
            };
            let path = self.path.join(name);
            aux.entries.extend(walk.entry(&path, name.clone(), &text)?);
        }
        Ok(aux)
    }
}

fn sorted_names(directory: &Path) -> Result<Vec<OsString>> {
    let list_error = |e| Error::io("list", directory, e);
    let mut names = with_room(|| fs::read_dir(directory))
        .map_err(list_error)?
        .map(|entry| entry.map(|e| e.file_name()).map_err(list_error))
        .collect::<Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

fn canonical(path: &Path) -> Result<PathBuf> {
    path.canonicalize()
        .map_err(|e| Error::io("resolve", path, e))
}

/// A descent into subdirectories that follows links but never into a directory it is inside of.
struct Walk<'a> {
    ancestors: Vec<PathBuf>,
    left_out: &'a mut Vec<String>,
    seen: &'a mut Seen,
}

/// What there was so far.
#[derive(Debug, Default)]
struct Seen {
    entries: usize,
    links: usize,
}

fn too_many(path: &Path, most: usize, what: &str) -> Error {
    Error::of_file(
        Code::OverLimit,
        path,
        format!(
            "this is one more than the {most} {what} that a checkpoint may have beside its weights (those inside of linked directories count each time)"
        ),
    )
}

impl Walk<'_> {
    fn entry(&mut self, path: &Path, name: OsString, shown: &str) -> Result<Option<AuxEntry>> {
        self.seen.entries += 1;
        if self.seen.entries > MOST_ENTRIES {
            return Err(too_many(path, MOST_ENTRIES, "files and directories"));
        }
        // A dangling or looping link has no content to show.
        let Ok(metadata) = path.metadata() else {
            self.left_out
                .push(format!("{shown}: a link that leads nowhere"));
            return Ok(None);
        };
        if metadata.is_file() {
            let file = Arc::new(LocalFile::new(path)?);
            return Ok(Some(AuxEntry::File { name, file }));
        }
        if !metadata.is_dir() {
            self.left_out
                .push(format!("{shown}: neither a file nor a directory"));
            return Ok(None);
        }
        let resolved = canonical(path)?;
        if self.ancestors.contains(&resolved) {
            self.left_out
                .push(format!("{shown}: a link to a directory that holds it"));
            return Ok(None);
        }
        self.seen.links += usize::from(path.is_symlink());
        if self.seen.links > MOST_LINKS {
            return Err(too_many(path, MOST_LINKS, "links to directories"));
        }
        self.ancestors.push(resolved);
        let mut entries = Vec::new();
        for child in sorted_names(path)? {
            let shown = format!("{shown}/{}", child.to_string_lossy());
            entries.extend(self.entry(&path.join(&child), child, &shown)?);
        }
        self.ancestors.pop();
        Ok(Some(AuxEntry::Directory {
            name,
            attributes: Attributes::read(path)?,
            entries,
        }))
    }
}
