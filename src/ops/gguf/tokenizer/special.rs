//! Special tokens: which id has which part, and which of them are put around a text. The rules are those of
//! `SpecialVocab` of gguf-py.

use serde_json::{Map, Value as Json};

use crate::error::{Code, Error, Result};
use crate::format::gguf::Array;
use crate::ops::gguf::files::Files;
use crate::ops::gguf::metadata::KeyWriter;
use crate::ops::gguf::tokenizer::template::{self, Templates};

/// The parts that tokens play, in the order in which they are looked up.
const PARTS: [&str; 7] = ["bos", "eos", "unk", "sep", "pad", "cls", "mask"];

/// What is found.
#[derive(Debug, Default)]
pub(super) struct Special {
    /// By part, in the order in which they were found.
    ids: Vec<(String, u64)>,
    added: Vec<(String, bool)>,
    templates: Option<Templates>,
    lowercase: Option<bool>,
    strip_accents: Option<bool>,
    /// Parts that are looked up.
    parts: Vec<String>,
}

impl Special {
    /// Those of a tokenizer.json, a tokenizer_config.json and a config.json; ids from `count` on are none.
    pub(super) fn find(
        tokenizer: Option<&Map<String, Json>>,
        tokenizer_config: Option<&Map<String, Json>>,
        config: &Map<String, Json>,
        files: Files,
        count: Option<u64>,
    ) -> Result<Self> {
        let mut special = Special {
            parts: PARTS.map(str::to_owned).to_vec(),
            ..Special::default()
        };
        let mut tokenizer_config = tokenizer_config.cloned();
        if let Some(tokenizer) = tokenizer {
            special.of_normalizer(tokenizer.get("normalizer"));
            special.of_post_processor(tokenizer, &mut tokenizer_config);
        }
        if let Some(tokenizer_config) = &tokenizer_config {
            special.templates = template::find(tokenizer_config, files)?;
            let added = tokenizer.and_then(|tokenizer| tokenizer.get("added_tokens"));
            special.of_config(tokenizer_config, added, count);
        }
        for part in special.parts.clone() {
            let key = format!("{part}_token_id");
            let of_text = || config.get("text_config")?.get(&key);
            let id = config.get(&key).filter(|id| !id.is_null()).or_else(of_text);
            if let Some(id) = id.and_then(Json::as_i64) {
                let id = u64::try_from(id).map_err(|_| {
                    let problem = format!("{key} is {id}, which is no id");
                    Error::of_file(
                        Code::BadConfig,
                        files.directory().join("config.json"),
                        problem,
                    )
                })?;
                special.id(&part, id, count);
            }
        }
        Ok(special)
    }

    fn id(&mut self, part: &str, id: u64, count: Option<u64>) {
        let is_there = self.ids.iter().any(|(known, _)| known == part);
        if !is_there && count.is_none_or(|count| id < count) {
            self.ids.push((part.to_owned(), id));
        }
    }

    fn add(&mut self, part: &str, value: bool) {
        match self.added.iter_mut().find(|(known, _)| known == part) {
            Some((_, known)) => *known = value,
            None => self.added.push((part.to_owned(), value)),
        }
    }

    fn is_decided(&self, part: &str) -> bool {
        self.added.iter().any(|(known, _)| known == part)
    }

    fn of_normalizer(&mut self, normalizer: Option<&Json>) {
        // As deep as JSON may be, which is bounded where it is read.
        let Some(normalizer) = normalizer else {
            return;
        };
        let flag = |key: &str| normalizer.get(key).and_then(Json::as_bool);
        match normalizer.get("type").and_then(Json::as_str) {
            Some("Lowercase") => self.lowercase = Some(true),
            Some("StripAccents") => self.strip_accents = Some(true),
            Some("BertNormalizer") => {
                self.lowercase = flag("lowercase").or(self.lowercase);
                self.strip_accents = flag("strip_accents").or(self.strip_accents);
            }
            Some("Sequence") => {
                let inner = normalizer.get("normalizers").and_then(Json::as_array);
                inner
                    .into_iter()
                    .flatten()
                    .for_each(|inner| self.of_normalizer(Some(inner)));
            }
            _ => {}
        }
    }

    /// What the tokenizer puts around a text. It may name tokens that tokenizer_config.json does not.
    fn of_post_processor(
        &mut self,
        tokenizer: &Map<String, Json>,
        tokenizer_config: &mut Option<Map<String, Json>>,
    ) {
        let mut roles = Roles {
            bos: role(tokenizer_config, "bos_token"),
            cls: role(tokenizer_config, "cls_token"),
            eos: role(tokenizer_config, "eos_token"),
            sep: role(tokenizer_config, "sep_token"),
        };
        if let Some(config) = tokenizer_config {
            if roles.bos.is_none() && roles.cls.is_some() {
                set(config, "bos_token", &roles.cls);
                roles.bos.clone_from(&roles.cls);
            }
            if roles.eos.is_none() && roles.sep.is_some() {
                set(config, "eos_token", &roles.sep);
                roles.eos.clone_from(&roles.sep);
            }
        }
        let Some(processor) = tokenizer.get("post_processor").filter(|p| !p.is_null()) else {
            return;
        };
        let all = processor.get("processors").and_then(Json::as_array);
        let all = all.map_or(std::slice::from_ref(processor), Vec::as_slice);
        for processor in all {
            match processor.get("type").and_then(Json::as_str) {
                Some("ByteLevel") => {
                    for part in ["bos", "eos"] {
                        if !self.is_decided(part) {
                            self.add(part, false);
                        }
                    }
                }
                Some("RobertaProcessing") => {
                    for part in ["bos", "eos", "sep"] {
                        self.add(part, true);
                    }
                    if let Some(config) = tokenizer_config {
                        let token = |key: &str| processor.get(key)?.get(0).cloned();
                        if roles.cls.is_none() {
                            roles.cls = token("cls").or(roles.bos.clone());
                            set(config, "cls_token", &roles.cls);
                        }
                        if roles.sep.is_none() {
                            roles.sep = token("sep").or(roles.eos.clone());
                            set(config, "sep_token", &roles.sep);
                        }
                    }
                }
                Some("TemplateProcessing") => {
                    self.of_template(processor, tokenizer_config, &mut roles)
                }
                _ => {}
            }
        }
    }

    fn of_template(
        &mut self,
        processor: &Json,
        tokenizer_config: &mut Option<Map<String, Json>>,
        roles: &mut Roles,
    ) {
        let list = |key: &str| {
            processor
                .get(key)
                .and_then(Json::as_array)
                .map_or(&[][..], Vec::as_slice)
        };
        let (single, pair) = (list("single"), list("pair"));
        let token = |entry: &Json| entry.get("SpecialToken")?.get("id").cloned();
        let (mut first, mut last) = (None, None);
        if let [start, .., end] = single {
            first = token(start);
            last = token(end);
        }
        if first.is_some() {
            match tokenizer_config {
                None => roles.bos.clone_from(&first),
                Some(config) if first != roles.bos && first != roles.cls => {
                    if roles.bos.is_none() {
                        roles.bos.clone_from(&first);
                        set(config, "bos_token", &first);
                    }
                    if roles.cls.is_none() {
                        roles.cls.clone_from(&first);
                        set(config, "cls_token", &first);
                    }
                }
                Some(_) => {}
            }
            self.add("bos", first == roles.bos || first == roles.cls);
        }
        if last.is_some() {
            match tokenizer_config {
                None => roles.eos.clone_from(&last),
                Some(config) if last != roles.eos => {
                    // What was the end of a sequence is that of a turn or a message.
                    for part in ["eot", "eom"] {
                        if !self.parts.iter().any(|known| known == part) {
                            self.parts.push(part.to_owned());
                            set(config, &format!("{part}_token"), &roles.eos);
                            break;
                        }
                    }
                    roles.eos.clone_from(&last);
                    set(config, "eos_token", &last);
                }
                Some(_) => {}
            }
            self.add("eos", last == roles.eos);
        }
        self.of_pair(
            pair,
            (first.as_ref(), last.as_ref()),
            tokenizer_config,
            roles,
        );
    }

    /// Whether there is a separator between two texts.
    fn of_pair(
        &mut self,
        pair: &[Json],
        (first, last): (Option<&Json>, Option<&Json>),
        tokenizer_config: &mut Option<Map<String, Json>>,
        roles: &Roles,
    ) {
        let token = |entry: &Json| entry.get("SpecialToken")?.get("id").cloned();
        let mut pair = pair;
        if let Some(first) = first
            && let [start, rest @ ..] = pair
            && token(start).as_ref() == Some(first)
        {
            pair = rest;
        }
        if let Some(last) = last
            && let [rest @ .., end] = pair
            && token(end).as_ref() == Some(last)
        {
            pair = rest;
        }
        let sequence = |entry: &Json| {
            entry
                .get("Sequence")?
                .get("id")?
                .as_str()
                .map(str::to_owned)
        };
        let [a, between @ .., b] = pair else {
            return;
        };
        if sequence(a).as_deref() != Some("A")
            || sequence(b).as_deref() != Some("B")
            || between.is_empty()
        {
            return;
        }
        let is_separator = |entry: &Json| {
            let token = token(entry);
            token.is_some() && (token == roles.sep || token == roles.eos)
        };
        let mut adds = is_separator(&between[0]) && last.is_none();
        if let [_, second] = between {
            adds |= is_separator(second);
        }
        self.add("sep", adds);
        if adds
            && roles.sep.is_none()
            && let Some(config) = tokenizer_config
        {
            set(config, "sep_token", &roles.eos);
        }
    }

    fn of_config(&mut self, config: &Map<String, Json>, added: Option<&Json>, count: Option<u64>) {
        let added = added
            .and_then(Json::as_array)
            .map_or(&[][..], Vec::as_slice);
        for part in self.parts.clone() {
            if let Some(Json::Bool(value)) = config.get(&format!("add_{part}_token"))
                && !self.is_decided(&part)
            {
                self.add(&part, *value);
            }
            let content = match config.get(&format!("{part}_token")) {
                Some(Json::String(content)) => content,
                Some(Json::Object(token)) => match token.get("content") {
                    Some(Json::String(content)) => content,
                    _ => continue,
                },
                _ => continue,
            };
            let found = added
                .iter()
                .find(|token| token.get("content").and_then(Json::as_str) == Some(content));
            if let Some(id) = found.and_then(|token| token.get("id")?.as_u64()) {
                self.id(&part, id, count);
            }
        }
    }

    /// Writes the keys, after those of the `merges`.
    pub(super) fn write(&self, keys: &mut KeyWriter, merges: &[String]) -> Result<()> {
        keys.array("tokenizer.ggml.merges", merges.iter().collect::<Array>());
        for (part, id) in &self.ids {
            let name = match &**part {
                "unk" => "unknown",
                "sep" => "seperator",
                "pad" => "padding",
                // llama.cpp has no key for it.
                "cls" => continue,
                other => other,
            };
            keys.u32(&format!("tokenizer.ggml.{name}_token_id"), *id);
        }
        for (part, value) in &self.added {
            if ["bos", "eos", "sep"].contains(&&**part) {
                keys.bool(&format!("tokenizer.ggml.add_{part}_token"), *value);
            }
        }
        if let Some(templates) = &self.templates {
            templates.write(keys);
        }
        if let Some(value) = self.lowercase {
            keys.bool("tokenizer.ggml.normalizer.lowercase", value);
        }
        if let Some(value) = self.strip_accents {
            keys.bool("tokenizer.ggml.normalizer.strip_accents", value);
        }
        Ok(())
    }
}

/// The tokens that have a part at the ends of texts.
struct Roles {
    bos: Option<Json>,
    cls: Option<Json>,
    eos: Option<Json>,
    sep: Option<Json>,
}

/// The token that a config names, unless it is empty or null.
fn role(config: &Option<Map<String, Json>>, key: &str) -> Option<Json> {
    let token = config.as_ref()?.get(key)?;
    let is_empty = token.is_null() || token.as_str() == Some("");
    (!is_empty).then(|| token.clone())
}

fn set(config: &mut Map<String, Json>, key: &str, token: &Option<Json>) {
    if let Some(token) = token {
        config.insert(key.to_owned(), token.clone());
    }
}
