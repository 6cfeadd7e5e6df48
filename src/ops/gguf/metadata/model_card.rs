//! The front matter of README.md, as cards of models on the hub have it.

use indexmap::IndexMap;
use saphyr_parser::{Event, Parser};

use crate::format::gguf::Array;
use crate::ops::gguf::metadata::KeyWriter;
use crate::ops::gguf::metadata::model_name::{ModelName, titled};

/// What a card says of a model.
#[derive(Debug, Clone, Default)]
pub(super) struct ModelCard {
    pub author: Option<String>,
    pub description: Option<String>,
    fields: IndexMap<String, Field>,
}

/// A value of the front matter: texts, of which one alone is no list.
#[derive(Debug, Clone)]
struct Field {
    texts: Vec<String>,
    is_list: bool,
}

/// The longest front matter that is read.
const MAX_BYTES: usize = 1 << 20;

impl ModelCard {
    /// The card that begins `text`. What is not YAML, or nested deeper than a list, says nothing.
    pub(super) fn parse(text: &str) -> Self {
        let mut lines = text.lines();
        if lines.next() != Some("---") {
            return ModelCard::default();
        }
        let front: Vec<&str> = lines.take_while(|line| *line != "---").collect();
        let front = front.join("\n") + "\n";
        if front.len() > MAX_BYTES {
            return ModelCard::default();
        }
        let front = front.replace("- no\n", "- \"no\"\n").replace('\t', "  ");
        let mut card = ModelCard {
            fields: fields(&front).unwrap_or_default(),
            ..ModelCard::default()
        };
        card.author = card.one(&["author", "model_author", "model_creator"]);
        card.description = card.one(&["description", "model_description"]);
        card
    }

    /// The parts of the name that it says.
    pub(super) fn name(&self, _total: u64) -> ModelName {
        ModelName {
            full: self.one(&["name", "model_name"]),
            organization: self.one(&["organization", "model_organization"]),
            basename: self.one(&["basename", "model_basename", "model_type"]),
            finetune: self.one(&["finetune", "model_finetune"]),
            version: self.one(&["version", "model_version"]),
            size_label: self.one(&["size_label", "model_size_label"]),
        }
    }

    /// The keys that only a card has.
    pub(super) fn keys(&self, keys: &mut KeyWriter, total: u64) {
        if let Some(license) = self.fields.get("license") {
            keys.string("general.license", &license.texts.join(","));
        }
        for (key, fields) in [
            ("general.license.name", &["license_name"][..]),
            ("general.license.link", &["license_link"]),
            ("general.source.url", &["url", "model_url"]),
            ("general.source.doi", &["doi", "model_doi"]),
            ("general.source.uuid", &["uuid", "model_uuid"]),
            ("general.source.repo_url", &["repo_url", "model_repo_url"]),
        ] {
            keys.string(key, &self.one(fields).unwrap_or_default());
        }
        self.models(
            keys,
            "general.base_model",
            &["base_model", "base_models", "base_model_sources"],
            total,
        );
        self.models(
            keys,
            "general.dataset",
            &["datasets", "dataset", "dataset_sources"],
            total,
        );
        for (key, fields) in [
            ("general.tags", ["tags", "pipeline_tag"]),
            ("general.languages", ["languages", "language"]),
        ] {
            let texts = fields.iter().filter_map(|field| self.fields.get(*field));
            keys.array(key, texts.flat_map(|field| &field.texts).collect::<Array>());
        }
    }

    /// The first of `fields` that is there, and one text.
    fn one(&self, fields: &[&str]) -> Option<String> {
        let mut found = fields.iter().filter_map(|field| self.fields.get(*field));
        let field = found.find(|field| !field.is_list)?;
        field.texts.first().cloned()
    }

    /// The names of models or datasets on the hub, each as keys of its own.
    fn models(&self, keys: &mut KeyWriter, prefix: &str, fields: &[&str], total: u64) {
        let Some(field) = fields.iter().find_map(|field| self.fields.get(*field)) else {
            return;
        };
        keys.u32(&format!("{prefix}.count"), field.texts.len() as u64);
        for (i, id) in field.texts.iter().enumerate() {
            let mut set = |part: &str, value: Option<String>| {
                keys.string(&format!("{prefix}.{i}.{part}"), &value.unwrap_or_default());
            };
            let is_url = ["http://", "https://", "ssh://"]
                .iter()
                .any(|start| id.starts_with(start));
            if is_url {
                let hub = ["http://huggingface.co/", "https://huggingface.co/"].iter();
                let on_hub = hub.filter_map(|hub| id.strip_prefix(hub)).next();
                let on_hub = on_hub.filter(|id| id.matches('/').count() == 1 && !id.ends_with('/'));
                if let Some(on_hub) = on_hub {
                    let name = titled(on_hub, total);
                    set("name", name.full);
                    set("version", name.version);
                    set("organization", name.organization);
                }
                set("repo_url", Some(id.clone()));
            } else {
                let name = titled(id, total);
                let is_of_organization = name.organization.is_some();
                set("name", name.full);
                set("version", name.version);
                set("organization", name.organization);
                if is_of_organization {
                    set("repo_url", Some(format!("https://huggingface.co/{id}")));
                }
            }
        }
    }
}

/// The scalars and lists of scalars at the top of `yaml`, if it is a map.
fn fields(yaml: &str) -> Option<IndexMap<String, Field>> {
    let mut fields = IndexMap::new();
    let mut depth = 0;
    let mut key: Option<String> = None;
    let mut list: Option<Vec<String>> = None;
    for event in Parser::new_from_str(yaml) {
        let (event, _) = event.ok()?;
        match event {
            Event::MappingStart(..) => depth += 1,
            Event::SequenceStart(..) => {
                depth += 1;
                if depth == 2 && key.is_some() {
                    list = Some(Vec::new());
                }
            }
            Event::MappingEnd | Event::SequenceEnd => {
                depth -= 1;
                if depth == 1
                    && let Some(key) = key.take()
                    && let Some(texts) = list.take()
                {
                    let is_list = true;
                    fields.insert(key, Field { texts, is_list });
                }
            }
            Event::Scalar(text, ..) => match (depth, key.take()) {
                (1, None) => key = Some(text.into_owned()),
                (1, Some(key)) => {
                    let texts = vec![text.into_owned()];
                    let is_list = false;
                    fields.insert(key, Field { texts, is_list });
                }
                (2, of) => {
                    key = of;
                    if let Some(list) = &mut list {
                        list.push(text.into_owned());
                    }
                }
                (_, of) => key = of,
            },
            _ => {}
        }
    }
    Some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::gguf::Value;

    #[test]
    fn a_card_gives_license_models_and_tags() {
        let text = "---\nlicense: apache-2.0\nbase_model: HuggingFaceTB/SmolLM2-135M\n\
                    language:\n- en\n- no\nmodel-index:\n- name: x\n  results: []\n\
                    tags: [a, b]\npipeline_tag: text-generation\n---\n# Title\n";
        let card = ModelCard::parse(text);
        let mut keys = KeyWriter::new("llama");
        card.keys(&mut keys, 135_000_000);
        let keys = keys.finish();
        let text = |key: &str| keys[key].as_str().unwrap().to_owned();
        assert_eq!(text("general.license"), "apache-2.0");
        assert_eq!(keys["general.base_model.count"], Value::U32(1));
        assert_eq!(text("general.base_model.0.name"), "SmolLM2 135M");
        assert_eq!(text("general.base_model.0.organization"), "HuggingFaceTB");
        assert_eq!(
            text("general.base_model.0.repo_url"),
            "https://huggingface.co/HuggingFaceTB/SmolLM2-135M"
        );
        let tags: Array = ["a", "b", "text-generation"].into_iter().collect();
        assert_eq!(keys["general.tags"], Value::Array(tags));
        let languages: Array = ["en", "no"].into_iter().collect();
        assert_eq!(keys["general.languages"], Value::Array(languages));
    }

    #[test]
    fn what_is_no_card_says_nothing() {
        for text in [
            "",
            "# Title",
            "---\n- a\n---\n",
            "---\na: [\n---\n",
            "---\n{{{{\n",
        ] {
            let mut keys = KeyWriter::new("llama");
            ModelCard::parse(text).keys(&mut keys, 0);
            assert_eq!(keys.finish().len(), 1, "{text}");
        }
    }
}
