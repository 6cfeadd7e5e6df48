//! A directory beyond this machine.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;

use crate::error::{Code, Error, Result};
use crate::source::directory::{AuxEntry, AuxFiles, Class, Directory, never_shown};
use crate::source::local::LocalFile;
use crate::source::remote::blob::{RemoteBlob, attributes};
use crate::source::remote::network::{AT_ONCE, Network};
use crate::source::remote::source::Source;
use crate::source::remote::store::{Object, Pin, Store};
use crate::source::remote::transfer::persistently;
use crate::source::remote::web::unpinned;
use crate::source::{Attributes, Blob};

/// The objects below a URL, as files of a directory.
#[derive(Debug)]
pub(super) struct RemoteDirectory {
    network: Arc<Network>,
    store: Arc<dyn Store>,
    location: PathBuf,
    /// What the store's names of its files begin with: empty, or directories with a slash after each.
    prefix: String,
    /// By the parts of their names.
    tree: Tree,
    /// What was asked for by name, where the store does not list all.
    asked: Arc<Mutex<HashMap<String, Option<Object>>>>,
}

/// What is in a directory.
#[derive(Debug, Default, Clone)]
struct Tree {
    files: BTreeMap<String, Object>,
    directories: BTreeMap<String, Tree>,
}

impl Tree {
    /// Adds the object that is called `name` here; `false` if the name is none that a file can have.
    fn add(&mut self, name: &str, object: Object) -> bool {
        match name.split_once('/') {
            Some((directory, rest)) if is_file_name(directory) => {
                let directory = self.directories.entry(directory.to_owned());
                directory.or_default().add(rest, object)
            }
            None if is_file_name(name) => {
                self.files.insert(name.to_owned(), object);
                true
            }
            _ => false,
        }
    }

    fn names(&self) -> Vec<OsString> {
        let names = self.files.keys().chain(self.directories.keys());
        let mut names: Vec<OsString> = names.map(OsString::from).collect();
        names.sort();
        names.dedup();
        names
    }

    fn modified(&self) -> SystemTime {
        let of_files = self.files.values().map(|object| object.modified);
        let below = self.directories.values().map(Tree::modified);
        of_files
            .chain(below)
            .max()
            .unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

fn is_file_name(name: &str) -> bool {
    const MOST_BYTES: usize = 255;
    !matches!(name, "" | "." | "..") && name.len() <= MOST_BYTES && !name.contains('\0')
}

impl RemoteDirectory {
    /// The directory at `url`, which `store` is.
    pub(super) fn open(network: Arc<Network>, store: Arc<dyn Store>, url: &str) -> Result<Self> {
        let listing = match network.pins().and_then(|pins| pins.listing(url)) {
            Some(known) => known.to_vec(),
            None => {
                let (store, url, patience) = (store.clone(), url.to_owned(), network.patience());
                network.wait(async move { persistently(patience, &url, || store.list()).await })?
            }
        };
        network.recorder().listing(url, &listing);
        if listing.is_empty() {
            let problem = if store.lists_all() {
                "there is nothing below it"
            } else {
                "the server has no file there that a checkpoint usually has"
            };
            return Err(Error::of_file(Code::NotFound, url, problem));
        }
        let mut tree = Tree::default();
        for object in listing {
            let name = object.name.clone();
            if !tree.add(&name, object) {
                log::warn!(
                    "{url}: the object {name:?} has no name that a file can have, and is not shown"
                );
            }
        }
        Ok(RemoteDirectory {
            network,
            store,
            location: url.into(),
            prefix: String::new(),
            tree,
            asked: Arc::default(),
        })
    }

    /// The file `name` in the directory that `store` is, whose URL is `url`; nothing else is asked for.
    pub(super) fn file_alone(
        network: &Arc<Network>,
        store: Arc<dyn Store>,
        name: &str,
        url: &str,
    ) -> Result<Option<Arc<dyn Blob>>> {
        let object = find(network, &store, name, url)?;
        object
            .map(|object| blob(network, &store, object))
            .transpose()
    }

    /// The object called `name`.
    fn object(&self, name: &str) -> Result<Option<Object>> {
        let mut tree = &self.tree;
        let (directories, file) = name.rsplit_once('/').unwrap_or(("", name));
        for directory in directories.split('/').filter(|part| !part.is_empty()) {
            match tree.directories.get(directory) {
                Some(below) => tree = below,
                None => break,
            }
        }
        let whole = format!("{}{name}", self.prefix);
        if let Some(object) = tree.files.get(file)
            && object.name == whole
        {
            return Ok(Some(object.clone()));
        }
        if self.store.lists_all() || !name.split('/').all(is_file_name) {
            return Ok(None);
        }
        if let Some(known) = self.asked.lock().get(&whole) {
            return Ok(known.clone());
        }
        let url = self.location.join(name);
        let found = find(&self.network, &self.store, &whole, &url.to_string_lossy())?;
        self.asked.lock().insert(whole, found.clone());
        Ok(found)
    }

    fn entry(&self, name: &str, tree: &Tree) -> Result<Option<AuxEntry>> {
        if let Some(below) = tree.directories.get(name) {
            let names = below.names().into_iter();
            let entries = names.map(|name| self.entry(&name.to_string_lossy(), below));
            let entries: Result<Vec<Option<AuxEntry>>> = entries.collect();
            return Ok(Some(AuxEntry::Directory {
                name: name.into(),
                attributes: attributes(below.modified(), 0o755),
                entries: entries?.into_iter().flatten().collect(),
            }));
        }
        let Some(object) = tree.files.get(name) else {
            return Ok(None);
        };
        Ok(Some(AuxEntry::File {
            name: name.into(),
            file: blob(&self.network, &self.store, object.clone())?,
        }))
    }
}

/// The object `name` of `store`, whose URL is `url`.
fn find(
    network: &Network,
    store: &Arc<dyn Store>,
    name: &str,
    url: &str,
) -> Result<Option<Object>> {
    let found = match network.pins().and_then(|pins| pins.file(url)) {
        Some(known) => known.clone(),
        None => {
            let (store, patience) = (store.clone(), network.patience());
            let (name, url) = (name.to_owned(), url.to_owned());
            network.wait(async move { persistently(patience, &url, || store.find(&name)).await })?
        }
    };
    network.recorder().file(url, found.as_ref());
    Ok(found)
}

fn blob(network: &Arc<Network>, store: &Arc<dyn Store>, object: Object) -> Result<Arc<dyn Blob>> {
    if let Some(path) = store.local_copy(&object) {
        return Ok(Arc::new(LocalFile::of_weights(path)?));
    }
    // Who made the pin file may have allowed it; who reads has not.
    if object.pin == Pin::Nothing && !network.options().allow_unpinned {
        return Err(unpinned(object.url()));
    }
    let source = Source::new(network.clone(), store.clone(), object);
    Ok(Arc::new(RemoteBlob::new(source)))
}

impl Directory for RemoteDirectory {
    fn location(&self) -> &Path {
        &self.location
    }

    fn attributes(&self) -> Attributes {
        attributes(self.tree.modified(), 0o755)
    }

    fn names(&self) -> Result<Vec<OsString>> {
        Ok(self.tree.names())
    }

    /// What cannot be found out, opening it says.
    fn has(&self, name: &str) -> bool {
        !matches!(self.object(name), Ok(None))
    }

    fn file(&self, name: &str) -> Result<Arc<dyn Blob>> {
        match self.object(name)? {
            Some(object) => blob(&self.network, &self.store, object),
            None => {
                let path = self.location.join(name);
                Err(Error::of_file(
                    Code::NotFound,
                    path,
                    "there is no such file",
                ))
            }
        }
    }

    fn below(&self, name: &str) -> Result<Option<Arc<dyn Directory>>> {
        let mut tree = &self.tree;
        for part in name.split('/') {
            match tree.directories.get(part) {
                Some(below) => tree = below,
                None => return Ok(None),
            }
        }
        Ok(Some(Arc::new(RemoteDirectory {
            network: self.network.clone(),
            store: self.store.clone(),
            location: self.location.join(name),
            prefix: format!("{}{name}/", self.prefix),
            tree: tree.clone(),
            asked: self.asked.clone(),
        })))
    }

    fn aux(&self, names: &[OsString], class: &mut dyn FnMut(&OsStr) -> Class) -> Result<AuxFiles> {
        let mut aux = AuxFiles::default();
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
            if self.tree.files.contains_key(&*text) && self.tree.directories.contains_key(&*text) {
                aux.left_out
                    .push(format!("{text}: there is a directory of this name, too"));
            }
            aux.entries.extend(self.entry(&text, &self.tree)?);
        }
        Ok(aux)
    }

    fn opened_at_once(&self) -> Option<usize> {
        Some(AT_ONCE)
    }
}
