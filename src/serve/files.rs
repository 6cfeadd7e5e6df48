//! The files of a view by their paths, as they are served.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::os::unix::ffi::OsStrExt;

use crate::serve::etag::Etag;
use crate::view::{EntryId, View};

/// The files of a view.
#[derive(Debug)]
pub(super) struct Files {
    files: BTreeMap<Vec<u8>, File>,
    directories: BTreeSet<Vec<u8>>,
    commit: Etag,
}

/// A file of a view.
#[derive(Debug)]
pub(super) struct File {
    pub(super) id: EntryId,
    /// Bytes.
    pub(super) len: u64,
    pub(super) tag: Etag,
}

/// What a path is of.
#[derive(Debug, Clone, Copy)]
pub(super) enum Entry<'a> {
    File(&'a File),
    Directory,
}

impl Files {
    pub(super) fn new(view: &View) -> Self {
        let mut files = BTreeMap::new();
        let mut directories = BTreeSet::from([Vec::new()]);
        for id in 0..view.len() {
            let path = view.path(id).as_os_str().as_bytes().to_vec();
            let Some(content) = view.file(id) else {
                directories.insert(path);
                continue;
            };
            let file = File {
                id,
                len: content.len(),
                tag: Etag::of_file(&path, content),
            };
            files.insert(path, file);
        }
        let tags = files
            .iter()
            .map(|(path, file)| (path.as_slice(), &file.tag));
        Files {
            commit: Etag::of_files(tags),
            files,
            directories,
        }
    }

    /// What all of the files are called together: another one if any of them has other bytes.
    pub(super) fn commit(&self) -> &str {
        self.commit.as_str()
    }

    pub(super) fn get(&self, path: &[u8]) -> Option<Entry<'_>> {
        match self.files.get(path) {
            Some(file) => Some(Entry::File(file)),
            None => self.directories.contains(path).then_some(Entry::Directory),
        }
    }

    /// All files, in the order of their paths.
    pub(super) fn all(&self) -> impl Iterator<Item = (&[u8], &File)> {
        self.files
            .iter()
            .map(|(path, file)| (path.as_slice(), file))
    }

    /// What is below `directory`, in the order of paths, directories first.
    pub(super) fn below(&self, directory: &[u8], recursive: bool) -> Vec<(&[u8], Entry<'_>)> {
        let mut prefix = directory.to_vec();
        if !prefix.is_empty() {
            prefix.push(b'/');
        }
        let is_wanted = |path: &[u8]| {
            path.strip_prefix(&prefix[..])
                .is_some_and(|name| !name.is_empty() && (recursive || !name.contains(&b'/')))
        };
        let from = (Bound::Included(&prefix[..]), Bound::Unbounded);
        let directories = self.directories.range::<[u8], _>(from);
        let directories = directories
            .take_while(|path| path.starts_with(&prefix))
            .filter(|path| is_wanted(path))
            .map(|path| (path.as_slice(), Entry::Directory));
        let files = self.files.range::<[u8], _>(from);
        let files = files
            .take_while(|(path, _)| path.starts_with(&prefix))
            .filter(|(path, _)| is_wanted(path))
            .map(|(path, file)| (path.as_slice(), Entry::File(file)));
        directories.chain(files).collect()
    }
}
