//! The checkpoint that a graft takes tensors from, and which of them.

use crate::catalog::{Opened, Tensor};
use crate::error::setting::GRAFT;
use crate::error::{Code, Error, Result};
use crate::ops::numbers::Numbers;
use crate::ops::open;
use crate::ops::pattern::Pattern;
use crate::quant::companions;
use crate::source::Location;
use crate::tensor::Name;

/// A checkpoint, and which of its tensors may replace others.
#[derive(Debug)]
pub(super) struct GraftSource {
    pub checkpoint: Opened,
    /// All without one.
    pub names: Option<Pattern>,
}

/// What later steps do to quantized weights.
#[derive(Debug, Clone, Copy)]
pub(super) struct Afterwards {
    /// Every one is converted to numbers.
    pub dequantizes: bool,
    /// Others are quantized too, and listed again.
    pub quantizes: bool,
}

impl GraftSource {
    /// The tensors of `location`, a directory or a single file, whose whole name `names` matches; those of
    /// GGUF as these `numbers`.
    ///
    /// # Errors
    /// If it cannot be read, or `names` is not a regular expression.
    pub(super) fn open(
        location: &Location,
        names: Option<&str>,
        numbers: &Numbers,
    ) -> Result<Self> {
        let names = names.map(|names| Pattern::new(GRAFT, names));
        Ok(GraftSource {
            checkpoint: open::tensors(location, numbers)?,
            names: names.transpose()?,
        })
    }

    /// As the request has it, for messages: `DIR`, or `DIR:REGEX`.
    pub(super) fn text(&self) -> String {
        let path = self.checkpoint.path.display();
        match &self.names {
            Some(names) => format!("{path}:{}", names.text()),
            None => path.to_string(),
        }
    }

    /// The tensor `name` of the checkpoint, at `home`.
    pub(super) fn tensor(&self, name: &str, home: Option<usize>) -> (Name, Tensor) {
        let found = self.checkpoint.tensors.get_key_value(name);
        let (name, tensor) = found.expect("a graft is asked for its own tensors");
        let tensor = Tensor {
            home,
            ..tensor.clone()
        };
        (name.clone(), tensor)
    }

    /// An error about the tensor `name` of the graft.
    pub(super) fn error(&self, code: Code, name: &str, problem: String) -> Error {
        let file = self.checkpoint.tensor(name).map(Tensor::origin);
        let file = file.map_or(&*self.checkpoint.path, |location| &**location);
        Error::of_tensor(code, file, name, problem).about_value(GRAFT, self.text())
    }

    /// The companions of `weight` that the graft has.
    pub(super) fn companions(&self, weight: &str) -> Vec<String> {
        let companions = companions(weight);
        companions
            .filter(|name| self.checkpoint.tensors.contains_key(&**name))
            .collect()
    }

    /// The pattern of the names, for messages.
    pub(super) fn names(&self) -> &str {
        self.names.as_ref().map_or(".*", Pattern::text)
    }
}
