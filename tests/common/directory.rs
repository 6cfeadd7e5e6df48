//! What lies in a directory on disk.

// Every test file uses a part of this.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Every file below `directory` by its relative path, with its content.
pub(crate) fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(relative) = pending.pop() {
        for name in names(&directory.join(&relative)) {
            let path = relative.join(name);
            let at = directory.join(&path);
            if at.is_dir() {
                pending.push(path)
            } else {
                files.insert(path, fs::read(at).unwrap());
            }
        }
    }
    files
}

/// The names of everything in `directory`, hidden or not.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    let mut names: Vec<String> = entries.map(|e| name(e).into_string().unwrap()).collect();
    names.sort();
    names
}

/// Changes one byte of a file.
pub(crate) fn flip_byte(path: &Path, offset: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[offset] ^= 0x10;
    fs::write(path, bytes).unwrap();
}
