//! A view: a static tree of directories and virtual files. Every file is a list of segments;
//! every size is exact before any tensor byte is read, and nothing ever changes.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::sync::Arc;

use crate::catalog::Extents;
use crate::source::{Attributes, AuxEntry, Blob};

/// A position in the tree; [`View::ROOT`] is the top directory.
pub type EntryId = usize;

/// A tree of virtual files.
#[derive(Debug)]
pub struct View {
    entries: Vec<Entry>,
}

/// A directory or file of a view.
#[derive(Debug)]
pub struct Entry {
    /// The name inside the parent (empty for the top directory).
    pub name: OsString,
    /// The directory it is in; the top directory is its own parent.
    pub parent: EntryId,
    /// Mode bits never include a write bit.
    pub attributes: Attributes,
    pub content: Content,
}

/// What an entry holds.
#[derive(Debug)]
pub enum Content {
    /// Children, in name order.
    Directory(Vec<EntryId>),
    /// A file and what it is made of.
    File(Extents),
}

/// A file at the top level of a view that is still to be built.
#[derive(Debug)]
pub struct TopFile {
    pub name: OsString,
    pub attributes: Attributes,
    pub content: Extents,
}

impl View {
    /// The top directory.
    pub const ROOT: EntryId = 0;

    /// A view whose top directory holds `files` and `aux`. Where both have a name, `files` wins.
    pub fn new(attributes: Attributes, files: Vec<TopFile>, aux: &[AuxEntry]) -> Self {
        let mut view = View {
            entries: vec![Entry {
                name: OsString::new(),
                parent: View::ROOT,
                attributes: read_only(attributes),
                content: Content::Directory(Vec::new()),
            }],
        };
        let taken: std::collections::HashSet<OsString> =
            files.iter().map(|file| file.name.clone()).collect();
        for file in files {
            view.add(
                View::ROOT,
                file.name,
                file.attributes,
                Content::File(file.content),
            );
        }
        // Breadth first, so that the entries of a directory are neighbours.
        let mut pending: VecDeque<(EntryId, &AuxEntry)> = aux
            .iter()
            .filter(|entry| !taken.contains(entry.name()))
            .map(|entry| (View::ROOT, entry))
            .collect();
        while let Some((parent, entry)) = pending.pop_front() {
            match entry {
                AuxEntry::File { name, file } => {
                    let content = Content::File(Extents::whole(file.clone()));
                    view.add(parent, name.clone(), file.attributes(), content);
                }
                AuxEntry::Edited { name, file, text } => {
                    let content = Content::File(Extents::made_of(text.clone()));
                    view.add(parent, name.clone(), file.attributes(), content);
                }
                AuxEntry::Directory {
                    name,
                    attributes,
                    entries,
                } => {
                    let content = Content::Directory(Vec::new());
                    let directory = view.add(parent, name.clone(), *attributes, content);
                    pending.extend(entries.iter().map(|entry| (directory, entry)));
                }
            }
        }
        view.sort_directories();
        view
    }

    fn add(
        &mut self,
        parent: EntryId,
        name: OsString,
        attributes: Attributes,
        content: Content,
    ) -> EntryId {
        let id = self.entries.len();
        self.entries.push(Entry {
            name,
            parent,
            attributes: read_only(attributes),
            content,
        });
        if let Content::Directory(children) = &mut self.entries[parent].content {
            children.push(id);
        }
        id
    }

    fn sort_directories(&mut self) {
        for id in 0..self.entries.len() {
            if let Content::Directory(children) = &mut self.entries[id].content {
                let mut children = std::mem::take(children);
                children.sort_by(|&a, &b| self.entries[a].name.cmp(&self.entries[b].name));
                self.entries[id].content = Content::Directory(children);
            }
        }
    }

    /// The number of entries; ids are `0..len`.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The top directory.
    pub fn root(&self) -> &Entry {
        &self.entries[View::ROOT]
    }

    /// The entry `id`, if there is one.
    pub fn get(&self, id: EntryId) -> Option<&Entry> {
        self.entries.get(id)
    }

    /// The content of `id`, if it is a file.
    pub fn file(&self, id: EntryId) -> Option<&Extents> {
        match &self.get(id)?.content {
            Content::File(content) => Some(content),
            Content::Directory(_) => None,
        }
    }

    /// The children of `id`, if it is a directory, in name order.
    pub fn children(&self, id: EntryId) -> Option<&[EntryId]> {
        match &self.get(id)?.content {
            Content::Directory(children) => Some(children),
            Content::File(_) => None,
        }
    }

    /// The entry called `name` in `directory`.
    pub fn lookup(&self, directory: EntryId, name: &OsStr) -> Option<EntryId> {
        let children = self.children(directory)?;
        let position = children
            .binary_search_by(|&id| self.entries[id].name.as_os_str().cmp(name))
            .ok()?;
        Some(children[position])
    }

    /// All files with their paths relative to the top directory, in id order.
    pub fn files(&self) -> impl Iterator<Item = (EntryId, std::path::PathBuf, &Extents)> {
        (0..self.len()).filter_map(|id| Some((id, self.path(id), self.file(id)?)))
    }

    /// Calls `visit` with every source that a byte of a file comes from, some more than once.
    pub fn for_each_source(&self, visit: &mut dyn FnMut(&Arc<dyn Blob>)) {
        let files = (0..self.len()).filter_map(|id| self.file(id));
        for segment in files.flat_map(Extents::segments) {
            segment.place.for_each_source(visit);
        }
    }

    /// The path of `id` relative to the top directory.
    pub fn path(&self, id: EntryId) -> std::path::PathBuf {
        let mut names = Vec::new();
        let mut at = id;
        while at != View::ROOT {
            names.push(&self.entries[at].name);
            at = self.entries[at].parent;
        }
        names.into_iter().rev().collect()
    }
}

fn read_only(attributes: Attributes) -> Attributes {
    Attributes {
        mode: attributes.mode & 0o555,
        ..attributes
    }
}
