//! Chat templates: one, or several with names.

use serde_json::{Map, Value as Json};

use crate::error::Result;
use crate::format::gguf::Array;
use crate::ops::gguf::files::Files;
use crate::ops::gguf::metadata::KeyWriter;

/// What there is.
#[derive(Debug)]
pub(super) enum Templates {
    One(String),
    /// Each with its name.
    Named(Vec<(String, String)>),
}

/// Those of tokenizer_config.json, else chat_template.jinja, else chat_template.json.
pub(super) fn find(
    tokenizer_config: &Map<String, Json>,
    files: Files,
) -> Result<Option<Templates>> {
    if let Some(json) = tokenizer_config.get("chat_template") {
        return Ok(parse(json));
    }
    if let Some(text) = files.text("chat_template.jinja")? {
        let more = files.texts_in("additional_chat_templates", "jinja")?;
        if more.is_empty() {
            return Ok(Some(Templates::One(text)));
        }
        let mut named = vec![("default".to_owned(), text)];
        named.extend(more);
        return Ok(Some(Templates::Named(named)));
    }
    let json = files.object("chat_template.json")?;
    Ok(json.and_then(|json| parse(json.get("chat_template")?)))
}

fn parse(json: &Json) -> Option<Templates> {
    match json {
        Json::String(text) => Some(Templates::One(text.clone())),
        Json::Array(list) => {
            let named = list.iter().filter_map(|entry| {
                let name = entry.get("name").and_then(Json::as_str)?;
                let template = entry.get("template").and_then(Json::as_str)?;
                Some((name.to_owned(), template.to_owned()))
            });
            Some(Templates::Named(named.collect()))
        }
        _ => None,
    }
}

impl Templates {
    pub(super) fn write(&self, keys: &mut KeyWriter) {
        let named = match self {
            Templates::One(text) => return keys.string("tokenizer.chat_template", text),
            Templates::Named(named) => named,
        };
        let mut names: Vec<String> = Vec::new();
        let mut default = None;
        for (name, template) in named {
            let is_plain = |c: char| c.is_ascii_alphanumeric();
            let name: String = name
                .chars()
                .map(|c| if is_plain(c) { c } else { '_' })
                .collect();
            if name.is_empty() {
                continue;
            }
            if name == "default" {
                default = Some(template);
                continue;
            }
            keys.string(&format!("tokenizer.chat_template.{name}"), template);
            if !names.contains(&name) {
                names.push(name);
            }
        }
        keys.array("tokenizer.chat_templates", names.iter().collect::<Array>());
        if let Some(template) = default {
            keys.string("tokenizer.chat_template", template);
        }
    }
}
