//! Which tokens a cut would leave without a row.

use serde_json::Value;

use crate::catalog::{CONFIG_FILE, Catalog};
use crate::error::setting::{DROP_FILE, VOCAB_SIZE};
use crate::error::{Code, Error, Hint, Result};
use crate::source::{AuxEntry, not_json};
use crate::text::listing;

const TOKENIZER_FILE: &str = "tokenizer.json";
const TOKENIZER_CONFIG_FILE: &str = "tokenizer_config.json";
const ADDED_FILE: &str = "added_tokens.json";

/// The longest file that is read: a tokenizer.json has some 30 MB.
const MAX_BYTES: u64 = 128 << 20;

/// Ids, each with what has it.
type Ids = Vec<(u64, String)>;

/// Checks that no token of the view's tokenizer, and none that the `objects` of config.json name, is cut off where
/// `rows` of `old` rows stay.
///
/// # Errors
/// If one is, with the ids; if such a file is not what it should be.
pub(super) fn check_cut(
    catalog: &mut Catalog,
    objects: &[Vec<String>],
    rows: u64,
    old: u64,
) -> Result<()> {
    for (file, ids) in [
        (TOKENIZER_FILE, of_tokenizer as fn(&Value) -> Option<Ids>),
        (ADDED_FILE, of_map),
        (TOKENIZER_CONFIG_FILE, of_tokenizer_config),
    ] {
        let Some(json) = read(catalog, file)? else {
            continue;
        };
        let ids = ids(&json).ok_or_else(|| {
            let problem = format!("{file} does not say which ids its tokens have");
            Error::new(Code::BadTokenizer, problem).about(VOCAB_SIZE)
        })?;
        check(file, ids, rows, old)?;
    }
    let Some(config) = catalog.config_mut()? else {
        return Ok(());
    };
    let mut ids = Vec::new();
    for path in objects {
        let values: Vec<(String, Value)> = if path.is_empty() {
            let keys = config.keys().filter(|key| is_of_token(key));
            keys.filter_map(|key| Some((key.to_owned(), config.get(key)?)))
                .collect()
        } else {
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            match config.get_at(&path) {
                Some(Value::Object(object)) => object.into_iter().collect(),
                _ => Vec::new(),
            }
        };
        for (key, value) in values.iter().filter(|(key, _)| is_of_token(key)) {
            let values = match value {
                Value::Array(values) => &values[..],
                value => std::slice::from_ref(value),
            };
            let values = values.iter().filter_map(Value::as_u64);
            ids.extend(values.map(|id| (id, key.clone())));
        }
    }
    check(CONFIG_FILE, ids, rows, old)
}

/// Checks that `file`, which has `ids`, has none from `rows` on. What is not below `old` has no row already.
fn check(file: &str, mut ids: Ids, rows: u64, old: u64) -> Result<()> {
    ids.sort_unstable();
    ids.dedup();
    let largest = ids.iter().map(|(id, _)| *id).filter(|id| *id < old).max();
    ids.retain(|(id, _)| (rows..old).contains(id));
    let Some(largest) = largest.filter(|_| !ids.is_empty()) else {
        return Ok(());
    };
    let shown: Vec<String> = ids
        .iter()
        .map(|(id, what)| format!("{id} ({what})"))
        .collect();
    let problem = format!(
        "{file} has ids that would have no row with {rows} rows: {}; the largest is {largest}",
        listing(&shown)
    );
    let mut hint = Hint::give_value(VOCAB_SIZE, (largest + 1).to_string()).to("keep all of them");
    if file != CONFIG_FILE {
        let dropped = Hint::give_value(DROP_FILE, file.to_owned());
        hint = hint.or(dropped.to("leave out a tokenizer that is not this model's"));
    }
    let error = Error::new(Code::TokensCut, problem).about_value(VOCAB_SIZE, rows.to_string());
    Err(error.with_hint(hint))
}

fn is_of_token(key: &str) -> bool {
    key.ends_with("_token_id") || key.ends_with("_token_ids") || key.ends_with("_token_index")
}

/// The file called `wanted`, if there is one.
fn read(catalog: &Catalog, wanted: &str) -> Result<Option<Value>> {
    let found = catalog.aux.iter().find(|entry| entry.name() == wanted);
    let (file, text) = match found {
        Some(AuxEntry::File { file, .. }) => (file, file.read_all(MAX_BYTES)?),
        Some(AuxEntry::Edited { file, text, .. }) => (file, text.to_vec()),
        Some(AuxEntry::Directory { .. }) | None => return Ok(None),
    };
    let json = serde_json::from_slice(&text).map_err(|error| {
        let problem = format!("not valid JSON: {}", not_json(&text, &error));
        Error::of_file(Code::BadTokenizer, file.location(), problem).about(VOCAB_SIZE)
    })?;
    Ok(Some(json))
}

/// The ids in a tokenizer.json.
fn of_tokenizer(json: &Value) -> Option<Ids> {
    let mut ids = match json.pointer("/model/vocab")? {
        Value::Array(pieces) => {
            let pieces = pieces.iter().enumerate();
            let pieces = pieces.map(|(id, piece)| (id as u64, piece[0].to_string()));
            pieces.collect()
        }
        vocabulary => of_map(vocabulary)?,
    };
    let added = json.get("added_tokens").and_then(Value::as_array);
    for token in added.into_iter().flatten() {
        ids.push((token.get("id")?.as_u64()?, token["content"].to_string()));
    }
    Some(ids)
}

/// The ids in a map of tokens to ids.
fn of_map(json: &Value) -> Option<Ids> {
    let tokens = json.as_object()?.iter();
    let ids =
        tokens.map(|(token, id)| Some((id.as_u64()?, Value::from(token.as_str()).to_string())));
    ids.collect()
}

/// The ids in a tokenizer_config.json.
fn of_tokenizer_config(json: &Value) -> Option<Ids> {
    let added = json.get("added_tokens_decoder").and_then(Value::as_object);
    let ids = added
        .into_iter()
        .flatten()
        .map(|(id, token)| Some((id.parse().ok()?, token["content"].to_string())));
    ids.collect()
}
