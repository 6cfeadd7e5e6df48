//! Files of `torch.save`: `pytorch_model.bin`, or shards and `pytorch_model.bin.index.json`, in Hugging Face
//! layout, or a file of any name that is named alone.
//!
//! They are pickles. None is ever run: what a pickle would import and call is kept as a description
//! ([`pickle`]), and only descriptions of a few functions that make tensors are understood.
//!
//! | file | about |
//! |---|---|
//! | `archive.rs` | the file as torch has written it since 1.6: a zip archive of a pickle and of storages |
//! | `dtypes.rs` | what torch calls kinds of elements |
//! | `legacy.rs` | the file as torch wrote it before: pickles, and the storages after them |
//! | `names.rs` | how files are called, and what wrappers of models put before names |
//! | `pickle/` | pickles, read without being run |
//! | `places.rs` | where the elements of a tensor are |
//! | `remarks.rs` | what is worth knowing of how tensors are stored |
//! | `saved.rs` | what a file has saved, and its tensors one by one |
//! | `state_dict.rs` | the dictionary of tensors in what was saved |
//! | `storage.rs` | storages, as a pickle refers to them |
//! | `tensors.rs` | tensors, as a pickle describes them |
//! | `zip.rs` | the entries of a zip archive |

mod archive;
pub(super) mod dtypes;
mod legacy;
mod names;
pub(super) mod pickle;
mod places;
mod remarks;
mod saved;
mod state_dict;
mod storage;
mod tensors;
mod zip;

use crate::error::{Code, Error, Result};
use crate::format::sharded::Table;
use crate::source::{Blob, pointer};

pub(super) use names::{INDEX_FILE, SINGLE_FILE, has_extension, is_shard, wrapping};
pub(super) use remarks::remarks;
pub(super) use saved::Saved;
pub(super) use state_dict::entries;
pub(super) use zip::LOCAL_HEADER;

/// The tensors of `file`.
///
/// # Errors
/// As [`open`]; if it holds no dictionary of tensors, or a tensor is of a kind that safetensors cannot have. The
/// error names the file, and the tensor where there is one.
pub(super) fn read(file: &dyn Blob) -> Result<Table> {
    state_dict::table(&open(file)?)
}

/// What `file` has saved.
///
/// # Errors
/// If it is damaged, or not a file of `torch.save`.
pub(super) fn open(file: &dyn Blob) -> Result<Saved<'_>> {
    let path = file.location();
    let mut start = [0; 512];
    let len = file.len().min(start.len() as u64) as usize;
    let start = &mut start[..len];
    file.read_at(start, 0)?;
    if start.starts_with(zip::LOCAL_HEADER) {
        return archive::open(file);
    }
    if let Some(pointer) = pointer(file) {
        return Err(pointer.error(path));
    }
    let found = match start {
        [] => "it is empty",
        [0x80, 2..=5, ..] => return legacy::open(file),
        _ if start.starts_with(legacy::START_OF_TEXT) => return legacy::open(file),
        _ if start.get(257..262) == Some(b"ustar") => {
            "it is a tar archive, as torch wrote it before version 0.1.10"
        }
        [b'<', ..] => {
            "it is a page of HTML or XML, maybe the answer of a server that refused a download"
        }
        _ => {
            "it begins neither with the signature of a zip archive nor with that of a pickle of torch"
        }
    };
    let problem = format!("this is not a file of torch.save: {found}");
    Err(Error::of_file(Code::BadTorchFile, path, problem))
}
