//! The files of a training checkpoint and the pieces in them, while they are collected.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use indexmap::IndexMap;

use crate::error::{Code, Error, Result};
use crate::format::checkpoint::{
    Checkpoint, Container, LeftOut, Piece, Pieced, Shard, StoredTensor, Training,
};
use crate::shown::Show;
use crate::source::{AuxFiles, Blob, Directory};
use crate::tensor::{Dtype, Name, Shape, shape_text};
use crate::text::{counted, listing};

/// The names in `names` that begin like this are of optimizers and of the program's own state.
const STATE: [&str; 12] = [
    "optim",
    "optims",
    "optimizer",
    "optimizers",
    "optimizer_state",
    "optimizer_states",
    "optim_state",
    "lr_scheduler",
    "scheduler",
    "dataloader",
    "rng_state",
    "train_state",
];

/// Whether `name` is of something that is not of a model. Programs may put all under one name.
pub(super) fn is_state(name: &str) -> bool {
    name.split('.').take(2).any(|part| STATE.contains(&part))
}

/// The pieces of a checkpoint.
#[derive(Debug)]
pub(super) struct Files {
    container: Container,
    files: Vec<File>,
    tensors: IndexMap<Name, Pieced>,
    left_out: Vec<LeftOut>,
    pub(super) notes: Vec<String>,
}

#[derive(Debug)]
struct File {
    name: String,
    blob: Arc<dyn Blob>,
    tensors: IndexMap<Name, StoredTensor>,
}

impl Files {
    pub(super) fn new(container: Container) -> Self {
        Files {
            container,
            files: Vec::new(),
            tensors: IndexMap::new(),
            left_out: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Adds a file; its position.
    pub(super) fn file(&mut self, name: &str, blob: Arc<dyn Blob>) -> usize {
        self.files.push(File {
            name: name.to_owned(),
            blob,
            tensors: IndexMap::new(),
        });
        self.files.len() - 1
    }

    /// Where the file at `position` is, for messages.
    pub(super) fn location(&self, position: usize) -> &Arc<Path> {
        self.files[position].blob.location()
    }

    /// Says that the file `shard` has `stored`, of which pieces are cut.
    pub(super) fn holds(&mut self, shard: usize, name: &str, stored: &StoredTensor) {
        let tensors = &mut self.files[shard].tensors;
        tensors.insert(name.into(), stored.clone());
    }

    /// Adds the piece `stored` of the tensor `name`, which the file `shard` has as a tensor of its own.
    ///
    /// # Errors
    /// As [`piece`](Self::piece).
    pub(super) fn own_piece(
        &mut self,
        name: &Name,
        (dtype, shape): (Dtype, &Shape),
        piece: Piece,
    ) -> Result<()> {
        let tensors = &mut self.files[piece.shard].tensors;
        let own: Name = match tensors.contains_key(name) {
            false => name.clone(),
            true => format!("{name}{}", shape_text(&piece.offsets)).into(),
        };
        tensors.insert(own, piece.stored.clone());
        self.piece(name, (dtype, shape), false, piece)
    }

    /// Adds a piece of the tensor `name`. Of pieces in one place, the first is the tensor's.
    ///
    /// # Errors
    /// If another piece says that the tensor is another.
    pub(super) fn piece(
        &mut self,
        name: &Name,
        (dtype, shape): (Dtype, &Shape),
        is_flat: bool,
        piece: Piece,
    ) -> Result<()> {
        let stored = piece.stored.dtype;
        let pieced = self.tensors.entry(name.clone()).or_insert_with(|| Pieced {
            dtype,
            shape: shape.clone(),
            is_flat,
            pieces: Vec::new(),
        });
        if (pieced.dtype, &pieced.shape) != (dtype, shape) || stored != dtype {
            let problem = format!(
                "this piece is {stored}, of a tensor that is {dtype} {}, and another of one that is {} {}",
                shape_text(shape),
                pieced.dtype,
                shape_text(&pieced.shape)
            );
            let path = self.files[piece.shard].blob.location();
            return Err(Error::of_tensor(Code::BadPieces, path, &**name, problem));
        }
        pieced.pieces.push(piece);
        Ok(())
    }

    /// Whether there is a tensor `name`.
    pub(super) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Adds the tensor `name`, which is `other`, if there is such.
    pub(super) fn same(&mut self, name: &Name, other: &Name) {
        if let Some(pieced) = self.tensors.get(other)
            && !self.has(name)
        {
            let pieced = pieced.clone();
            self.tensors.insert(name.clone(), pieced);
        }
    }

    /// Says that `what` is not shown.
    pub(super) fn leave_out(&mut self, what: String) {
        self.left_out.push(what.into());
    }

    /// Says that `names` are not read, which are `what`.
    pub(super) fn not_read<'a>(&mut self, what: &str, names: impl Iterator<Item = &'a str>) {
        let names: Vec<String> = names.map(|name| name.shown().to_string()).collect();
        if !names.is_empty() {
            let counted = counted(names.len(), what);
            let names = listing(&names);
            self.leave_out(format!("{counted} that the model does not have: {names}"));
        }
    }

    /// Adds the tensor `name`, which has no elements.
    pub(super) fn without_elements(&mut self, name: &Name, (dtype, shape): (Dtype, &Shape)) {
        let empty = Pieced {
            dtype,
            shape: shape.clone(),
            is_flat: false,
            pieces: Vec::new(),
        };
        self.tensors.insert(name.clone(), empty);
    }

    /// The checkpoint that `directory` has, with these other files.
    ///
    /// # Errors
    /// If there are no tensors.
    pub(super) fn checkpoint(
        mut self,
        directory: &dyn Directory,
        aux: AuxFiles,
    ) -> Result<Checkpoint> {
        let path = directory.location();
        if self.tensors.is_empty() {
            let problem = "it holds no tensors of a model";
            return Err(Error::of_file(Code::NoCheckpoint, path, problem));
        }
        for tensor in self.tensors.values_mut() {
            let mut seen = HashMap::new();
            tensor.pieces.retain(|piece| {
                let place = (piece.offsets.clone(), piece.stored.shape.clone());
                seen.insert(place, ()).is_none()
            });
        }
        let source: Arc<Path> = path.into();
        let container = self.container;
        let shards = self.files.into_iter().map(|file| {
            let mut tensors = file.tensors;
            tensors.sort_by_key(|_, tensor| (tensor.offset, tensor.len));
            Arc::new(Shard {
                name: file.name,
                checkpoint: source.clone(),
                container,
                blob: file.blob,
                tensors,
            })
        });
        let mut left_out = self.left_out;
        left_out.extend(aux.left_out.into_iter().map(LeftOut::from));
        Ok(Checkpoint {
            path: path.to_owned(),
            attributes: directory.attributes(),
            shards: shards.collect(),
            tensors: IndexMap::new(),
            aux: aux.entries,
            left_out,
            notes: self.notes,
            gguf: None,
            training: Some(Training {
                tensors: self.tensors,
            }),
        })
    }
}

/// The error that the checkpoint at `path` lacks something.
pub(super) fn unfinished(path: &Path, problem: impl Into<String>) -> Error {
    Error::of_file(Code::Unfinished, path, problem.into())
        .with_hint("was it still being written, or copied in part? take another one")
}
