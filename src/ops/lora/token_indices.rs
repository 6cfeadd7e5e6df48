//! Which rows of which embedding adapter_config.json says were trained by themselves.

use std::path::Path;

use serde_json::Value;

use crate::error::{Code, Error, Result};

pub(super) const SETTING: &str = "trainable_token_indices";

/// The rows that adapter_config.json names.
#[derive(Debug, Default)]
pub(super) struct TokenIndices(Vec<(Option<String>, Vec<u64>)>);

impl TokenIndices {
    pub(super) fn read(value: Option<&Value>, config: &Path) -> Result<Self> {
        let refuse = |problem: &str| {
            let problem = format!("{SETTING} {problem}");
            Error::of_file(Code::BadAdapter, config, problem)
        };
        let rows = |value: &Value| -> Result<Vec<u64>> {
            let numbers = value.as_array().map(|list| list.iter().map(Value::as_u64));
            let rows: Option<Vec<u64>> = numbers.and_then(Iterator::collect);
            let rows = rows.ok_or_else(|| refuse("is not a list of row numbers"))?;
            let mut sorted = rows.clone();
            sorted.sort_unstable();
            match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
                Some(pair) => Err(refuse(&format!("has {} twice", pair[0]))),
                None => Ok(rows),
            }
        };
        let lists = match value {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Object(modules)) => {
                let lists = modules.iter();
                let lists = lists.map(|(module, list)| Ok((Some(module.clone()), rows(list)?)));
                lists.collect::<Result<_>>()?
            }
            Some(list) => vec![(None, rows(list)?)],
        };
        let is_set = |(_, rows): &(Option<String>, Vec<u64>)| !rows.is_empty();
        Ok(TokenIndices(lists.into_iter().filter(is_set).collect()))
    }

    pub(super) fn are_none(&self) -> bool {
        self.0.is_empty()
    }

    /// The rows of the embedding at `path`, in the order in which the adapter has them.
    pub(super) fn of_module(&self, path: &str) -> Option<&[u64]> {
        let is_named = |name: &str| {
            let before = path.strip_suffix(name);
            before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
        };
        let mut lists = self.0.iter();
        let list = lists.find(|(name, _)| name.as_deref().is_none_or(is_named));
        list.map(|(_, rows)| rows.as_slice())
    }
}
