//! `view` of a recipe: what follows the merge, or the base.

use crate::error::setting::SHARDS;
use crate::error::{Code, Place, Result};
use crate::layout::Shards;
use crate::ops::merge::Scalar;
use crate::ops::{self, Operations, Section, Setting, Takes, named_file, short};
use crate::recipe::models::{ModelPath, Reference};
use crate::recipe::request::SHARDS_SETTING;
use crate::recipe::yaml::{Fields, Node, Value};
use crate::size::parse_size;

/// What stands under `view`.
#[derive(Debug, Default)]
pub(super) struct ViewSection {
    /// Directories of models, by what the recipe calls them.
    pub models: Vec<(String, String)>,
    pub truncate_embeddings: Option<Place>,
    pub seed: Option<(u64, Place)>,
    /// What is asked of the operators, but for the sources.
    pub operations: Operations,
    pub sources: Vec<AskedSource>,
    pub shards: Option<Shards>,
    pub shard_bytes: Option<u64>,
}

/// A source that a setting of an operator names.
#[derive(Debug)]
pub(super) struct AskedSource {
    /// The key of the setting.
    pub key: &'static str,
    pub reference: Reference,
    pub place: Place,
    pub weight: f64,
    pub names: Option<String>,
}

impl ViewSection {
    pub(super) fn parse(node: &Node) -> Result<Self> {
        let mut section = ViewSection::default();
        let operators: Vec<_> = section
            .operations
            .each()
            .map(|params| (params.section(), params.settings()))
            .collect();
        let mut keys = vec!["models", "truncate_embeddings", "seed"];
        for (map, settings) in &operators {
            match map {
                Some(map) => keys.extend(std::iter::once(map.key).chain(map.former_key)),
                None => keys.extend(settings.iter().map(|setting| setting.key)),
            }
        }
        keys.extend([SHARDS, "repack", "single_file", "shard_size"]);
        let fields = Fields::new(node, "view", &keys)?;
        if let Some(node) = fields.get("models") {
            for (id, directory) in node.map("models")? {
                let directory = directory.text("a directory of models")?;
                section.models.push((id.text.clone(), directory.to_owned()));
            }
        }
        if let Some(node) = fields.get("truncate_embeddings")
            && node.bool("truncate_embeddings")?
        {
            section.truncate_embeddings = Some(node.place.clone());
        }
        if let Some(node) = fields.get("seed") {
            let seed = node.whole();
            let bad = || node.expected("seed", "a whole number that is not negative");
            section.seed = Some((seed.ok_or_else(bad)?, node.place.clone()));
        }
        for (map, settings) in operators {
            match map {
                Some(map) => {
                    let former = map.former_key.and_then(|key| fields.get(key));
                    let nodes = (fields.get(map.key), former);
                    if let (Some(_), Some(former)) = nodes {
                        let problem = format!(
                            "{} and {} are the same setting",
                            map.key,
                            map.former_key.unwrap_or_default()
                        );
                        let error = former.place.error(Code::RecipeConflict, problem);
                        return Err(error.with_hint("leave one of them out"));
                    }
                    if let Some(node) = nodes.0.or(nodes.1) {
                        section.ask_together(map, settings, node)?;
                    }
                }
                None => section.ask_each(settings, &fields)?,
            }
        }
        if let Some(node) = fields.get("shard_size") {
            let size = match &node.value {
                Value::Scalar(Scalar::Int(bytes)) => u64::try_from(*bytes).ok(),
                Value::Scalar(Scalar::Text(text)) => parse_size(text).ok(),
                _ => None,
            };
            let positive = size.filter(|size| *size > 0);
            let bad = || node.expected("shard_size", "a size such as 4GiB or 512MiB");
            section.shard_bytes = Some(positive.ok_or_else(bad)?);
        }
        section.ask_each(std::slice::from_ref(&SHARDS_SETTING), &fields)?;
        section.ask_for_shards_in_other_words(&fields)?;
        Ok(section)
    }

    /// Asks for what `repack` and `single_file` say, which `shards` says in one word.
    fn ask_for_shards_in_other_words(&mut self, fields: &Fields) -> Result<()> {
        let conflict = |node: &Node, problem: &str| {
            let error = node.place.error(Code::RecipeConflict, problem);
            Err(error.with_hint("leave one of them out"))
        };
        let repack = fields.get("repack");
        let single_file = match fields.get("single_file") {
            Some(node) if node.bool("single_file")? => Some(node),
            _ => None,
        };
        if self.shards.is_some() {
            if let Some(node) = repack {
                return conflict(node, "repack and shards are the same setting");
            }
            if let Some(node) = single_file {
                return conflict(node, "single_file and shards are the same setting");
            }
        }
        if let Some(node) = repack {
            let repack = node.bool("repack")?;
            self.shards = Some(if repack { Shards::Repack } else { Shards::Keep });
        }
        if let Some(node) = single_file {
            if self.shards == Some(Shards::Keep) || self.shard_bytes.is_some() {
                let problem = "single_file excludes repack: false and shard_size";
                return conflict(node, problem);
            }
            self.shards = Some(Shards::Single);
        }
        if self.shards == Some(Shards::Single)
            && let Some(node) = fields.get("shard_size")
        {
            return conflict(node, "shards: single excludes shard_size");
        }
        Ok(())
    }

    /// Asks for the settings that `fields` has.
    fn ask_each(&mut self, settings: &'static [Setting], fields: &Fields) -> Result<()> {
        for setting in settings {
            if let Some(node) = fields.get(short(setting.key)) {
                self.ask(setting, node)?;
            }
        }
        Ok(())
    }

    /// Asks for what stands under the key of `section`: `true` is its first setting, and so is a map
    /// that selects nothing else.
    fn ask_together(
        &mut self,
        section: &Section,
        settings: &'static [Setting],
        node: &Node,
    ) -> Result<()> {
        if let Some(beside) = section.in_order {
            return self.ask_in_order(section, beside, settings, node);
        }
        let &[first, ..] = section.selecting else {
            unreachable!("a section selects something");
        };
        if let Value::Scalar(Scalar::Bool(on)) = node.value {
            return if on {
                self.set(first, ops::Value::Switch(true), node)
            } else {
                Ok(())
            };
        }
        if let (Some(named), Value::Scalar(Scalar::Text(_))) = (section.named, &node.value) {
            let mut settings = settings.iter();
            let setting = settings.find(|setting| setting.key == named);
            self.ask(setting.expect("it is one of the section"), node)?;
            return self.set(first, ops::Value::Switch(true), node);
        }
        let keys: Vec<&str> = settings.iter().map(|setting| short(setting.key)).collect();
        let fields = Fields::new(node, section.key, &keys)?;
        let selecting = section.selecting.iter();
        let given: Vec<&Node> = selecting.filter_map(|key| fields.get(short(key))).collect();
        let is_off = |node: &&Node| matches!(node.value, Value::Scalar(Scalar::Bool(false)));
        if given.is_empty() {
            self.set(first, ops::Value::Switch(true), node)?;
        } else if given.iter().all(is_off) {
            let keys: Vec<&str> = section.selecting.iter().map(|key| short(key)).collect();
            return Err(node.place.error(
                Code::RecipeValue,
                format!("{} selects nothing: give {}", section.key, one_of(&keys)),
            ));
        }
        self.ask_each(settings, &fields)
    }

    /// Asks for what stands in the list under the key of `section`, one after the other.
    fn ask_in_order(
        &mut self,
        section: &Section,
        beside: &[&str],
        settings: &'static [Setting],
        node: &Node,
    ) -> Result<()> {
        let keys: Vec<&str> = settings.iter().map(|setting| short(setting.key)).collect();
        for node in node.list(section.key)? {
            let what = format!("an entry of {}", section.key);
            let fields = Fields::new(node, &what, &keys)?;
            let given = settings
                .iter()
                .filter(|s| fields.get(short(s.key)).is_some());
            let (others, first): (Vec<_>, Vec<_>) =
                given.partition(|setting| beside.contains(&setting.key));
            if first.len() > 1 || first.is_empty() && others.is_empty() {
                let problem = format!("{what} has one of {}", keys.join(", "));
                let error = node.place.error(Code::RecipeValue, problem);
                return Err(
                    error.with_hint("make a list of them, in the order in which they apply")
                );
            }
            for setting in first.into_iter().chain(others) {
                let value = fields.require(short(setting.key))?;
                self.ask(setting, value)?;
            }
        }
        Ok(())
    }

    fn ask(&mut self, setting: &'static Setting, node: &Node) -> Result<()> {
        let Setting { key, takes, .. } = setting;
        let name = short(key);
        match takes {
            Takes::Choice(names) => {
                let names: Vec<&str> = names.iter().map(|names| names[0]).collect();
                self.choose(setting, &names, node)
            }
            Takes::SwitchOrChoice { names, .. } => match node.value {
                Value::Scalar(Scalar::Bool(on)) => self.set(key, ops::Value::Switch(on), node),
                _ => {
                    let names = names.iter().map(|names| names[0]);
                    let names: Vec<&str> = ["true", "false"].into_iter().chain(names).collect();
                    self.choose(setting, &names, node)
                }
            },
            Takes::ScopedFlags(flags) => {
                let names: Vec<&str> = flags.iter().map(|(name, ..)| *name).collect();
                match node.value {
                    Value::Map(_) => self.ask_scoped(setting, &names, node),
                    _ => self.choose(setting, &names, node),
                }
            }
            Takes::Switch => self.set(key, ops::Value::Switch(node.bool(name)?), node),
            Takes::Number(_) => {
                let number = node.whole();
                let number = number.ok_or_else(|| node.expected(name, "a whole number"))?;
                self.set(key, ops::Value::Number(number), node)
            }
            Takes::Text(_) => {
                let text = match &node.value {
                    Value::Scalar(Scalar::Int(number)) => number.to_string(),
                    _ => node.text(name)?.to_owned(),
                };
                self.set(key, ops::Value::text(text), node)
            }
            Takes::Texts(_) => entries(node).iter().try_for_each(|node| {
                let text = node.text(name)?;
                self.set(key, ops::Value::text(text), node)
            }),
            Takes::File => {
                let text = node.text(name)?;
                self.set(key, ops::Value::file(text), node)
            }
            Takes::Files => entries(node).iter().try_for_each(|node| {
                let value = named_file(node.text(name)?);
                let value = value.map_err(|problem| {
                    node.place
                        .error(Code::RecipeValue, format!("{name}: {problem}"))
                })?;
                self.set(key, value, node)
            }),
            Takes::Sources => entries(node).iter().try_for_each(|node| {
                self.sources.push(AskedSource {
                    key,
                    reference: Reference::from_node(node, name)?,
                    place: node.place.clone(),
                    weight: 1.0,
                    names: None,
                });
                Ok(())
            }),
            Takes::WeightedSources => entries(node).iter().try_for_each(|node| {
                let (reference, weight) = weighted(node, name)?;
                self.sources.push(AskedSource {
                    key,
                    reference,
                    place: node.place.clone(),
                    weight,
                    names: None,
                });
                Ok(())
            }),
            Takes::SelectiveSources => entries(node).iter().try_for_each(|node| {
                let (reference, names) = selective(node, name)?;
                self.sources.push(AskedSource {
                    key,
                    reference,
                    place: node.place.clone(),
                    weight: 1.0,
                    names,
                });
                Ok(())
            }),
        }
    }

    /// Asks for each of `names` that the map `node` has, for all that it can be about (`true`) or
    /// what regular expressions say.
    fn ask_scoped(&mut self, setting: &Setting, names: &[&str], node: &Node) -> Result<()> {
        let fields = Fields::new(node, short(setting.key), names)?;
        for name in names {
            for node in fields.get(name).map(entries).unwrap_or_default() {
                let value = match node.value {
                    Value::Scalar(Scalar::Bool(true)) => ops::Value::text(*name),
                    Value::Scalar(Scalar::Bool(false)) => continue,
                    _ => ops::Value::Scoped {
                        name: (*name).to_owned(),
                        scope: node.text(name)?.to_owned(),
                    },
                };
                self.set(setting.key, value, node)?;
            }
        }
        Ok(())
    }

    fn choose(&mut self, setting: &Setting, names: &[&str], node: &Node) -> Result<()> {
        let name = short(setting.key);
        let value = ops::Value::text(node.text(name)?);
        let chosen = self.take(setting.key, value);
        chosen.map_err(|_| node.expected(name, &one_of(names)))
    }

    fn set(&mut self, key: &str, value: ops::Value, node: &Node) -> Result<()> {
        let set = self.take(key, value);
        set.map_err(|error| error.at(node.place.clone()))
    }

    fn take(&mut self, key: &str, value: ops::Value) -> Result<()> {
        if key == SHARDS {
            self.shards = Some(ops::chosen(value)?);
            return Ok(());
        }
        self.operations.set(key, value)
    }
}

/// `a, b or c`
fn one_of(names: &[&str]) -> String {
    match names {
        [all @ .., last] if !all.is_empty() => format!("{} or {last}", all.join(", ")),
        _ => names.concat(),
    }
}

/// The items of a list; a lone value is a list of one.
fn entries(node: &Node) -> &[Node] {
    match &node.value {
        Value::List(nodes) => nodes,
        _ => std::slice::from_ref(node),
    }
}

/// A source and its weight: `path`, or `{path: …, revision: …, weight: …}`.
fn weighted(node: &Node, name: &str) -> Result<(Reference, f64)> {
    if !matches!(node.value, Value::Map(_)) {
        return Ok((Reference::parse(node.text(name)?, &node.place)?, 1.0));
    }
    let fields = Fields::new(node, name, &["path", "revision", "weight"])?;
    let weight = match fields.get("weight") {
        Some(node) => node
            .float()
            .ok_or_else(|| node.expected("weight", "a number"))?,
        None => 1.0,
    };
    let model = ModelPath::from_fields(&fields)?;
    Ok((Reference { model, lora: None }, weight))
}

/// A source and which of its tensors are meant: `path`, or `{path: …, revision: …, names: …}`.
fn selective(node: &Node, name: &str) -> Result<(Reference, Option<String>)> {
    if !matches!(node.value, Value::Map(_)) {
        return Ok((Reference::parse(node.text(name)?, &node.place)?, None));
    }
    let fields = Fields::new(node, name, &["path", "revision", "names"])?;
    let names = match fields.get("names") {
        Some(node) => Some(node.text("names")?.to_owned()),
        None => None,
    };
    let model = ModelPath::from_fields(&fields)?;
    Ok((Reference { model, lora: None }, names))
}
