//! config.json with pending edits. What is not edited keeps its text to the byte.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use indexmap::IndexMap;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::error::{Code, Error, Result};
use crate::source::{AuxEntry, Blob, not_json};

/// The file name of a model's configuration.
pub const CONFIG_FILE: &str = "config.json";

/// A JSON object whose values keep the text they were written with.
type Object = IndexMap<String, Box<RawValue>>;

/// What became of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Edit {
    Set,
    Removed,
}

/// A config.json and the edits that operators made to it.
#[derive(Debug, Clone)]
pub struct Config {
    file: Arc<dyn Blob>,
    object: Object,
    /// In the order in which keys were first edited.
    edits: IndexMap<String, Edit>,
    /// Whether it is as it was read, so that its text is.
    is_as_read: bool,
}

impl Config {
    /// The longest config.json that is read: parsed, it takes some 70 times its length.
    pub const MAX_BYTES: u64 = 16 << 20;

    /// Reads the config.json among `aux`, if there is one.
    ///
    /// # Errors
    /// If it is not a JSON object. (Python also reads and writes `NaN` and `Infinity`, which JSON
    /// does not have: such a file can be shown, but not edited.)
    pub fn find(aux: &[AuxEntry]) -> Result<Option<Self>> {
        let entry = aux.iter().find(|entry| entry.name() == CONFIG_FILE);
        match entry {
            Some(AuxEntry::File { file, .. }) => Config::read(file.clone()).map(Some),
            Some(AuxEntry::Edited { file, text, .. }) => {
                Config::parse(text, file.clone()).map(Some)
            }
            Some(AuxEntry::Directory { .. }) | None => Ok(None),
        }
    }

    fn read(file: Arc<dyn Blob>) -> Result<Self> {
        let text = file.read_all(Self::MAX_BYTES)?;
        Config::parse(&text, file)
    }

    /// Parses `text`, the content of `file`.
    ///
    /// # Errors
    /// If it is not a JSON object, or a value inside of which settings are looked up cannot be
    /// read (a number beyond all bounds, nesting without end): what it sets would go unseen.
    pub fn parse(text: &[u8], file: Arc<dyn Blob>) -> Result<Self> {
        let object: Object = serde_json::from_slice(text)
            .map_err(|e| not_an_object(text, &e))
            .map_err(|problem| Error::of_file(Code::BadConfig, file.location(), problem))?;
        for key in ["quantization_config", "text_config"] {
            if let Some(text) = object.get(key) {
                serde_json::from_str::<Value>(text.get()).map_err(|e| {
                    Error::of_file(Code::BadConfig, file.location(), format!("{key}: {e}"))
                })?;
            }
        }
        Ok(Config {
            file,
            object,
            edits: IndexMap::new(),
            is_as_read: true,
        })
    }

    /// The file it was read from.
    pub fn file(&self) -> &Arc<dyn Blob> {
        &self.file
    }

    /// The path it was read from.
    pub fn path(&self) -> &Path {
        self.file.location()
    }

    /// The value of a top-level key.
    pub fn get(&self, key: &str) -> Option<Value> {
        serde_json::from_str(self.object.get(key)?.get()).ok()
    }

    /// The top-level keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.object.keys().map(String::as_str)
    }

    /// The value of `key` inside the object `outer`.
    pub fn get_in(&self, outer: &str, key: &str) -> Option<Value> {
        self.get(outer)?.get(key).cloned()
    }

    /// The value of `key` at the top level or, for multimodal models, in `text_config`.
    pub fn text_model(&self, key: &str) -> Option<Value> {
        self.get(key).or_else(|| self.get_in("text_config", key))
    }

    /// Sets a top-level key, in its place if it exists, else at the end.
    pub fn set(&mut self, key: &str, value: &Value) {
        self.object.insert(key.to_owned(), raw(value, 1));
        self.note(key.to_owned(), Edit::Set);
    }

    /// Removes a top-level key.
    pub fn remove(&mut self, key: &str) {
        if self.object.shift_remove(key).is_some() {
            self.note(key.to_owned(), Edit::Removed);
        }
    }

    /// Removes `key` from the object `outer`, keeping the rest of that object.
    pub fn remove_in(&mut self, outer: &str, key: &str) -> Result<()> {
        let remove = |inner: &mut Object| inner.shift_remove(key).map(|_| Edit::Removed);
        self.edit_in(outer, key, remove)
    }

    /// Sets `key` in the object `outer`, if there is one, in its place if it exists.
    pub fn set_in(&mut self, outer: &str, key: &str, value: &Value) -> Result<()> {
        self.edit_in(outer, key, |inner| {
            inner.insert(key.to_owned(), raw(value, 2));
            Some(Edit::Set)
        })
    }

    /// Has `edit` change `key` in the object `outer` and say how, if it did.
    fn edit_in(
        &mut self,
        outer: &str,
        key: &str,
        edit: impl FnOnce(&mut Object) -> Option<Edit>,
    ) -> Result<()> {
        let Some(text) = self.object.get(outer) else {
            return Ok(());
        };
        let mut inner: Object = serde_json::from_str(text.get()).map_err(|e| {
            Error::of_file(
                Code::BadConfig,
                self.path(),
                format!("{outer} is not a JSON object: {e}"),
            )
        })?;
        if let Some(edit) = edit(&mut inner) {
            self.object
                .insert(outer.to_owned(), raw_text(render(&inner, 1)));
            self.note(format!("{outer}.{key}"), edit);
        }
        Ok(())
    }

    /// The value at `path`: a top-level key, or the keys of objects on the way to one.
    pub(crate) fn get_at(&self, path: &[&str]) -> Option<Value> {
        let (last, outer) = path.split_last()?;
        let mut object = Cow::Borrowed(&self.object);
        for key in outer {
            let inner: Object = serde_json::from_str(object.get(*key)?.get()).ok()?;
            object = Cow::Owned(inner);
        }
        serde_json::from_str(object.get(*last)?.get()).ok()
    }

    /// Every place of `key`, at the top level or in objects inside of each other, with its value.
    pub(crate) fn everywhere(&self, key: &str) -> Vec<(Vec<String>, Value)> {
        let mut found = Vec::new();
        collect(&self.object, key, &mut Vec::new(), &mut found);
        found
    }

    /// Sets the value at `path`, whose objects are there, in its place if it exists.
    ///
    /// # Errors
    /// If one of the objects is not one.
    pub(crate) fn set_at(&mut self, path: &[&str], value: &Value) -> Result<()> {
        put(&mut self.object, path, value, 1).map_err(|e| {
            let problem = format!("{} cannot be set: {e}", path.join("."));
            Error::of_file(Code::BadConfig, self.path(), problem)
        })?;
        self.note(path.join("."), Edit::Set);
        Ok(())
    }

    fn note(&mut self, key: String, edit: Edit) {
        self.edits.insert(key, edit);
        self.is_as_read = false;
    }

    /// Says that `edits` were made to it before it was read.
    pub(crate) fn after(mut self, edits: IndexMap<String, Edit>) -> Self {
        self.edits = edits;
        self
    }

    /// What became of which keys: `key`, or `outer.key` inside of an object.
    pub fn edits(&self) -> &IndexMap<String, Edit> {
        &self.edits
    }

    /// The new text, or `None` if nothing was edited since it was read.
    pub fn edited_text(&self) -> Option<String> {
        (!self.is_as_read).then(|| render(&self.object, 0) + "\n")
    }
}

/// The values of `keys` in `text`, a config.json. As when a view edits it, no other value is looked
/// into: a number beyond all bounds is JSON, and Python reads it as infinity.
///
/// # Errors
/// What it is not, for a message.
pub(crate) fn values(text: &[u8], keys: &[&str]) -> std::result::Result<Value, String> {
    let object: Object = serde_json::from_slice(text).map_err(|e| not_an_object(text, &e))?;
    let mut values = serde_json::Map::new();
    for key in keys {
        if let Some(text) = object.get(*key) {
            let value = serde_json::from_str(text.get()).map_err(|e| format!("{key}: {e}"))?;
            values.insert((*key).to_owned(), value);
        }
    }
    Ok(Value::Object(values))
}

/// Adds every place of `key` in `object`, which is at `path`, and in the objects in it.
fn collect(
    object: &Object,
    key: &str,
    path: &mut Vec<String>,
    found: &mut Vec<(Vec<String>, Value)>,
) {
    for (name, text) in object {
        path.push(name.clone());
        if name == key
            && let Ok(value) = serde_json::from_str(text.get())
        {
            found.push((path.clone(), value));
        }
        if let Ok(inner) = serde_json::from_str::<Object>(text.get()) {
            collect(&inner, key, path, found);
        }
        path.pop();
    }
}

/// Sets the value at `path` of `object`, which is written `depth` levels deep less one.
fn put(object: &mut Object, path: &[&str], value: &Value, depth: usize) -> serde_json::Result<()> {
    let [outer, rest @ ..] = path else {
        return Ok(());
    };
    let text = match (object.get(*outer), rest) {
        (Some(inner), [_, ..]) => {
            let mut inner: Object = serde_json::from_str(inner.get())?;
            put(&mut inner, rest, value, depth + 1)?;
            raw_text(render(&inner, depth))
        }
        _ => raw(value, depth),
    };
    object.insert((*outer).to_owned(), text);
    Ok(())
}

fn not_an_object(text: &[u8], error: &serde_json::Error) -> String {
    format!("not a JSON object: {}", not_json(text, error))
}

/// An object as `json.dumps(indent=2)` writes it at nesting level `depth`, values as they are.
fn render(object: &Object, depth: usize) -> String {
    if object.is_empty() {
        return "{}".to_owned();
    }
    let indent = "  ".repeat(depth);
    let entries: Vec<String> = object
        .iter()
        .map(|(key, value)| format!("{indent}  {}: {}", Value::from(key.as_str()), value.get()))
        .collect();
    format!("{{\n{}\n{indent}}}", entries.join(",\n"))
}

/// A value as it is written `depth` levels deep. JSON strings hold no line breaks.
fn raw(value: &Value, depth: usize) -> Box<RawValue> {
    let line = format!("\n{}", "  ".repeat(depth));
    raw_text(format!("{value:#}").replace('\n', &line))
}

fn raw_text(text: String) -> Box<RawValue> {
    RawValue::from_string(text).expect("text rendered from JSON values is JSON")
}
