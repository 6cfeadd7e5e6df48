//! `--like`: config and tokenizer from another directory: of a GGUF model, rather than made of its metadata, and of a
//! training checkpoint, whose tensors it names too.

use crate::error::setting::LIKE;
use crate::error::{Code, Error, Hint, Result};
use crate::ops::{Conversions, Group, Operator, Params, Setting, Takes, Value};
use crate::source::Location;

/// Take config and tokenizer from this directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LikeParams {
    pub directory: Option<Location>,
}

impl Params for LikeParams {
    fn settings(&self) -> &'static [Setting] {
        &[Setting {
            key: LIKE,
            flag: "like",
            takes: Takes::Sources,
            group: Group::Sources,
            help: "Take config, tokenizer and all other files but weights from this directory, where the base is GGUF or a training checkpoint; the latter's tensors get its names",
            comment: "config and tokenizer of the base",
        }]
    }

    fn set(&mut self, _key: &str, value: Value) -> Result<()> {
        let (directory, _) = value.into_source();
        if self.directory.replace(directory).is_some() {
            let error = Error::new(Code::Conflict, "only one directory can be given");
            return Err(error.about(LIKE).with_hint(Hint::leave_out(LIKE)));
        }
        Ok(())
    }

    fn get(&self, _key: &str) -> Vec<Value> {
        self.directory.iter().map(Value::source).collect()
    }

    fn keeps_shards(&self) -> bool {
        true
    }

    /// What it asks for is done where the base is opened.
    fn operators(&self, _: &Conversions) -> Result<Vec<Box<dyn Operator>>> {
        Ok(Vec::new())
    }
}
