//! Lists of modules (those that stay as they are, and those that are quantized alike) follow the tensors of
//! these modules: to other names, into fused tensors and out of them, and away.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::Value;

use crate::catalog::{CONFIG_FILE, Catalog, Config};
use crate::error::{Code, Result, Warning};
use crate::quant::declared::{
    COMPRESSION_KEY, GROUPS_KEY, KEY, METHOD_KEY, MODELOPT_FILE, MODELOPT_KEY, SKIP_KEYS,
    TARGETS_KEY, TEXT_CONFIG, target_lists,
};
use crate::quant::skip_entries::{Entry, Fate, Moves};
use crate::source::AuxEntry;
use crate::text::listing;

/// What is done to the tensors that lists follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doing {
    /// They get other names: what cannot be found may have been meant.
    Renaming,
    /// They go, or become parts of others.
    Regrouping,
}

/// Has all lists of `catalog` follow `moves`, and warns of what cannot follow.
///
/// # Errors
/// If config.json cannot be edited.
pub(crate) fn follow(catalog: &mut Catalog, moves: &Moves, doing: Doing) -> Result<()> {
    if moves.changed().next().is_none() {
        return Ok(());
    }
    let mut following = Following {
        moves,
        doing,
        warnings: Vec::new(),
    };
    match catalog.config_mut() {
        Err(error) if doing == Doing::Renaming => {
            following.warnings.push(Warning::new(Code::ConfigNotUpdated, format!(
                "{CONFIG_FILE} cannot be read, and what it may say of modules keeps their old names: {error}"
            )));
        }
        Err(_) | Ok(None) => {}
        Ok(Some(config)) => {
            for outer in [&[KEY][..], &[COMPRESSION_KEY], &[TEXT_CONFIG, KEY]] {
                following.inside(config, CONFIG_FILE, outer)?;
            }
        }
    }
    following.other_file(catalog)?;
    catalog.report.warnings.extend(following.warnings);
    Ok(())
}

/// Has the lists of `catalog` name `module` too, whose weight was added and stays as it is: loaders would
/// take it for quantized. Where there is no list, what loaders do not quantize is as before.
///
/// # Errors
/// If config.json cannot be read or edited.
pub(crate) fn leave_alone(catalog: &mut Catalog, module: &str) -> Result<()> {
    if let Some(config) = catalog.config_mut()? {
        for path in [&[KEY][..], &[COMPRESSION_KEY], &[TEXT_CONFIG, KEY]] {
            let Some(declared) = config.get_at(path) else {
                continue;
            };
            for (key, list) in lists_without(&declared, module) {
                let path: Vec<&str> = path.iter().copied().chain([key]).collect();
                config.set_at(&path, &list)?;
            }
        }
    }
    let others = catalog.aux.iter().filter_map(|entry| match entry {
        AuxEntry::File { name, file } if name == MODELOPT_FILE => {
            file.read_all(Config::MAX_BYTES).ok()
        }
        AuxEntry::Edited { name, text, .. } if name == MODELOPT_FILE => Some(text.to_vec()),
        _ => None,
    });
    let others = others.filter_map(|text| serde_json::from_slice::<Value>(&text).ok());
    let lacks = |file: Value| !lists_without(&file[MODELOPT_KEY], module).is_empty();
    if others.into_iter().any(lacks) {
        let problem = format!(
            "the lists of modules in {MODELOPT_FILE} do not name {module}, which is not quantized"
        );
        let warning = Warning::new(Code::ConfigNotUpdated, problem);
        catalog.report.warnings.push(warning);
    }
    Ok(())
}

/// The lists of `declared` that do not name `module`, with it.
fn lists_without(declared: &Value, module: &str) -> Vec<(&'static str, Value)> {
    let lists = SKIP_KEYS.into_iter().filter_map(|key| {
        let list = declared.get(key)?.as_array()?;
        let mut texts = list.iter().filter_map(Value::as_str);
        if texts.any(|text| Entry::new(text).names(module)) {
            return None;
        }
        let with = list.iter().cloned().chain([module.into()]);
        Some((key, with.collect()))
    });
    lists.collect()
}

struct Following<'a> {
    moves: &'a Moves,
    doing: Doing,
    warnings: Vec<Warning>,
}

impl Following<'_> {
    /// The lists in the object at `outer` of `config`, a file called `file`.
    fn inside(&mut self, config: &mut Config, file: &str, outer: &[&str]) -> Result<()> {
        let Some(declared) = config.get_at(outer) else {
            return Ok(());
        };
        for (path, list) in self.lists(&declared, file, &outer.join(".")) {
            let path: Vec<&str> = outer.iter().copied().chain(path).collect();
            config.set_at(&path, &list)?;
        }
        Ok(())
    }

    /// The lists of another tool's file.
    fn other_file(&mut self, catalog: &mut Catalog) -> Result<()> {
        let mut aux = catalog.aux.iter_mut();
        let Some(entry) = aux.find(|entry| entry.name() == MODELOPT_FILE) else {
            return Ok(());
        };
        let (file, text) = match &*entry {
            AuxEntry::File { file, .. } => (file.clone(), file.read_all(Config::MAX_BYTES)),
            AuxEntry::Edited { file, text, .. } => (file.clone(), Ok(text.to_vec())),
            AuxEntry::Directory { .. } => return Ok(()),
        };
        // What cannot be read says nothing to others either.
        let Ok(mut config) = text.and_then(|text| Config::parse(&text, file.clone())) else {
            return Ok(());
        };
        self.inside(&mut config, MODELOPT_FILE, &[MODELOPT_KEY])?;
        if let Some(text) = config.edited_text() {
            *entry = AuxEntry::Edited {
                name: MODELOPT_FILE.into(),
                file,
                text: Arc::new(text.into_bytes()),
            };
            let note = format!("{MODELOPT_FILE}: its lists of modules follow the tensors");
            catalog.report.notes.push(note);
        }
        Ok(())
    }

    /// The lists of `declared`, which is at `outer` of `file`, that are others now, by the keys that
    /// lead to each.
    fn lists<'a>(
        &mut self,
        declared: &'a Value,
        file: &str,
        outer: &str,
    ) -> Vec<(Vec<&'a str>, Value)> {
        let mut lists = Vec::new();
        for (path, list) in skip_lists(declared).chain(target_lists(declared)) {
            if let Some(list) = self.list(list, file, &path.join(".")) {
                lists.push((path, list));
            }
        }
        if self.doing == Doing::Renaming {
            self.warn_of_others(declared, file, outer);
        }
        lists
    }

    /// `list`, which `key` has, if it is another one now.
    fn list(&mut self, list: &[Value], file: &str, key: &str) -> Option<Value> {
        let texts = list.iter().filter_map(Value::as_str);
        let texts: Vec<&str> = texts.filter(|text| !text.is_empty()).collect();
        let mut fates = self.moves.fates(&texts).into_iter();
        let (mut parted, mut unknown) = (Vec::new(), Vec::new());
        let mut new: Vec<Value> = Vec::with_capacity(list.len());
        let mut push = |entry: Value| {
            // Several may have become one.
            if !list.contains(&entry) && new.contains(&entry) {
                return;
            }
            new.push(entry);
        };
        for entry in list {
            let Some(text) = entry.as_str().filter(|text| !text.is_empty()) else {
                push(entry.clone());
                continue;
            };
            match fates.next().expect("each text has a fate") {
                Fate::Same => push(entry.clone()),
                Fate::To(names) => names.into_iter().for_each(|name| push(name.into())),
                Fate::Gone => {}
                Fate::Parted => {
                    parted.push(text);
                    push(entry.clone());
                }
                Fate::Unknown => {
                    if self.doing == Doing::Renaming && text != "lm_head" {
                        unknown.push(text);
                    }
                    push(entry.clone());
                }
            }
        }
        for (modules, why) in [
            (
                parted,
                "whose tensors are in modules now that others are in too",
            ),
            (unknown, "that no tensor of this view belongs to"),
        ] {
            if !modules.is_empty() {
                let problem = format!(
                    "{key} in {file} keeps the names of modules {why}: {}",
                    listing(&modules)
                );
                self.warnings
                    .push(Warning::new(Code::ConfigNotUpdated, problem));
            }
        }
        (new != list).then_some(Value::Array(new))
    }

    /// Warns of what else of a method that is not known may name modules.
    fn warn_of_others(&mut self, declared: &Value, file: &str, outer: &str) {
        let method = declared.get(METHOD_KEY).unwrap_or(&Value::Null);
        let Some(members) = declared.as_object().filter(|_| method != "fp8") else {
            return;
        };
        let changed = self.moves.changed();
        let changed: HashSet<&str> = changed.flat_map(|name| name.split('.')).collect();
        let others = members
            .iter()
            .filter(|(key, _)| !SKIP_KEYS.contains(&key.as_str()));
        let naming = others.filter(|(key, value)| match key.as_str() {
            GROUPS_KEY => may_name(&without_targets(value), &changed),
            _ => may_name(value, &changed),
        });
        let naming: Vec<&str> = naming.map(|(key, _)| key.as_str()).collect();
        if !naming.is_empty() {
            let problem = format!(
                "{outer} in {file} declares {METHOD_KEY} {method}, and what may be names of modules in it stays the old names: {}",
                listing(&naming)
            );
            self.warnings
                .push(Warning::new(Code::ConfigNotUpdated, problem));
        }
    }
}

/// The lists of modules that stay as they are, by their keys.
fn skip_lists(declared: &Value) -> impl Iterator<Item = (Vec<&str>, &Vec<Value>)> {
    let lists = SKIP_KEYS.into_iter();
    lists.filter_map(|key| Some((vec![key], declared.get(key)?.as_array()?)))
}

/// `groups` less their targets.
fn without_targets(groups: &Value) -> Value {
    let mut groups = groups.clone();
    for group in groups
        .as_object_mut()
        .into_iter()
        .flat_map(|g| g.values_mut())
    {
        if let Some(group) = group.as_object_mut() {
            group.remove(TARGETS_KEY);
        }
    }
    groups
}

/// Whether a text in `value`, or a key, looks like a path or a pattern of paths, and has a word in it that
/// is among `parts` of names.
fn may_name(value: &Value, parts: &HashSet<&str>) -> bool {
    let is_name = |text: &str| {
        let words = text.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        let mut words = words.filter(|word| word.len() > 2 && !word.starts_with(char::is_numeric));
        text.contains(['.', '*']) && words.any(|word| parts.contains(word))
    };
    match value {
        Value::String(text) => is_name(text),
        Value::Array(values) => values.iter().any(|value| may_name(value, parts)),
        Value::Object(members) => members
            .iter()
            .any(|(key, value)| is_name(key) || may_name(value, parts)),
        _ => false,
    }
}
