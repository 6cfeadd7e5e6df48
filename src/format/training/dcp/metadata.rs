//! `.metadata`: a pickle of `torch.distributed.checkpoint.metadata.Metadata`, of which nothing is imported or called.
//!
//! | attribute | content |
//! |---|---|
//! | `state_dict_metadata` | name → `TensorStorageMetadata{properties, size, chunks}`, or `BytesStorageMetadata` |
//! | `chunks` | a list of `ChunkStorageMetadata{offsets, sizes}` |
//! | `storage_data` | `MetadataIndex{fqn, offset, index}` → `_StorageInfo{relative_path, offset, length}` |
//!
//! The modules of these classes have moved between versions of torch; their names have not.

use std::collections::HashMap;

use indexmap::{IndexMap, IndexSet};

use crate::error::{Code, Error, Result};
use crate::format::torch::dtypes::dtype_named;
use crate::format::torch::pickle::{Id, Input, Limits, Pickle, Value, load};
use crate::format::training::files::is_state;
use crate::shown::Show;
use crate::source::Blob;
use crate::tensor::{Dtype, Name, Shape, shape_text};

/// The largest `.metadata`: it grows with pieces, not with tensors.
const LIMITS: Limits = Limits {
    bytes: 1 << 30,
    values: 1 << 26,
};

/// The longest name of a tensor, in bytes.
const MAX_NAME: usize = 1024;

/// What `.metadata` says of the tensors of the model.
#[derive(Debug)]
pub(super) struct Metadata {
    pub(super) tensors: Vec<Wanted>,
    /// The files that they are in.
    pub(super) files: Vec<String>,
    /// Names of everything else.
    pub(super) not_read: Vec<Name>,
}

/// A tensor of the model.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) name: Name,
    pub(super) dtype: Dtype,
    pub(super) shape: Shape,
    pub(super) chunks: Vec<Chunk>,
}

/// A piece of a tensor, and which bytes of which file it takes.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) offsets: Shape,
    pub(super) sizes: Shape,
    /// A position in [`Metadata::files`].
    file: usize,
    pub(super) start: u64,
    pub(super) len: u64,
}

impl Metadata {
    /// For each file, the positions of tensors and of their chunks in it.
    pub(super) fn by_file(&self) -> Vec<Vec<(usize, usize)>> {
        let mut by_file = vec![Vec::new(); self.files.len()];
        for (tensor, wanted) in self.tensors.iter().enumerate() {
            for (chunk, Chunk { file, .. }) in wanted.chunks.iter().enumerate() {
                by_file[*file].push((tensor, chunk));
            }
        }
        by_file
    }
}

/// Reads `file`.
///
/// # Errors
/// If it is not such a pickle, or does not say where a piece is.
pub(super) fn read(file: &dyn Blob) -> Result<Metadata> {
    let pickle = load(&mut Input::limited(file, 0, file.len(), LIMITS))?;
    let reading = Reading {
        file,
        pickle: &pickle,
    };
    reading.metadata()
}

#[derive(Clone, Copy)]
struct Reading<'a> {
    file: &'a dyn Blob,
    pickle: &'a Pickle,
}

/// Where the piece of a tensor at an offset is: a file, a start and a length.
type Places<'a> = HashMap<(&'a str, Vec<u64>), (usize, u64, u64)>;

impl<'a> Reading<'a> {
    fn metadata(self) -> Result<Metadata> {
        let pickle = self.pickle;
        let root = pickle.root();
        if pickle.class(root) != Some("Metadata") {
            let kind = pickle.kind(root);
            return Err(self.damaged(format!(
                "it is not the metadata of torch.distributed.checkpoint, but {kind}"
            )));
        }
        let all = self.items(root, "state_dict_metadata")?;
        // Of a name that was set twice, the last counts.
        let mut names: IndexMap<&str, Id> = IndexMap::new();
        for &(name, value) in all {
            let name = pickle.text(name).filter(|name| name.len() <= MAX_NAME);
            let name = name.ok_or_else(|| {
                let problem = format!("a name in it is no text of at most {MAX_NAME} bytes");
                self.damaged(problem)
            })?;
            names.insert(name, value);
        }
        let mut not_read: Vec<Name> = Vec::new();
        names.retain(|name, value| {
            let is_read = !is_state(name) && pickle.class(*value) != Some("BytesStorageMetadata");
            if !is_read {
                not_read.push((*name).into());
            }
            is_read
        });
        let mut files = IndexSet::new();
        let places = self.places(&names, &mut files)?;
        let mut left = places.len();
        let mut tensors = Vec::with_capacity(names.len());
        for (name, value) in names {
            let tensor = self.tensor(name, value, &places, &mut left);
            tensors.push(tensor.map_err(|error| error.about_tensor(name))?);
        }
        Ok(Metadata {
            tensors,
            files: files.into_iter().map(str::to_owned).collect(),
            not_read,
        })
    }

    /// Where the pieces of the tensors `names` are, in `files`.
    fn places(
        self,
        names: &IndexMap<&'a str, Id>,
        files: &mut IndexSet<&'a str>,
    ) -> Result<Places<'a>> {
        let pickle = self.pickle;
        let stored = self.items(pickle.root(), "storage_data")?;
        let mut places = Places::new();
        for &(index, info) in stored {
            let name = pickle
                .attribute(index, "fqn")
                .and_then(|id| pickle.text(id));
            let name = name.ok_or_else(|| {
                self.damaged("an entry of storage_data is of no tensor".to_owned())
            })?;
            let Some((&name, _)) = names.get_key_value(name) else {
                continue;
            };
            let refuse = |problem: &str| self.damaged(problem.to_owned()).about_tensor(name);
            let offsets = pickle.attribute(index, "offset");
            let offsets = offsets.and_then(|id| pickle.counts(id));
            let offsets = offsets.ok_or_else(|| refuse("a piece of it has no offset"))?;
            let transformed = pickle.attribute(info, "transform_descriptors");
            if let Some(transformed) = transformed
                && !matches!(pickle.value(transformed), Value::None)
            {
                let problem = "it was compressed or changed in other ways when it was saved";
                let error =
                    Error::of_tensor(Code::UnsupportedTorch, self.file.location(), name, problem);
                return Err(error.with_hint("save it without extensions of the storage writer"));
            }
            let path = pickle.attribute(info, "relative_path");
            let path = path.and_then(|id| pickle.text(id));
            let is_plain = |path: &&str| {
                !matches!(*path, "" | "." | "..") && !path.contains(['/', '\0']) && path.len() < 256
            };
            let path = path.filter(is_plain).ok_or_else(|| {
                refuse("a piece of it is in a file whose name is not a plain file name")
            })?;
            let count = |name| pickle.attribute(info, name).and_then(|id| pickle.count(id));
            let Some((start, len)) = count("offset").zip(count("length")) else {
                return Err(refuse("a piece of it has no place in its file"));
            };
            let (file, _) = files.insert_full(path);
            places.insert((name, offsets), (file, start, len));
        }
        Ok(places)
    }

    /// The tensor `name`. No more chunks are read than are `left`: each has a place of its own.
    fn tensor(
        self,
        name: &'a str,
        value: Id,
        places: &Places<'a>,
        left: &mut usize,
    ) -> Result<Wanted> {
        let pickle = self.pickle;
        let refuse = |problem: &str| self.damaged(problem.to_owned());
        if pickle.class(value) != Some("TensorStorageMetadata") {
            return Err(refuse("its metadata is not that of a tensor"));
        }
        let counts = |id: Id, name: &str| pickle.counts(pickle.attribute(id, name)?);
        let dtype = self.dtype(value)?;
        let shape = counts(value, "size").ok_or_else(|| refuse("it has no size"))?;
        let chunks = pickle.attribute(value, "chunks");
        let chunks = chunks.and_then(|id| pickle.list(id));
        let chunks = chunks.ok_or_else(|| refuse("it has no list of chunks"))?;
        let mut found = Vec::new();
        for &chunk in chunks {
            let offsets = counts(chunk, "offsets").filter(|of| of.len() == shape.len());
            let sizes = counts(chunk, "sizes").filter(|of| of.len() == shape.len());
            let Some((offsets, sizes)) = offsets.zip(sizes) else {
                return Err(refuse("a chunk of it has other dimensions than it has"));
            };
            if sizes.contains(&0) {
                continue;
            }
            let is_inside = (0..shape.len()).all(|axis| {
                let end = offsets[axis].checked_add(sizes[axis]);
                end.is_some_and(|end| end <= shape[axis])
            });
            if !is_inside {
                return Err(refuse("a chunk of it is not inside of it"));
            }
            let key = (name, offsets);
            let Some(&(file, start, len)) = places.get(&key) else {
                let offsets = shape_text(&key.1);
                let problem = format!("nothing says where its chunk at {offsets} is");
                return Err(self.damaged(problem));
            };
            *left = left
                .checked_sub(1)
                .ok_or_else(|| refuse("it has a chunk twice"))?;
            found.push(Chunk {
                offsets: key.1.into(),
                sizes: sizes.into(),
                file,
                start,
                len,
            });
        }
        Ok(Wanted {
            name: name.into(),
            dtype,
            shape: shape.into(),
            chunks: found,
        })
    }

    fn dtype(self, tensor: Id) -> Result<Dtype> {
        let pickle = self.pickle;
        let properties = pickle.attribute(tensor, "properties");
        let named = properties.and_then(|id| match pickle.attribute(id, "dtype") {
            Some(dtype) => Some(dtype),
            None => pickle.tuple(pickle.state(id)?)?.first().copied(),
        });
        let named = named.and_then(|id| pickle.global(id));
        let (module, dtype) = named.ok_or_else(|| self.damaged("it has no dtype".to_owned()))?;
        dtype_named(dtype).ok_or_else(|| {
            let problem = format!(
                "it is a tensor of {}.{}, which safetensors files cannot have",
                module.shown(),
                dtype.shown()
            );
            Error::of_file(Code::UnsupportedTorch, self.file.location(), problem)
        })
    }

    /// The items of the dictionary that is an attribute of `id`.
    fn items(self, id: Id, name: &str) -> Result<&'a [(Id, Id)]> {
        let found = self.pickle.attribute(id, name);
        let found = found.and_then(|id| self.pickle.dict(id));
        found.ok_or_else(|| self.damaged(format!("it has no dictionary {name}")))
    }

    fn damaged(self, problem: String) -> Error {
        let problem = problem.shown().to_string();
        Error::of_file(Code::BadTorchFile, self.file.location(), problem)
    }
}
