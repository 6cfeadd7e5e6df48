//! Storages: what tensors are views of. A pickle refers to them by a key.

use crate::format::torch::dtypes::dtype_of_storage;
use crate::format::torch::pickle::{Id, Pickle, Value};
use crate::tensor::Dtype;

/// The longest key; torch counts storages.
const MAX_KEY: usize = 256;

/// A storage as a pickle refers to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Storage<'a> {
    pub key: &'a str,
    /// The class of it, such as `FloatStorage`.
    pub class: &'a str,
    /// What it holds; none if it counts bytes. `Err` if that is something that safetensors have not.
    pub dtype: Result<Option<Dtype>, ()>,
    /// How many elements it has.
    pub len: u64,
    /// The element of it that a part of it begins with, and how many that part has, if a part is meant (of legacy
    /// files).
    pub view: Option<(u64, u64)>,
}

impl<'a> Storage<'a> {
    /// The storage that the persistent id `name` of `pickle` stands for: `('storage', class, key, device, length)`,
    /// in legacy files with a view after that, which is None or `(key, offset, length)`.
    pub(super) fn of(pickle: &'a Pickle, name: Id) -> Option<Self> {
        let (kind, class, key, len, view) = match *pickle.tuple(name)? {
            [kind, class, key, _device, len] => (kind, class, key, len, None),
            [kind, class, key, _device, len, view] => (kind, class, key, len, Some(view)),
            _ => return None,
        };
        if pickle.text(kind)? != "storage" {
            return None;
        }
        let (module, class) = pickle.global(class)?;
        let view = match view.map(|view| (pickle.value(view), pickle.tuple(view))) {
            None | Some((Value::None, _)) => None,
            Some((_, Some(&[_, offset, len]))) => Some((pickle.count(offset)?, pickle.count(len)?)),
            Some(_) => return None,
        };
        Some(Storage {
            key: pickle.text(key).filter(|key| key.len() <= MAX_KEY)?,
            class,
            dtype: dtype_of_storage(module, class),
            len: pickle.count(len)?,
            view,
        })
    }

    /// Whether both are said to be of one kind and length.
    pub(super) fn is_alike(&self, other: &Storage) -> bool {
        (self.class, self.len) == (other.class, other.len)
    }

    /// Bytes of an element.
    pub(super) fn width(&self) -> Option<u64> {
        match self.dtype {
            Ok(Some(dtype)) => Some(dtype.bitsize() as u64 / 8),
            Ok(None) => Some(1),
            Err(()) => None,
        }
    }
}
