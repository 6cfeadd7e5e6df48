//! Everything in a checkpoint directory that is not a weight: config, tokenizer, code, licences,
//! whole subdirectories.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::manifest::MANIFEST_FILE;
use crate::source::{Attributes, Blob, INDEX_FILE, LocalFile, with_room};

/// A file or directory that a view shows as it is.
#[derive(Debug, Clone)]
pub enum AuxEntry {
    File {
        name: OsString,
        file: Arc<dyn Blob>,
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
            AuxEntry::File { name, .. } | AuxEntry::Directory { name, .. } => name,
        }
    }
}

/// The directory at the top of a mount that tells about it. What a source has of that name is not
/// shown, mounted or written, so that it stands for one thing everywhere.
pub const MOUNT_DIRECTORY: &str = ".ckptfs";

/// The most files and directories beside the weights.
const MOST_ENTRIES: usize = 1 << 18;

/// The most links to directories that are followed: they can multiply a few files into any number.
const MOST_LINKS: usize = 256;

/// What a scan of the top level found beside the weights.
#[derive(Debug, Default)]
pub(crate) struct AuxScan {
    pub entries: Vec<AuxEntry>,
    /// What is not shown, each with its reason.
    pub left_out: Vec<String>,
    /// Names of all `*.safetensors` at the top level, sorted.
    pub safetensors: Vec<String>,
    pub has_index: bool,
}

/// Lists `directory`, sorting weights from everything else.
pub(crate) fn scan(directory: &Path) -> Result<AuxScan> {
    let mut scan = AuxScan::default();
    let mut seen = Seen::default();
    for name in sorted_names(directory)? {
        let text = name.to_string_lossy();
        if text == INDEX_FILE {
            scan.has_index = true;
        } else if text.ends_with(".safetensors") {
            match name.to_str() {
                Some(name) => scan.safetensors.push(name.to_owned()),
                None => scan
                    .left_out
                    .push(format!("{text}: its name is not valid UTF-8")),
            }
        } else if let Some(reason) = left_out_reason(&text) {
            scan.left_out.push(format!("{text}: {reason}"));
        } else {
            let path = directory.join(&name);
            let mut walk = Walk {
                ancestors: vec![canonical(directory)?],
                left_out: &mut scan.left_out,
                seen: &mut seen,
            };
            if let Some(entry) = walk.entry(&path, name.clone(), &text)? {
                scan.entries.push(entry);
            }
        }
    }
    Ok(scan)
}

fn left_out_reason(name: &str) -> Option<&'static str> {
    const OTHER_FORMATS: [(&str, &str); 4] = [
        ("pytorch_model", ".bin"),
        ("tf_model", ".h5"),
        ("flax_model", ".msgpack"),
        ("consolidated", ""),
    ];
    let weights = name.strip_suffix(".index.json").unwrap_or(name);
    let other_format = OTHER_FORMATS
        .iter()
        .any(|(start, end)| weights.starts_with(start) && weights.ends_with(end));
    if other_format {
        Some("weights in another format")
    } else if name.ends_with(".safetensors.index.json") {
        Some("an index of other weights")
    } else if matches!(name, ".git" | ".cache") || name.ends_with(".ckptfs-partial") {
        Some("not part of the model")
    } else if name == MOUNT_DIRECTORY {
        Some("the name of the directory in which a mount tells about itself")
    } else if name == MANIFEST_FILE {
        Some("checksums of this directory's files, not of the view's")
    } else {
        None
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
    Error::checkpoint(
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
