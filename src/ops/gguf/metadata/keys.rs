//! Keys in the order in which they are first set. As in the converter, setting one again keeps its place, and
//! empty texts and lists are left out.

use serde_json::Value as Json;

use crate::format::gguf::{Array, Keys, Number, Value};

/// Metadata that is being put together.
#[derive(Debug, Default)]
pub(crate) struct KeyWriter {
    keys: Keys,
    /// The architecture, which is the prefix of its keys.
    architecture: &'static str,
}

impl KeyWriter {
    pub(crate) fn new(architecture: &'static str) -> Self {
        let mut writer = KeyWriter {
            keys: Keys::new(),
            architecture,
        };
        writer.string("general.architecture", architecture);
        writer
    }

    pub(crate) fn finish(self) -> Keys {
        self.keys
    }

    pub(crate) fn set(&mut self, key: &str, value: Value) {
        let key = match key.strip_prefix('.') {
            Some(rest) => format!("{}.{rest}", self.architecture),
            None => key.to_owned(),
        };
        self.keys.insert(key, value);
    }

    /// Keys that begin with a point are of the architecture, here and below.
    pub(crate) fn string(&mut self, key: &str, text: &str) {
        if !text.is_empty() {
            self.set(key, Value::String(text.to_owned()));
        }
    }

    pub(crate) fn bool(&mut self, key: &str, value: bool) {
        self.set(key, Value::Bool(value));
    }

    pub(crate) fn u32(&mut self, key: &str, value: u64) {
        // Numbers of a config are those of dimensions of tensors.
        self.set(key, Value::U32(u32::try_from(value).unwrap_or(u32::MAX)));
    }

    pub(crate) fn f32(&mut self, key: &str, value: f64) {
        self.set(key, Value::F32(value as f32));
    }

    pub(crate) fn array(&mut self, key: &str, values: Array) {
        if values.len() > 0 {
            self.set(key, Value::Array(values));
        }
    }

    pub(crate) fn numbers<T: Number>(&mut self, key: &str, values: &[T]) {
        self.array(key, Array::from(values));
    }

    /// The number that `json` is, if it is one.
    pub(crate) fn u32_of(&mut self, key: &str, json: Option<&Json>) {
        if let Some(value) = json.and_then(Json::as_u64) {
            self.u32(key, value);
        }
    }

    pub(crate) fn f32_of(&mut self, key: &str, json: Option<&Json>) {
        if let Some(value) = json.and_then(Json::as_f64) {
            self.f32(key, value);
        }
    }

    pub(crate) fn string_of(&mut self, key: &str, json: Option<&Json>) {
        if let Some(text) = json.and_then(Json::as_str) {
            self.string(key, text);
        }
    }
}
