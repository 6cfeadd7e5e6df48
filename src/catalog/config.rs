//! config.json with pending edits. What is not edited keeps its text to the byte.

use std::path::Path;
use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::error::{Error, Result};
use crate::source::{AuxEntry, SourceFile};

/// The file name of a model's configuration.
pub const CONFIG_FILE: &str = "config.json";

/// A JSON object whose values keep the text they were written with.
type Object = IndexMap<String, Box<RawValue>>;

/// A config.json and the edits that operators made to it.
#[derive(Debug, Clone)]
pub struct Config {
    file: Arc<SourceFile>,
    object: Object,
    edited: bool,
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
        let file = aux.iter().find_map(|entry| match entry {
            AuxEntry::File { name, file } if name == CONFIG_FILE => Some(file.clone()),
            _ => None,
        });
        file.map(Config::read).transpose()
    }

    fn read(file: Arc<SourceFile>) -> Result<Self> {
        let text = file.read_all(Self::MAX_BYTES)?;
        Config::parse(&text, file)
    }

    /// Parses `text`, the content of `file`.
    ///
    /// # Errors
    /// If it is not a JSON object, or a value inside of which settings are looked up cannot be
    /// read (a number beyond all bounds, nesting without end): what it sets would go unseen.
    pub fn parse(text: &[u8], file: Arc<SourceFile>) -> Result<Self> {
        let object: Object = serde_json::from_slice(text)
            .map_err(|e| Error::checkpoint(file.path(), format!("not a JSON object: {e}")))?;
        for key in ["quantization_config", "text_config"] {
            if let Some(text) = object.get(key) {
                serde_json::from_str::<Value>(text.get())
                    .map_err(|e| Error::checkpoint(file.path(), format!("{key}: {e}")))?;
            }
        }
        Ok(Config {
            file,
            object,
            edited: false,
        })
    }

    /// The file it was read from.
    pub fn file(&self) -> &Arc<SourceFile> {
        &self.file
    }

    /// The path it was read from.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The value of a top-level key.
    pub fn get(&self, key: &str) -> Option<Value> {
        serde_json::from_str(self.object.get(key)?.get()).ok()
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
        self.object.insert(key.to_owned(), raw(value));
        self.edited = true;
    }

    /// Sets `key` in the object `outer`, in its place if it exists, else at the end.
    pub fn set_in(&mut self, outer: &str, key: &str, value: &Value) -> Result<()> {
        let Some(mut inner) = self.inner(outer)? else {
            return Ok(());
        };
        let text = format!("{value:#}").replace('\n', "\n    ");
        inner.insert(key.to_owned(), raw_text(text));
        self.object
            .insert(outer.to_owned(), raw_text(render(&inner, 1)));
        self.edited = true;
        Ok(())
    }

    /// The object `outer`, its values as they are written.
    fn inner(&self, outer: &str) -> Result<Option<Object>> {
        let Some(text) = self.object.get(outer) else {
            return Ok(None);
        };
        serde_json::from_str(text.get()).map(Some).map_err(|e| {
            Error::checkpoint(self.path(), format!("{outer} is not a JSON object: {e}"))
        })
    }

    /// Removes `key` from the object `outer`, keeping the rest of that object.
    pub fn remove_in(&mut self, outer: &str, key: &str) -> Result<()> {
        let Some(mut inner) = self.inner(outer)? else {
            return Ok(());
        };
        if inner.shift_remove(key).is_some() {
            self.object
                .insert(outer.to_owned(), raw_text(render(&inner, 1)));
            self.edited = true;
        }
        Ok(())
    }

    /// The new text, or `None` if nothing was edited.
    pub fn edited_text(&self) -> Option<String> {
        self.edited.then(|| render(&self.object, 0) + "\n")
    }
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

/// A value as it is written one level deep. JSON strings hold no line breaks.
fn raw(value: &Value) -> Box<RawValue> {
    raw_text(format!("{value:#}").replace('\n', "\n  "))
}

fn raw_text(text: String) -> Box<RawValue> {
    RawValue::from_string(text).expect("text rendered from JSON values is JSON")
}
