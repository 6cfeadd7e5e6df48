//! The dictionary of tensors in what was saved: a `state_dict()`, perhaps inside of a training checkpoint.

use std::collections::HashMap;

use indexmap::IndexMap;

use crate::error::{Code, Error, Result};
use crate::format::checkpoint::StoredTensor;
use crate::format::sharded::Table;
use crate::format::torch::pickle::{Id, Pickle};
use crate::format::torch::storage::Storage;
use crate::format::torch::tensors::{Described, Found, tensor};
use crate::format::torch::zip::Stored;
use crate::shown::Show;
use crate::source::Blob;
use crate::tensor::{byte_len, elements_spanned, is_contiguous, merged_axes, shape_text};

/// What training frameworks call the entry that is the model's state dict.
const WRAPPERS: [&str; 4] = ["state_dict", "model", "module", "model_state_dict"];

/// How deep one such entry is looked for in another.
const MAX_NESTING: usize = 2;

/// The longest name of a tensor, in bytes.
const MAX_NAME: usize = 1024;

/// The maximum size in bytes of a tensor with repeated elements. Its size in the file does not bound it.
const MAX_EXPANDED: u64 = 1 << 30;

/// The longest row that is gathered element by element.
const MAX_COLUMNS: u64 = 1 << 24;

/// How many entries that are no tensors are named.
const MAX_NAMED: usize = 8;

/// A dictionary of tensors.
struct StateDict<'a> {
    /// The keys of the dictionaries that it is in.
    path: Vec<&'a str>,
    items: Vec<(Id, Id)>,
    /// What is beside it in those.
    siblings: Vec<(Id, Id)>,
}

/// The tensors of what `pickle`, read from `file`, has saved. `locate` says where storages are.
///
/// # Errors
/// If there is no dictionary of tensors, or more than one; or if a tensor of it is of a kind that safetensors
/// cannot have, or does not lie inside of its storage.
pub(super) fn table<'a>(
    file: &dyn Blob,
    pickle: &'a Pickle,
    locate: &mut dyn FnMut(&Storage<'a>) -> Result<Stored>,
) -> Result<Table> {
    let StateDict {
        path,
        items,
        siblings,
    } = state_dict(file, pickle)?;
    let mut table = Table::default();
    if !path.is_empty() {
        let path = path.join(".");
        table
            .notes
            .push(format!("the tensors are those of its entry {path}"));
    }
    let mut left_out: Vec<(Option<&str>, Id)> = siblings
        .into_iter()
        .map(|(key, value)| (pickle.text(key), value))
        .collect();
    let mut entries: IndexMap<&str, Id> = IndexMap::new();
    for (key, value) in items {
        match pickle.text(key) {
            Some(name) if name.len() <= MAX_NAME => {
                entries.insert(name, value);
            }
            Some(name) if matches!(tensor(pickle, value), Found::Tensor(_)) => {
                let problem = format!(
                    "its name has {} bytes; at most {MAX_NAME} are read",
                    name.len()
                );
                return Err(Error::of_tensor(
                    Code::OverLimit,
                    file.location(),
                    name,
                    problem,
                ));
            }
            name => left_out.push((name, value)),
        }
    }
    let mut storages: HashMap<&str, (Storage, Stored)> = HashMap::new();
    for (name, value) in entries {
        let error = |code, problem: String| {
            Error::of_tensor(code, file.location(), name, problem.shown().to_string())
        };
        let described = match tensor(pickle, value) {
            Found::Tensor(described) => described,
            Found::Refused(kind) => {
                let problem = format!("it is {kind}, which safetensors files cannot have");
                let hint = "load the file with torch, make it a plain tensor, and save the state dict again";
                return Err(error(Code::UnsupportedTorch, problem).with_hint(hint));
            }
            Found::Damaged(problem) => return Err(error(Code::BadTorchFile, problem.to_owned())),
            Found::NoTensor => {
                left_out.push((Some(name), value));
                continue;
            }
        };
        if name == "__metadata__" {
            let problem = "no tensor of a safetensors file can have this name".to_owned();
            return Err(error(Code::BadName, problem));
        }
        let of = described.storage;
        let storage = match storages.get(of.key) {
            Some((other, place)) if other.is_alike(&of) => *place,
            Some(_) => {
                let problem = format!("its storage {} is said to be two different ones", of.key);
                return Err(error(Code::BadTorchFile, problem));
            }
            None => {
                let place = locate(&of).map_err(|error| error.about_tensor(name))?;
                storages.insert(of.key, (of, place));
                place
            }
        };
        let stored = stored(&described, storage).map_err(|(code, problem)| error(code, problem))?;
        table.tensors.insert(name.into(), stored);
    }
    table.left_out.extend(not_tensors(pickle, &left_out));
    Ok(table)
}

/// The one dictionary of tensors in `pickle`.
fn state_dict<'a>(file: &dyn Blob, pickle: &'a Pickle) -> Result<StateDict<'a>> {
    let path = file.location();
    match find(pickle, pickle.root(), MAX_NESTING) {
        Search::Found(found) => Ok(found),
        Search::Several(keys) => {
            let keys = keys.join(" and ");
            let problem = format!(
                "it has dictionaries of tensors in {keys}, and it is not clear which of them is the model"
            );
            let error = Error::of_file(Code::UnsupportedTorch, path, problem);
            Err(error.with_hint("load it with torch and save that one alone"))
        }
        Search::Nothing => {
            let kind = pickle.kind(pickle.root());
            let problem = match pickle.dict(pickle.root()) {
                Some(items) => {
                    let keys = items.iter().filter_map(|&(key, _)| pickle.text(key));
                    let keys: Vec<String> = keys
                        .take(MAX_NAMED)
                        .map(|key| key.shown().to_string())
                        .collect();
                    format!(
                        "it holds no tensors by name, but a dictionary of {}",
                        match &keys[..] {
                            [] => "nothing that has a name".to_owned(),
                            keys => keys.join(", "),
                        }
                    )
                }
                None => format!(
                    "it holds no dictionary of tensors: what was saved is {}",
                    kind.shown()
                ),
            };
            let error = Error::of_file(Code::UnsupportedTorch, path, problem);
            Err(error.with_hint(
                "load it with torch and save a state_dict(), a dictionary from names to tensors",
            ))
        }
    }
}

enum Search<'a> {
    Found(StateDict<'a>),
    Several(Vec<&'a str>),
    Nothing,
}

fn find(pickle: &Pickle, id: Id, depth: usize) -> Search<'_> {
    let Some(items) = pickle.items(id) else {
        return Search::Nothing;
    };
    let mut inside = Vec::new();
    for wrapper in WRAPPERS.iter().filter(|_| depth > 0) {
        // Of a key that was set twice, the last counts.
        let set = items
            .iter()
            .rfind(|(key, _)| pickle.text(*key) == Some(wrapper));
        let Some(&(_, value)) = set else { continue };
        match find(pickle, value, depth - 1) {
            Search::Found(found) => inside.push((*wrapper, found)),
            several @ Search::Several(_) => return several,
            Search::Nothing => {}
        }
    }
    if inside.len() > 1 {
        return Search::Several(inside.into_iter().map(|(wrapper, _)| wrapper).collect());
    }
    if let Some((wrapper, mut found)) = inside.pop() {
        found.path.insert(0, wrapper);
        let siblings = items.into_iter();
        let siblings = siblings.filter(|(key, _)| pickle.text(*key) != Some(wrapper));
        found.siblings.extend(siblings);
        return Search::Found(found);
    }
    let is_tensor = |&(_, value): &(Id, Id)| !matches!(tensor(pickle, value), Found::NoTensor);
    if !items.iter().any(is_tensor) {
        return Search::Nothing;
    }
    Search::Found(StateDict {
        path: Vec::new(),
        items,
        siblings: Vec::new(),
    })
}

/// Where the elements of a tensor are in its file; what is wrong if they are not in `storage`.
fn stored(
    tensor: &Described,
    storage: Stored,
) -> std::result::Result<StoredTensor, (Code, String)> {
    let Described {
        dtype,
        offset,
        shape,
        strides,
        storage: described,
    } = tensor;
    let shown = shape_text(shape);
    let damaged = |problem: String| (Code::BadTorchFile, problem);
    let width = dtype.bitsize() as u64 / 8;
    let too_large = || damaged(format!("its shape is {shown}: that is 2^61 bytes or more"));
    let len = byte_len(*dtype, shape)
        .filter(|&len| len < 1 << 61)
        .ok_or_else(too_large)?;
    let spanned = elements_spanned(shape, strides);
    // Of a part of the storage, if one is meant.
    let unit = described.width().expect("its elements are known");
    let (first, part) = described.view.unwrap_or((0, described.len));
    let places = (|| {
        let first = first.checked_mul(unit)?;
        let end = first.checked_add(part.checked_mul(unit)?)?;
        let start = first.checked_add(offset.checked_mul(width)?)?;
        let last = start.checked_add(spanned?.checked_mul(width)?)?;
        (end <= storage.len && last <= end).then_some(start)
    })();
    let Some(start) = places else {
        return Err(damaged(format!(
            "its shape is {shown} with strides {strides:?} from element {offset} on, which is not inside of its storage of {} bytes",
            storage.len
        )));
    };
    let strides = if is_contiguous(shape, strides) {
        None
    } else {
        check_gather(dtype.bitsize() as u64 / 8, len, shape, strides)
            .map_err(|problem| (Code::OverLimit, problem))?;
        Some(strides[..].into())
    };
    Ok(StoredTensor {
        dtype: *dtype,
        shape: shape[..].into(),
        offset: storage.offset + start,
        len,
        strides,
    })
}

/// Checks that elements can be put in order band by band.
fn check_gather(
    width: u64,
    len: u64,
    shape: &[u64],
    strides: &[u64],
) -> std::result::Result<(), String> {
    let shown = shape_text(shape);
    let spanned = elements_spanned(shape, strides).unwrap_or(u64::MAX);
    if len / width > spanned && len > MAX_EXPANDED {
        return Err(format!(
            "its shape is {shown} with strides {strides:?}: it repeats elements, and such a tensor has at most {MAX_EXPANDED} bytes"
        ));
    }
    if let [.., _, columns] = merged_axes(shape, strides)[..]
        && columns.stride != 1
        && columns.len > MAX_COLUMNS
    {
        return Err(format!(
            "its shape is {shown} with strides {strides:?}: rows whose elements are not next to each other have at most {MAX_COLUMNS}"
        ));
    }
    Ok(())
}

/// What is said of the entries that are no tensors.
fn not_tensors(pickle: &Pickle, entries: &[(Option<&str>, Id)]) -> Option<String> {
    if entries.is_empty() {
        return None;
    }
    let named = entries.iter().take(MAX_NAMED).map(|&(key, value)| {
        let key = match key {
            Some(key) if key.len() <= MAX_NAME => key.shown().to_string(),
            Some(_) => "a long key".to_owned(),
            None => "a key that is no text".to_owned(),
        };
        match tensor(pickle, value) {
            Found::NoTensor => format!("{key} ({})", pickle.kind(value).shown()),
            _ => format!("{key} (a tensor)"),
        }
    });
    let mut named: Vec<String> = named.collect();
    if let Some(more) = entries
        .len()
        .checked_sub(MAX_NAMED)
        .filter(|&more| more > 0)
    {
        named.push(format!("{more} more"));
    }
    Some(format!("not of the model: {}", named.join(", ")))
}
