//! The template of chats that the tokenizer of a merge has.

use std::ffi::OsString;
use std::sync::Arc;

use serde_json::Value;

use crate::catalog::Catalog;
use crate::error::{Code, Error, Result};
use crate::ops::merge::definition::{ChatTemplate, ModelId};
use crate::ops::merge::inputs::Source;
use crate::ops::merge::vocabulary::bytes;
use crate::source::{AuxEntry, Derived, not_json};

/// Templates by name. They render what mergekit's templates of these names do, line breaks and
/// indentation too.
const NAMED: [(&str, &str); 5] = [
    ("alpaca", include_str!("chat_templates/alpaca.jinja")),
    ("chatml", include_str!("chat_templates/chatml.jinja")),
    ("exaone", include_str!("chat_templates/exaone.jinja")),
    ("llama3", include_str!("chat_templates/llama3.jinja")),
    ("mistral", include_str!("chat_templates/mistral.jinja")),
];

const TEMPLATE_FILE: &str = "chat_template.jinja";
const CONFIG_FILE: &str = "tokenizer_config.json";

impl ChatTemplate {
    /// What `text` asks for: `auto`, a name, or a template.
    ///
    /// # Errors
    /// If it is none of these; the caller says where.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        if text == "auto" {
            return Ok(ChatTemplate::MostCommon);
        }
        if let Some((_, template)) = NAMED.iter().find(|(name, _)| *name == text) {
            // Files end with a line break, and templates need not.
            let template = template.strip_suffix('\n').unwrap_or(template);
            return Ok(ChatTemplate::Text(template.to_owned()));
        }
        if text.len() < 20 || !text.contains('{') {
            let names: Vec<&str> = NAMED.iter().map(|(name, _)| *name).collect();
            return Err(format!(
                "chat_template is {text:?}, expected auto, {}, or a template of Jinja of 20 characters or more",
                names.join(", ")
            ));
        }
        Ok(ChatTemplate::Text(text.to_owned()))
    }

    /// The text, if there is one: no model may have a template.
    pub(super) fn text(&self, models: &[ModelId], sources: &[Source]) -> Result<Option<String>> {
        let ChatTemplate::MostCommon = self else {
            let ChatTemplate::Text(text) = self else {
                unreachable!("there are two kinds");
            };
            return Ok(Some(text.clone()));
        };
        let mut counts: Vec<(String, usize)> = Vec::new();
        for model in models {
            let Some(template) = of_model(&sources[*model])? else {
                continue;
            };
            let template = template.trim();
            match counts.iter_mut().find(|(known, _)| known == template) {
                Some((_, count)) => *count += 1,
                None => counts.push((template.to_owned(), 1)),
            }
        }
        // The first of those that are equally common.
        let most = counts.into_iter().rev().max_by_key(|(_, count)| *count);
        Ok(most.map(|(template, _)| template))
    }
}

/// The template of a model: that of its own file, or that in tokenizer_config.json.
fn of_model(source: &Source) -> Result<Option<String>> {
    let path = |name: &str| source.catalog.report.sources[0].path.join(name);
    if let Some(text) = bytes(source, TEMPLATE_FILE)? {
        let text = String::from_utf8(text).map_err(|_| {
            Error::of_file(Code::BadTokenizer, path(TEMPLATE_FILE), "not valid UTF-8")
        })?;
        return Ok(Some(text).filter(|text| !text.is_empty()));
    }
    let Some(text) = bytes(source, CONFIG_FILE)? else {
        return Ok(None);
    };
    let config: Value = parsed(&text, &path(CONFIG_FILE))?;
    let template = match config.get("chat_template") {
        Some(Value::Array(named)) => {
            let mut named = named.iter();
            let default = named.find(|entry| entry["name"] == "default");
            default.and_then(|entry| entry["template"].as_str())
        }
        Some(template) => template.as_str(),
        None => None,
    };
    let template = template.filter(|template| !template.is_empty());
    Ok(template.map(str::to_owned))
}

fn parsed(text: &[u8], path: &std::path::Path) -> Result<Value> {
    serde_json::from_slice(text).map_err(|e| {
        let problem = format!("not valid JSON: {}", not_json(text, &e));
        Error::of_file(Code::BadTokenizer, path, problem)
    })
}

/// Gives the tokenizer among the files of `catalog` this template: in a file of its own, and in
/// tokenizer_config.json, where older loaders look.
pub(super) fn set(catalog: &mut Catalog, template: &str) -> Result<()> {
    const MOST_BYTES: u64 = 128 << 20;
    let others = ["chat_template.json", "additional_chat_templates"];
    catalog
        .aux
        .retain(|entry| !others.iter().any(|other| entry.name() == *other));
    let config = catalog
        .aux
        .iter_mut()
        .find(|entry| entry.name() == CONFIG_FILE);
    let Some(entry) = config else {
        let problem = "chat_template needs it, and there is no such file";
        let path = catalog.report.sources.first();
        let path = path.map(|source| source.path.join(CONFIG_FILE));
        let path = path.unwrap_or_else(|| CONFIG_FILE.into());
        return Err(Error::of_file(Code::BadTokenizer, path, problem));
    };
    let (file, text) = match entry {
        AuxEntry::File { file, .. } => (file.clone(), file.read_all(MOST_BYTES)?),
        AuxEntry::Edited { file, text, .. } => (file.clone(), text.to_vec()),
        AuxEntry::Directory { .. } => return Ok(()),
    };
    let mut config = parsed(&text, file.location())?;
    let Some(object) = config.as_object_mut() else {
        let problem = "not a JSON object";
        return Err(Error::of_file(Code::BadTokenizer, file.location(), problem));
    };
    object.insert("chat_template".to_owned(), Value::from(template));
    *entry = AuxEntry::Edited {
        name: OsString::from(CONFIG_FILE),
        file: file.clone(),
        text: Arc::new(format!("{config:#}\n").into_bytes()),
    };
    let made = Derived::new(file, TEMPLATE_FILE, template.as_bytes().to_vec());
    let made = AuxEntry::File {
        name: OsString::from(TEMPLATE_FILE),
        file: Arc::new(made),
    };
    catalog.aux.retain(|entry| entry.name() != TEMPLATE_FILE);
    catalog.aux.push(made);
    catalog.aux.sort_by(|a, b| a.name().cmp(b.name()));
    Ok(())
}
