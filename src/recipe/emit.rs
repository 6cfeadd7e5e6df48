//! From a request back to a recipe that says the same.

use std::path::Path;

use crate::error::{Code, Error, Result};
use crate::named::Named;
use crate::ops::{self, Params, Section, Setting, Takes, short};
use crate::recipe::document::Document;
use crate::recipe::quoted::{float, text, tree};
use crate::recipe::request::{DEFAULT_SHARD_BYTES, MergeRequest, SHARDS_SETTING, ViewRequest};
use crate::recipe::yaml;
use crate::recipe::yaml::{Node, Value};
use crate::shown::Show;
use crate::source::Location;

impl ViewRequest {
    /// The text of a recipe of this view. Paths stand in it as they are here: absolute ones mean
    /// the same wherever the recipe lies.
    ///
    /// # Errors
    /// If a recipe cannot say it: a path that is not UTF-8, more text than a recipe may have, or a
    /// quantization of nothing.
    pub fn to_recipe(&self) -> Result<String> {
        let mut documents = Vec::new();
        self.documents(&mut documents)?;
        let recipe = documents.join("---\n");
        self.check(&recipe)?;
        Ok(recipe)
    }

    /// Adds the documents of the views that this is made of, each once, and its own.
    fn documents(&self, documents: &mut Vec<String>) -> Result<()> {
        let nested = self.merge.iter().flat_map(|merge| merge.nested());
        for request in nested {
            request.documents(documents)?;
        }
        let mut recipe = String::new();
        match &self.merge {
            None => {
                if let Some(name) = &self.name {
                    recipe += &format!("name: {}\n", text(name));
                }
                recipe += &format!("base: {}\n", model(&self.base)?);
            }
            Some(merge) => of_merge(merge, &mut recipe),
        }
        let view = self.view_section()?;
        if !view.is_empty() {
            recipe += "view:\n";
            recipe += &view;
        }
        if !documents.contains(&recipe) {
            documents.push(recipe);
        }
        Ok(())
    }

    /// What stands under `view`, in the order in which it is applied.
    fn view_section(&self) -> Result<String> {
        let mut view = Lines::default();
        if let Some(merge) = &self.merge {
            view.models(merge)?;
            for key in ["seed", "truncate_embeddings"] {
                if let Some(node) = get(&merge.root, "view").and_then(|node| get(node, key)) {
                    let mut value = String::new();
                    tree(node, 4, &mut value);
                    view.0 += &format!("  {key}:{value}");
                }
            }
        }
        for params in self.operations.each().filter(|params| params.is_asked()) {
            view.operator(params)?;
        }
        if let Some(shards) = self.shards {
            view.setting(2, &SHARDS_SETTING, vec![ops::Value::text(shards.name())])?;
        }
        if self.shard_bytes != DEFAULT_SHARD_BYTES {
            view.one(2, "shard_size", &size(self.shard_bytes));
        }
        Ok(view.0)
    }

    /// Reads `recipe` again.
    fn check(&self, recipe: &str) -> Result<()> {
        let unsayable = |problem: String| {
            Err(Error::new(
                Code::NoRecipe,
                format!("a recipe cannot describe this view: {problem}"),
            ))
        };
        if recipe.len() > yaml::MOST_BYTES {
            return unsayable(format!(
                "it would have more than {} bytes",
                yaml::MOST_BYTES
            ));
        }
        match Document::parse(recipe, Path::new("the recipe")) {
            Ok(_) => Ok(()),
            Err(error) => unsayable(error.to_string()),
        }
    }
}

/// The merge as its recipe has it, without what follows it.
fn of_merge(merge: &MergeRequest, recipe: &mut String) {
    let Value::Map(entries) = &merge.root.value else {
        unreachable!("a recipe is a map");
    };
    for (key, node) in entries.iter().filter(|(key, _)| key.text != "view") {
        *recipe += &format!("{}:", text(&key.text));
        tree(node, 2, recipe);
    }
}

fn get<'a>(node: &'a Node, key: &str) -> Option<&'a Node> {
    let Value::Map(entries) = &node.value else {
        return None;
    };
    let found = entries.iter().find(|(found, _)| found.text == key);
    found.map(|(_, node)| node)
}

#[derive(Default)]
struct Lines(String);

impl Lines {
    fn one(&mut self, indent: usize, key: &str, value: &str) {
        self.0 += &format!("{:indent$}{key}: {value}\n", "");
    }

    /// Where the models of a merge are.
    fn models(&mut self, merge: &MergeRequest) -> Result<()> {
        let mut seen: Vec<&(String, Location)> = Vec::new();
        if merge.found.is_empty() {
            return Ok(());
        }
        self.0 += "  models:  # what the merge calls them, and where they are\n";
        for named in &merge.found {
            match seen.iter().find(|(id, _)| *id == named.0) {
                Some(other) if other.1 == named.1 => continue,
                Some(_) => {
                    return Err(Error::new(
                        Code::NoRecipe,
                        format!(
                            "a recipe cannot describe this view: {} names two directories",
                            named.0
                        ),
                    ));
                }
                None => seen.push(named),
            }
            self.0 += &format!("    {}: {}\n", text(&named.0), place(&named.1)?);
        }
        Ok(())
    }

    /// What is asked of an operator.
    fn operator(&mut self, params: &dyn Params) -> Result<()> {
        let mut indent = 2;
        if let Some(Section { key, comment, .. }) = params.section() {
            self.0 += &format!("{:indent$}{key}:  # {comment}\n", "");
            indent += 2;
        }
        if let Some(beside) = params.section().and_then(|section| section.in_order) {
            for (setting, value) in params.asked() {
                let dash = if beside.contains(&setting.key) {
                    " "
                } else {
                    "-"
                };
                let (key, value) = (short(setting.key), scalar(value)?);
                self.0 += &format!("{:indent$}{dash} {key}: {value}\n", "");
            }
            return Ok(());
        }
        for setting in params.settings() {
            let values = params.get(setting.key);
            if !values.is_empty() {
                self.setting(indent, setting, values)?;
            }
        }
        Ok(())
    }

    fn setting(&mut self, indent: usize, setting: &Setting, values: Vec<ops::Value>) -> Result<()> {
        let key = short(setting.key);
        if let Takes::ScopedFlags(names) = setting.takes
            && values
                .iter()
                .any(|v| matches!(v, ops::Value::Scoped { .. }))
        {
            self.0 += &format!("{:indent$}{key}:\n", "");
            for (name, ..) in names {
                self.scoped(indent + 2, name, &values);
            }
            return Ok(());
        }
        if matches!(setting.takes, Takes::Texts(_)) || setting.takes.is_source() {
            self.0 += &format!("{:indent$}{key}:  # {}\n", "", setting.comment);
        }
        for value in values {
            match value {
                ops::Value::Switch(on) => self.one(indent, key, if on { "true" } else { "false" }),
                ops::Value::Number(number) => self.one(indent, key, &number.to_string()),
                ops::Value::Text(value) => match setting.takes {
                    Takes::Text(_) => self.one(indent, key, &text(&value)),
                    Takes::Texts(_) => {
                        self.0 += &format!("{:indent$}  - {}\n", "", text(&value));
                    }
                    _ => self.one(indent, key, &value),
                },
                ops::Value::Scoped { .. } => unreachable!("those with a scope are written above"),
                ops::Value::File { name: None, .. } => self.one(indent, key, &scalar(value)?),
                ops::Value::File { .. } => {
                    self.0 += &format!("{:indent$}  - {}\n", "", scalar(value)?);
                }
                ops::Value::Source {
                    location,
                    weight,
                    names,
                } => match (setting.takes, names) {
                    (Takes::WeightedSources, _) => {
                        self.0 += &format!("{:indent$}  - path: {}\n", "", place(&location)?);
                        self.0 += &format!("{:indent$}    weight: {}\n", "", float(weight));
                    }
                    (_, Some(names)) => {
                        self.0 += &format!("{:indent$}  - path: {}\n", "", place(&location)?);
                        self.0 += &format!("{:indent$}    names: {}\n", "", text(&names));
                    }
                    _ => self.0 += &format!("{:indent$}  - {}\n", "", model(&location)?),
                },
            }
        }
        Ok(())
    }

    /// What `values` have of `name`: `true` without a scope, or the scope.
    fn scoped(&mut self, indent: usize, name: &str, values: &[ops::Value]) {
        let entries = values.iter().filter_map(|value| match value {
            ops::Value::Text(given) if given == name => Some("true".to_owned()),
            ops::Value::Scoped { name: given, scope } if given == name => Some(text(scope)),
            _ => None,
        });
        let entries: String = entries
            .map(|entry| format!("{:indent$}  - {entry}\n", ""))
            .collect();
        if !entries.is_empty() {
            self.0 += &format!("{:indent$}{name}:\n{entries}", "");
        }
    }
}

/// A value in a line.
fn scalar(value: ops::Value) -> Result<String> {
    match value {
        ops::Value::Switch(on) => Ok(on.to_string()),
        ops::Value::Number(number) => Ok(number.to_string()),
        ops::Value::Text(value) => Ok(text(&value)),
        ops::Value::File { name, from } => {
            let path = place(&from)?;
            Ok(match name {
                Some(name) => text(&format!("{name}={}", from.as_path().display())),
                None => path,
            })
        }
        ops::Value::Source { location, .. } => model(&location),
        ops::Value::Scoped { .. } => unreachable!("no list of a section has scopes"),
    }
}

/// A path or URL that stands for itself.
fn place(location: &Location) -> Result<String> {
    let path = location.as_path();
    let unsayable = |why| {
        let problem = format!("a recipe cannot describe this view: {} {why}", path.shown());
        Err(Error::new(Code::NoRecipe, problem))
    };
    match (location, path.to_str()) {
        (Location::Open(_), _) => unsayable("is a directory that only this process has open"),
        (_, Some(path)) => Ok(text(path)),
        (_, None) => unsayable("is not UTF-8; give it another name, or a link that has one"),
    }
}

/// A location where a model can be named.
fn model(location: &Location) -> Result<String> {
    let shown = place(location)?;
    // These mean something in the name of a model.
    match location.as_path().as_os_str().as_encoded_bytes() {
        name if name.contains(&b'+') || name.contains(&b'@') => Ok(format!("{{path: {shown}}}")),
        _ => Ok(shown),
    }
}

/// A number of bytes in the largest unit that gives a whole number.
fn size(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let whole = units
        .iter()
        .find(|(_, shift)| bytes != 0 && bytes.trailing_zeros() >= *shift);
    match whole {
        Some((unit, shift)) => format!("{}{unit}", bytes >> shift),
        None => format!("{bytes}B"),
    }
}
