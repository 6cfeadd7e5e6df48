//! What a file of torch has saved: the pickle, and where the storages are that it refers to.

use std::collections::HashMap;

use crate::error::{Code, Error, Result};
use crate::format::checkpoint::StoredTensor;
use crate::format::torch::pickle::{Id, Pickle};
use crate::format::torch::places::stored;
use crate::format::torch::storage::Storage;
use crate::format::torch::tensors::{Found, tensor};
use crate::format::torch::zip::{Archive, Stored};
use crate::shown::Show;
use crate::source::Blob;

/// What a file has saved.
pub(in crate::format) struct Saved<'a> {
    pub(in crate::format) file: &'a dyn Blob,
    pub(in crate::format) pickle: Pickle,
    pub(super) storages: Storages<'a>,
}

/// Where storages are.
pub(super) enum Storages<'a> {
    /// In entries of an archive, all below `root`.
    Entries { archive: Archive<'a>, root: String },
    /// Here, by their keys.
    Places(HashMap<Box<str>, Stored>),
}

impl Storages<'_> {
    fn locate(&self, file: &dyn Blob, storage: &Storage) -> Result<Stored> {
        let damaged = |problem: String| {
            let problem = problem.shown().to_string();
            Error::of_file(Code::BadTorchFile, file.location(), problem)
        };
        let (archive, root) = match self {
            Storages::Entries { archive, root } => (archive, root),
            Storages::Places(places) => {
                let found = places.get(storage.key).copied();
                return found
                    .ok_or_else(|| damaged(format!("there is no storage {}", storage.key)));
            }
        };
        let name = format!("{root}/data/{}", storage.key);
        let found = archive.entry(&name)?;
        let found = found.ok_or_else(|| damaged(format!("there is no entry {name}")))?;
        let width = storage.width().expect("its elements are known");
        if storage.len.checked_mul(width) != Some(found.len) {
            return Err(damaged(format!(
                "a {} of {} elements takes other than the {} bytes of entry {name}",
                storage.class, storage.len, found.len
            )));
        }
        Ok(found)
    }
}

impl<'a> Saved<'a> {
    /// Its tensors, to be asked for one by one.
    pub(in crate::format) fn tensors<'b>(&'b self) -> Tensors<'a, 'b> {
        Tensors {
            saved: self,
            known: HashMap::new(),
        }
    }
}

/// Tensors that a file has saved. Each storage is looked for once.
pub(in crate::format) struct Tensors<'a, 'b> {
    saved: &'b Saved<'a>,
    known: HashMap<&'b str, (Storage<'b>, Stored)>,
}

impl Tensors<'_, '_> {
    /// Where the tensor `id` is, which is called `name`; nothing if it is no tensor.
    ///
    /// # Errors
    /// If it is of a kind that safetensors cannot have, or does not lie inside of its storage.
    pub(in crate::format) fn find(&mut self, name: &str, id: Id) -> Result<Option<StoredTensor>> {
        let Saved { file, pickle, .. } = self.saved;
        let error = |code, problem: String| {
            Error::of_tensor(code, file.location(), name, problem.shown().to_string())
        };
        let described = match tensor(pickle, id) {
            Found::Tensor(described) => described,
            Found::Refused(kind) => {
                let problem = format!("it is {kind}, which safetensors files cannot have");
                let hint = "load the file with torch, make it a plain tensor, and save the state dict again";
                return Err(error(Code::UnsupportedTorch, problem).with_hint(hint));
            }
            Found::Damaged(problem) => return Err(error(Code::BadTorchFile, problem.to_owned())),
            Found::NoTensor => return Ok(None),
        };
        if name == "__metadata__" {
            let problem = "no tensor of a safetensors file can have this name".to_owned();
            return Err(error(Code::BadName, problem));
        }
        let of = described.storage;
        let storage = match self.known.get(of.key) {
            Some((other, place)) if other.is_alike(&of) => *place,
            Some(_) => {
                let problem = format!("its storage {} is said to be two different ones", of.key);
                return Err(error(Code::BadTorchFile, problem));
            }
            None => {
                let place = self.saved.storages.locate(*file, &of);
                let place = place.map_err(|error| error.about_tensor(name))?;
                self.known.insert(of.key, (of, place));
                place
            }
        };
        let stored = stored(&described, storage).map_err(|(code, problem)| error(code, problem))?;
        Ok(Some(stored))
    }
}
