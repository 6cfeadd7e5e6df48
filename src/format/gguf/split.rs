//! Names of split files: `NAME-00001-of-00003.gguf`.

use std::sync::LazyLock;

use regex::Regex;

/// The name of one of several files that together are a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitName {
    /// What all of them begin with.
    pub stem: String,
    /// From 1.
    pub number: u32,
    pub count: u32,
}

impl SplitName {
    /// The split file that `name` is of, if it is one.
    pub fn parse(name: &str) -> Option<Self> {
        static SPLIT: LazyLock<Regex> = LazyLock::new(|| {
            Regex::new(r"^(.*)-([0-9]{5})-of-([0-9]{5})\.gguf$").expect("a valid expression")
        });
        let parts = SPLIT.captures(name)?;
        Some(SplitName {
            stem: parts[1].to_owned(),
            number: parts[2].parse().ok()?,
            count: parts[3].parse().ok()?,
        })
    }
}

/// The name of split file `number` (from 1) of `count`.
pub fn split_name(stem: &str, number: u32, count: u32) -> String {
    format!("{stem}-{number:05}-of-{count:05}.gguf")
}
