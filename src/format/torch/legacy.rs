//! The file as torch wrote it before 1.6, and still does with `_use_new_zipfile_serialization=False`.
//!
//! | part | content |
//! |---|---|
//! | pickle | the magic number |
//! | pickle | the version, 1001 |
//! | pickle | a dictionary, of which `little_endian` matters |
//! | pickle | what was saved |
//! | pickle | the keys of the storages, in the order of what follows |
//! | for each key | its number of elements, 8 bytes; its elements |

use std::collections::HashMap;

use crate::error::{Code, Error, Result};
use crate::format::torch::pickle::{Id, Input, Pickle, Value, load};
use crate::format::torch::saved::{Saved, Storages};
use crate::format::torch::storage::Storage;
use crate::format::torch::zip::Stored;
use crate::shown::Show;
use crate::source::Blob;

const MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;
/// What a file begins with whose pickles are of protocol 0 or 1: the magic number.
pub(super) const START_OF_TEXT: &[u8] = b"L119547037146038801333356L\n.";
const VERSION: i128 = 1001;

/// Bytes of a storage's number of elements.
const COUNT_BYTES: u64 = 8;

/// What `file` has saved.
///
/// # Errors
/// As [`torch::open`](super::open).
pub(super) fn open(file: &dyn Blob) -> Result<Saved<'_>> {
    let path = file.location();
    let refuse = |code, problem: &str| Err(Error::of_file(code, path, problem));
    let mut input = Input::new(file, 0, file.len());
    let is_int = |pickle: &Pickle, int: i128| matches!(pickle.value(pickle.root()), Value::Int(found) if *found == int);
    if !is_int(&load(&mut input)?, MAGIC) {
        return refuse(
            Code::BadTorchFile,
            "this is not a file of torch.save: it is a pickle without the magic number of torch",
        );
    }
    if !is_int(&load(&mut input)?, VERSION) {
        return refuse(
            Code::UnsupportedTorch,
            "its version is not 1001, the only one there is",
        );
    }
    let system = load(&mut input)?;
    let mut settings = system.dict(system.root()).unwrap_or_default().iter();
    let little_endian = settings.rfind(|(key, _)| system.text(*key) == Some("little_endian"));
    match little_endian.map(|&(_, value)| system.value(value)) {
        Some(Value::Bool(true)) => {}
        Some(Value::Bool(false)) => {
            return refuse(
                Code::UnsupportedTorch,
                "its numbers are big-endian, and those of safetensors little-endian",
            );
        }
        _ => return refuse(Code::BadTorchFile, "it does not say its byte order"),
    }
    let saved = load(&mut input)?;
    let keys = load(&mut input)?;
    let storages = storages(file, &saved, &keys, input.at())?;
    let storages = storages.into_iter();
    let storages = storages.map(|(key, place)| (key.into(), place)).collect();
    Ok(Saved {
        file,
        pickle: saved,
        storages: Storages::Places(storages),
    })
}

/// Where the storages are that `keys` lists, from `start` on; `saved` says of each what it holds.
fn storages<'a>(
    file: &dyn Blob,
    saved: &'a Pickle,
    keys: &'a Pickle,
    start: u64,
) -> Result<HashMap<&'a str, Stored>> {
    let path = file.location();
    let damaged =
        |problem: String| Error::of_file(Code::BadTorchFile, path, problem.shown().to_string());
    let mut known: HashMap<&str, Storage> = HashMap::new();
    for value in saved.values() {
        let storage = match value {
            Value::Persistent(name) => Storage::of(saved, *name),
            _ => None,
        };
        let Some(storage) = storage else { continue };
        if let Some(other) = known.insert(storage.key, storage)
            && !other.is_alike(&storage)
        {
            let problem = format!("storage {} is said to be two different ones", storage.key);
            return Err(damaged(problem));
        }
    }
    let listed = keys.list(keys.root());
    let listed: &[Id] =
        listed.ok_or_else(|| damaged("it has no list of its storages".to_owned()))?;
    let mut at = start;
    let mut storages = HashMap::new();
    for &key in listed {
        let storage = keys.text(key).and_then(|key| known.get(key));
        let storage = storage.ok_or_else(|| {
            damaged(format!(
                "nothing says what its storage number {} holds",
                storages.len()
            ))
        })?;
        let problem = format!("storage {}", storage.key.shown());
        // Those that safetensors cannot have are only passed over.
        let width = storage.width().or_else(|| foreign_width(storage.class));
        let width = width.ok_or_else(|| {
            let problem = format!(
                "{problem} is a {}, whose elements are not known",
                storage.class.shown()
            );
            Error::of_file(Code::UnsupportedTorch, path, problem)
        })?;
        let mut count = [0; COUNT_BYTES as usize];
        let first = at
            .checked_add(COUNT_BYTES)
            .filter(|&first| first <= file.len());
        let ends = || {
            let error = Error::of_file(
                Code::Truncated,
                path,
                format!("{problem} is not in it whole"),
            );
            error.with_hint("is the download complete?")
        };
        let first = first.ok_or_else(ends)?;
        file.read_at(&mut count, at)?;
        if u64::from_le_bytes(count) != storage.len {
            let found = u64::from_le_bytes(count);
            return Err(damaged(format!(
                "{problem} has {found} elements, and the pickle says {}",
                storage.len
            )));
        }
        let len = storage.len.checked_mul(width);
        let end = len.and_then(|len| first.checked_add(len));
        let end = end.filter(|&end| end <= file.len()).ok_or_else(ends)?;
        let place = Stored {
            offset: first,
            len: end - first,
        };
        if storages.insert(storage.key, place).is_some() {
            return Err(damaged(format!("{problem} is listed twice")));
        }
        at = end;
    }
    if at != file.len() {
        let more = file.len() - at;
        return Err(damaged(format!("{more} bytes follow its last storage")));
    }
    Ok(storages)
}

/// Bytes of an element that safetensors cannot have.
fn foreign_width(class: &str) -> Option<u64> {
    Some(match class {
        "ComplexDoubleStorage" => 16,
        "ComplexFloatStorage" => 8,
        "QInt32Storage" => 4,
        "QInt8Storage" | "QUInt8Storage" | "QUInt4x2Storage" | "QUInt2x4Storage" => 1,
        _ => return None,
    })
}
