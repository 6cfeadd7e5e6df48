//! The dictionary of tensors in what was saved: a `state_dict()`, perhaps inside of a training checkpoint.

use indexmap::IndexMap;

use crate::error::{Code, Error, Result};
use crate::format::sharded::Table;
use crate::format::torch::pickle::{Id, Pickle};
use crate::format::torch::saved::Saved;
use crate::format::torch::tensors::{Found, tensor};
use crate::shown::Show;
use crate::source::Blob;

/// What training frameworks call the entry that is the model's state dict.
const WRAPPERS: [&str; 4] = ["state_dict", "model", "module", "model_state_dict"];

/// How deep one such entry is looked for in another.
const MAX_NESTING: usize = 2;

/// The longest name of a tensor, in bytes.
const MAX_NAME: usize = 1024;

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

/// The entries of a dictionary of tensors.
#[derive(Debug)]
pub(in crate::format) struct Entries<'a> {
    /// Of a name that was set twice, the last.
    pub(in crate::format) named: IndexMap<&'a str, Id>,
    /// What was made of it.
    pub(in crate::format) notes: Vec<String>,
    /// What cannot be tensors.
    others: Vec<(Option<&'a str>, Id)>,
}

/// The tensors that are `saved`.
///
/// # Errors
/// If there is no dictionary of tensors, or more than one; or if a tensor of it is of a kind that safetensors
/// cannot have, or does not lie inside of its storage.
pub(super) fn table(saved: &Saved) -> Result<Table> {
    let entries = entries(saved)?;
    let mut table = Table {
        notes: entries.notes,
        ..Table::default()
    };
    let mut left_out = entries.others;
    let mut tensors = saved.tensors();
    for (name, value) in entries.named {
        match tensors.find(name, value)? {
            Some(stored) => {
                table.tensors.insert(name.into(), stored);
            }
            None => left_out.push((Some(name), value)),
        }
    }
    let left_out = not_tensors(&saved.pickle, &left_out);
    table.left_out.extend(left_out);
    Ok(table)
}

/// The dictionary of tensors that is `saved`.
///
/// # Errors
/// If there is none, or more than one.
pub(in crate::format) fn entries<'a>(saved: &'a Saved) -> Result<Entries<'a>> {
    let Saved { file, pickle, .. } = saved;
    let StateDict {
        path,
        items,
        siblings,
    } = state_dict(*file, pickle)?;
    let mut notes = Vec::new();
    if !path.is_empty() {
        let path = path.join(".");
        notes.push(format!("the tensors are those of its entry {path}"));
    }
    let mut others: Vec<(Option<&str>, Id)> = siblings
        .into_iter()
        .map(|(key, value)| (pickle.text(key), value))
        .collect();
    let mut named: IndexMap<&str, Id> = IndexMap::new();
    for (key, value) in items {
        match pickle.text(key) {
            Some(name) if name.len() <= MAX_NAME => {
                named.insert(name, value);
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
            name => others.push((name, value)),
        }
    }
    Ok(Entries {
        named,
        notes,
        others,
    })
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
