//! Models as recipes name them, and the directories they are in: given by name, a path, or in the
//! local cache of the Hugging Face hub. Nothing is ever downloaded.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::setting::MODEL;
use crate::error::{Code, Error, Hint, Place, Result, Warning};
use crate::format;
use crate::ops::merge::{ModelId, ModelName};
use crate::recipe::latest::{self, LATEST, Latest};
use crate::recipe::yaml::{Fields, Node, Value};
use crate::shown::Show;
use crate::source::{Location, missing};

/// `path[@revision][+lora[@revision]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reference {
    pub model: ModelPath,
    pub lora: Option<ModelPath>,
}

/// A directory or a repository of the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ModelPath {
    pub path: String,
    pub revision: Option<String>,
}

impl ModelPath {
    /// The keys of a path that stands for itself.
    pub(super) const KEYS: &[&str] = &["path", "revision"];

    /// The model of the hub that `path` may name.
    fn of_hub(path: &Path) -> Option<Self> {
        let text = path.to_str()?;
        let (name, revision) = match text.split_once('@') {
            Some((name, revision)) => (name, Some(revision.to_owned())),
            None => (text, None),
        };
        let parts: Vec<&str> = name.split('/').collect();
        let is_name = |part: &&str| !part.is_empty() && !part.starts_with(['.', '~']);
        (parts.len() <= 2 && parts.iter().all(is_name)).then(|| ModelPath {
            path: name.to_owned(),
            revision,
        })
    }

    /// `{path: …, revision: …}`: the path may hold `+` and `@`.
    pub(super) fn from_fields(fields: &Fields) -> Result<Self> {
        let node = fields.require("path")?;
        let path = node.text("path")?.to_owned();
        if path.is_empty() {
            return Err(node.place.error(Code::RecipeValue, "path is empty"));
        }
        let revision = match fields.get("revision") {
            Some(revision) => Some(revision.text("revision")?.to_owned()),
            None => None,
        };
        Ok(ModelPath { path, revision })
    }
}

impl Reference {
    /// A model: text, or `{path: …, revision: …}`.
    pub(super) fn from_node(node: &Node, what: &str) -> Result<Self> {
        match &node.value {
            Value::Map(_) => {
                let fields = Fields::new(node, what, ModelPath::KEYS)?;
                let model = ModelPath::from_fields(&fields)?;
                Ok(Reference { model, lora: None })
            }
            _ => Reference::parse(node.text(what)?, &node.place),
        }
    }

    /// A model of a merge: also `{model: …, lora: …}`.
    pub(super) fn of_merge(node: &Node, what: &str) -> Result<Self> {
        match &node.value {
            Value::Map(entries) if entries.iter().any(|(key, _)| key.text == "model") => {}
            _ => return Reference::from_node(node, what),
        }
        let fields = Fields::new(node, what, &["model", "lora", "override_architecture"])?;
        if let Some(node) = fields.get("override_architecture") {
            return Err(node.place.error(Code::RecipeUnsupported, "override_architecture is not supported: ckptfs sees the architecture in the names of tensors"));
        }
        let alone = |node: &Node| -> Result<ModelPath> {
            match Reference::from_node(node, what)? {
                Reference { model, lora: None } => Ok(model),
                _ => Err(node.place.error(
                    Code::RecipeValue,
                    "this has + and there is another adapter, and one is enough",
                )),
            }
        };
        let node = fields.require("model")?;
        match fields.get("lora") {
            None => Reference::from_node(node, what),
            Some(lora) => Ok(Reference {
                model: alone(node)?,
                lora: Some(alone(lora)?),
            }),
        }
    }

    pub(super) fn parse(text: &str, place: &Place) -> Result<Self> {
        let bad = |problem| {
            place
                .error(Code::RecipeValue, format!("{text:?} {problem}"))
                .with_hint("a model is path[@revision][+lora]")
        };
        let mut parts = text.split('+');
        let path = |part: Option<&str>| -> Result<Option<ModelPath>> {
            let Some(part) = part else { return Ok(None) };
            let mut parts = part.split('@');
            let path = parts.next().unwrap_or_default().to_owned();
            let revision = parts.next().map(str::to_owned);
            if path.is_empty() || revision.as_deref() == Some("") {
                return Err(bad("has an empty part"));
            }
            match parts.next() {
                Some(_) => Err(bad("has more than one @")),
                None => Ok(Some(ModelPath { path, revision })),
            }
        };
        let model = path(parts.next())?.ok_or_else(|| bad("is empty"))?;
        let lora = path(parts.next())?;
        match parts.next() {
            Some(_) => Err(bad("has more than one +")),
            None => Ok(Reference { model, lora }),
        }
    }
}

impl std::fmt::Display for ModelPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.revision {
            Some(revision) => write!(f, "{}@{revision}", self.path),
            None => write!(f, "{}", self.path),
        }
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.lora {
            Some(lora) => write!(f, "{}+{lora}", self.model),
            None => write!(f, "{}", self.model),
        }
    }
}

/// The models that a merge names, each once.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub models: Vec<ModelName>,
    pub references: Vec<Reference>,
}

impl Names {
    /// The number of the model that `node` names.
    pub(super) fn model(&mut self, node: &Node, what: &str) -> Result<ModelId> {
        let reference = Reference::of_merge(node, what)?;
        let known = self.references.iter().position(|known| *known == reference);
        Ok(known.unwrap_or_else(|| {
            self.models.push(ModelName {
                name: reference.to_string(),
                place: node.place.clone(),
            });
            self.references.push(reference);
            self.references.len() - 1
        }))
    }
}

/// Where models are looked for.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// Models by name, as the recipe has it (with or without `@revision`).
    pub named: Vec<(String, Location)>,
    /// The `hub` directory of the Hugging Face cache.
    pub hub: Option<PathBuf>,
}

impl Places {
    /// These directories, and the cache that the environment names: `HF_HUB_CACHE`, `HF_HOME/hub`,
    /// or `~/.cache/huggingface/hub`.
    pub fn from_environment(named: Vec<(String, Location)>) -> Self {
        let variable = |name| {
            env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let hub = variable("HF_HUB_CACHE")
            .or_else(|| Some(variable("HF_HOME")?.join("hub")))
            .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("huggingface/hub")))
            .or_else(|| Some(variable("HOME")?.join(".cache/huggingface/hub")));
        Places { named, hub }
    }

    /// What `path` names on a command line: a URL, a directory, the newest complete checkpoint of a run as `RUN@latest`,
    /// or if there is none, the model `org/model[@revision]` in the cache of the hub.
    ///
    /// # Errors
    /// If there is neither; the message says where it was looked for.
    pub fn location(&self, path: &Path) -> Result<Location> {
        let location = Location::from(path);
        if location.local().is_none() {
            return Ok(location);
        }
        if path.symlink_metadata().is_err()
            && let Some(run) = latest::run(path)
        {
            let Latest { directory, .. } = latest::latest(&run)?;
            return self.location(&directory);
        }
        if path.symlink_metadata().is_ok() {
            let absolute = std::path::absolute(path);
            let absolute = absolute.map_err(|e| Error::io("resolve", path, e))?;
            return Ok(Location::Local(absolute));
        }
        let hub = self.hub.as_ref().zip(ModelPath::of_hub(path));
        let what = match hub.map(|(hub, model)| snapshot(hub, &model)) {
            Some(Ok(directory)) => return Ok(Location::Local(directory)),
            Some(Err(not_there)) => &format!("directory, and {not_there}"),
            None => "directory",
        };
        Err(missing(path, what))
    }

    /// What is worth knowing of how [`location`](Self::location) finds `path`: of `RUN@latest`, which newer checkpoints
    /// are not complete.
    ///
    /// # Errors
    /// If none is.
    pub fn warnings(&self, path: &Path) -> Result<Vec<Warning>> {
        match latest::run(path).filter(|_| path.symlink_metadata().is_err()) {
            Some(run) => Ok(latest::latest(&run)?.warnings),
            None => Ok(Vec::new()),
        }
    }

    /// What is named here, and none of the models `asked` is called.
    pub(super) fn unasked(&self, asked: &[&ModelPath]) -> Vec<&str> {
        let is_asked = |id: &str| {
            let mut asked = asked.iter();
            asked.any(|model| model.path == id || model.to_string() == id)
        };
        let names = self.named.iter().map(|(id, _)| id.as_str());
        names.filter(|id| !is_asked(id)).collect()
    }

    /// Where `model` is, named at `place` of a recipe in the directory `beside`.
    ///
    /// # Errors
    /// If there is none; the message says where it was looked for.
    pub(super) fn find(&self, model: &ModelPath, beside: &Path, place: &Place) -> Result<Location> {
        let whole = model.to_string();
        let named = |name: &str| self.named.iter().find(|(known, _)| known == name);
        if let Some((_, location)) = named(&whole).or_else(|| named(&model.path)) {
            return Ok(location.clone());
        }
        let location = Location::from(&whole);
        if location.local().is_none() {
            return Ok(location);
        }
        let mut looked = Vec::new();
        let path = beside.join(&model.path);
        if model.revision.as_deref() == Some(LATEST) && path.is_dir() {
            let found = latest::latest(&path).map_err(|error| error.at(place.clone()))?;
            return Ok(Location::Local(found.directory));
        }
        if model.revision.is_none() {
            let is_file = path.file_name().is_some_and(format::is_file);
            if path.is_dir() || is_file && path.is_file() {
                return Ok(Location::Local(path));
            }
            looked.push(format!("no directory {}", path.shown()));
        }
        if let Some(hub) = &self.hub {
            match snapshot(hub, model) {
                Ok(directory) => return Ok(Location::Local(directory)),
                Err(problem) => looked.push(problem),
            }
        }
        Err(place
            .error(
                Code::ModelMissing,
                format!(
                    "the model {whole} is not on this machine: {}",
                    looked.join(", ")
                ),
            )
            .with_hint(
                Hint::give_value(MODEL, format!("{whole}=DIR"))
                    .to("name its directory (nothing is downloaded)"),
            ))
    }
}

/// The snapshot of a repository in the cache.
fn snapshot(hub: &Path, model: &ModelPath) -> std::result::Result<PathBuf, String> {
    let id = &model.path;
    let parts: Vec<&str> = id.split('/').collect();
    let plain = |part: &&str| !part.is_empty() && !matches!(*part, "." | "..");
    if parts.len() > 2 || !parts.iter().all(plain) {
        return Err(format!("{id:?} is not the name of a repository"));
    }
    let repository = hub.join(format!("models--{}", parts.join("--")));
    if !repository.is_dir() {
        return Err(format!("no {} in the hub's cache", repository.shown()));
    }
    let revision = model.revision.as_deref().unwrap_or("main");
    if revision.split('/').any(|part| !plain(&part)) {
        return Err(format!("{revision:?} is not a revision"));
    }
    let commit = fs::read_to_string(repository.join("refs").join(revision));
    let commit = commit.as_deref().map_or(revision, str::trim);
    let directory = repository.join("snapshots").join(commit);
    if plain(&commit) && !commit.contains('/') && directory.is_dir() {
        Ok(directory)
    } else {
        Err(format!(
            "no snapshot of revision {revision} in {}",
            repository.shown()
        ))
    }
}
