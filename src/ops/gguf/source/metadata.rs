//! What the metadata of a model says, by keys, with errors that name them.

use crate::error::setting::LIKE;
use crate::error::{Code, Error, Hint, Result};
use crate::format::gguf::{Array, Model, Value};
use crate::ops::gguf::architecture::Architecture;

/// The metadata of a model of a known architecture.
#[derive(Debug, Clone, Copy)]
pub(super) struct Metadata<'a> {
    pub model: &'a Model,
    pub architecture: &'static Architecture,
}

/// The architectures whose tensors can be given in Hugging Face's layout.
const READABLE: [&str; 10] = [
    "llama",
    "qwen2",
    "qwen3",
    "qwen3moe",
    "gemma3",
    "qwen3next",
    "qwen35",
    "qwen35moe",
    "deepseek2",
    "gpt-oss",
];

impl<'a> Metadata<'a> {
    /// The metadata of `model`.
    ///
    /// # Errors
    /// If it is of something else than a model, or of an architecture that is not known.
    pub(super) fn new(model: &'a Model) -> Result<Self> {
        let refuse = |problem: String| {
            let error = Error::of_file(Code::UnknownGguf, model.file.location(), problem);
            error.with_hint(Hint::text(format!(
                "the architectures that can be read are {}",
                READABLE.join(", ")
            )))
        };
        let text = |key: &str| model.keys.get(key).and_then(Value::as_str);
        if let Some(kind) = text("general.type").filter(|kind| *kind != "model") {
            return Err(refuse(format!(
                "general.type is {kind:?}: this is no model"
            )));
        }
        let Some(name) = text("general.architecture") else {
            let problem = "general.architecture is missing, so nothing says what its tensors are";
            return Err(refuse(problem.to_owned()));
        };
        let known = READABLE.contains(&name).then(|| Architecture::named(name));
        match known.flatten() {
            Some(architecture) => Ok(Metadata {
                model,
                architecture,
            }),
            None => Err(refuse(format!("its architecture {name:?} cannot be read"))),
        }
    }

    /// The value of `key`; a key that begins with a dot is one of the architecture.
    pub(super) fn get(self, key: &str) -> Option<&'a Value> {
        self.model.keys.get(&self.key(key))
    }

    fn key(self, key: &str) -> String {
        match key.starts_with('.') {
            true => format!("{}{key}", self.architecture.name),
            false => key.to_owned(),
        }
    }

    /// The whole number of `key`; of an array, that of all of its elements.
    ///
    /// # Errors
    /// If it is something else, or layers differ.
    pub(super) fn find_number(self, key: &str) -> Result<Option<u64>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let number = match value {
            Value::Array(Array::Numbers(numbers)) => {
                let mut values = numbers.values().map(|value| value.as_u64());
                let first = values.next().flatten();
                first.filter(|_| values.all(|value| value == first))
            }
            value => value.as_u64(),
        };
        let problem = "is not a whole number, or layers differ in it";
        number.map(Some).ok_or_else(|| self.bad(key, problem))
    }

    /// The same of a key that must be there.
    ///
    /// # Errors
    /// Also if it is not.
    pub(super) fn number(self, key: &str) -> Result<u64> {
        let number = self.find_number(key)?;
        number.ok_or_else(|| self.bad(key, "is missing"))
    }

    /// The floating-point number of `key`.
    ///
    /// # Errors
    /// If it is something else, or not finite.
    pub(super) fn find_float(self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let float = value.as_f64().filter(|float| float.is_finite());
        let problem = "is not a finite floating-point number";
        float.map(Some).ok_or_else(|| self.bad(key, problem))
    }

    /// The same of a key that must be there.
    ///
    /// # Errors
    /// Also if it is not.
    pub(super) fn float(self, key: &str) -> Result<f64> {
        let float = self.find_float(key)?;
        float.ok_or_else(|| self.bad(key, "is missing"))
    }

    /// The text of `key`.
    ///
    /// # Errors
    /// If it is something else.
    pub(super) fn find_text(self, key: &str) -> Result<Option<&'a str>> {
        let value = self.get(key);
        value
            .map(|value| value.as_str().ok_or_else(|| self.bad(key, "is not a text")))
            .transpose()
    }

    /// The truth value of `key`.
    ///
    /// # Errors
    /// If it is something else.
    pub(super) fn find_bool(self, key: &str) -> Result<Option<bool>> {
        let value = self.get(key);
        let problem = "is neither true nor false";
        value
            .map(|value| value.as_bool().ok_or_else(|| self.bad(key, problem)))
            .transpose()
    }

    /// An error about the value of `key`.
    pub(super) fn bad(self, key: &str, problem: &str) -> Error {
        let problem = format!("{} {problem}", self.key(key));
        Error::of_file(Code::BadMetadata, self.model.file.location(), problem)
    }

    /// An error that no file for Hugging Face's libraries can be made of the metadata.
    pub(super) fn unmade(self, file: &str, problem: &str) -> Error {
        let problem = format!("{file} cannot be made of its metadata: {problem}");
        let error = Error::of_file(Code::UnknownGguf, self.model.file.location(), problem);
        error.with_hint(
            Hint::give_value(LIKE, "DIR")
                .to("take config and tokenizer from the directory of the original model"),
        )
    }
}

/// A number that was rounded to f32, as the shortest text that rounds to it.
pub(super) fn shortest(number: f64) -> serde_json::Value {
    let text = (number as f32).to_string();
    text.parse::<f64>()
        .map_or(serde_json::Value::Null, Into::into)
}
