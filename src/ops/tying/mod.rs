//! Unties heads from the embedding, and ties them to it.
//!
//! Both are done to the base, right after the edits of its files: an adapter that changes one of the two
//! finds two tensors where they were untied, and is refused where they are tied.

mod compare;

use serde_json::Value;

use crate::catalog::{CONFIG_FILE, Catalog, OperatorReport, Tensor};
use crate::error::setting::{SET, TIE, UNTIE};
use crate::error::{Code, Error, Hint, Result, Warning};
use crate::ops::embeddings::{self, Embeddings};
use crate::ops::{Conversions, Group, Operator, Params, Setting, Takes};
use crate::quant::{self, Doing, Moves};

/// The key of config.json that says whether the embedding is the head.
const TIED: &str = "tie_word_embeddings";

/// Give the model a head of its own, or leave out one that the embedding can serve as.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TyingParams {
    pub untie: bool,
    pub tie: bool,
}

impl Params for TyingParams {
    fn settings(&self) -> &'static [Setting] {
        &[
            Setting {
                key: UNTIE,
                flag: "untie",
                takes: Takes::Switch,
                group: Group::Tensors,
                help: "Give a model whose embedding is its head a head of its own, with the same bytes",
                comment: "",
            },
            Setting {
                key: TIE,
                flag: "tie",
                takes: Takes::Switch,
                group: Group::Tensors,
                help: "Leave out a head that has the bytes of the embedding (both are read to compare them)",
                comment: "",
            },
        ]
    }

    fn set(&mut self, key: &str, value: crate::ops::Value) -> Result<()> {
        match key {
            UNTIE => self.untie = value.is_on(),
            _ => self.tie = value.is_on(),
        }
        Ok(())
    }

    fn get(&self, key: &str) -> Vec<crate::ops::Value> {
        let on = match key {
            UNTIE => self.untie,
            _ => self.tie,
        };
        on.then_some(crate::ops::Value::Switch(true))
            .into_iter()
            .collect()
    }

    fn keeps_shards(&self) -> bool {
        // A head is added. One that is left out may leave its shard empty.
        !self.tie
    }

    fn operators(&self, _: &Conversions) -> Result<Vec<Box<dyn Operator>>> {
        if self.untie && self.tie {
            let problem = "a head of its own and the embedding as head exclude each other";
            let hint = Hint::leave_out(UNTIE).or(Hint::leave_out(TIE));
            return Err(Error::new(Code::Conflict, problem).with_hint(hint));
        }
        if self.untie {
            Ok(vec![Box::new(Untie)])
        } else {
            Ok(vec![Box::new(Tie)])
        }
    }
}

/// How many heads were added and left out.
#[derive(Debug)]
struct Heads {
    untied: usize,
    tied: usize,
}

impl OperatorReport for Heads {
    fn counts(&self) -> Vec<(&'static str, usize)> {
        vec![("untied", self.untied), ("tied", self.tied)]
    }
}

/// Gives the model a head of its own.
#[derive(Debug)]
struct Untie;

impl Operator for Untie {
    fn apply(&self, catalog: &mut Catalog) -> Result<()> {
        let model = Model::find(catalog, UNTIE)?;
        let untied = match (&model.head, model.is_tied) {
            (Some(head), Some(true)) => {
                let (name, of) = (model.names.head(), model.names.embedding());
                compare::same(&name, head, &of, &model.embedding).map_err(|error| {
                    error
                        .about(UNTIE)
                        .with_hint(format!(
                            "{CONFIG_FILE} says {TIED}, so loaders take {of} for the head and not {name}: leave {name} out, or if it is the right one set {TIED} to false"
                        ))
                })?;
                0
            }
            (Some(_), _) => {
                let problem = format!(
                    "it has no effect: the model has a head of its own, {}, and {CONFIG_FILE} does not say that it is tied",
                    model.names.head()
                );
                warn_idle(catalog, UNTIE, problem);
                return Ok(());
            }
            (None, Some(false)) => return Err(no_head(&model, UNTIE)),
            (None, _) => {
                let head = Tensor {
                    home: None,
                    ..model.embedding.clone()
                };
                catalog.tensors.insert(model.names.head().into(), head);
                quant::leave_alone(catalog, model.names.head_module())?;
                1
            }
        };
        catalog.report.add(Heads { untied, tied: 0 });
        declare(catalog, &model, UNTIE, false)
    }
}

/// Leaves the head out.
#[derive(Debug)]
struct Tie;

impl Operator for Tie {
    fn apply(&self, catalog: &mut Catalog) -> Result<()> {
        let model = Model::find(catalog, TIE)?;
        let name = model.names.head();
        match (&model.head, model.is_tied) {
            (Some(head), _) => {
                let of = model.names.embedding();
                let same = compare::same(&name, head, &of, &model.embedding);
                same.map_err(|error| error.about(TIE).with_hint(Hint::leave_out(TIE)))?;
                let moves = catalog.tensors.keys().map(|old| {
                    let stays = **old != *name;
                    (
                        old.clone(),
                        stays.then(|| old.clone()).into_iter().collect(),
                    )
                });
                let moves = Moves::new(moves);
                quant::follow(catalog, &moves, Doing::Regrouping)?;
                catalog.tensors.shift_remove(&*name);
                catalog.report.add(Heads { untied: 0, tied: 1 });
            }
            (None, Some(true)) => {
                let problem = format!(
                    "it has no effect: there is no {name}, and {CONFIG_FILE} says that the embedding is the head"
                );
                warn_idle(catalog, TIE, problem);
                return Ok(());
            }
            (None, Some(false)) => return Err(no_head(&model, TIE)),
            (None, None) => {}
        }
        declare(catalog, &model, TIE, true)
    }
}

/// The embedding and the head of a model.
struct Model {
    names: Embeddings,
    embedding: Tensor,
    head: Option<Tensor>,
    /// The value in config.json; `None` if the default of the model type applies.
    is_tied: Option<bool>,
    /// The objects of config.json that describe the language model.
    objects: Vec<Vec<String>>,
}

impl Model {
    fn find(catalog: &mut Catalog, setting: &'static str) -> Result<Self> {
        let tensors = &catalog.tensors;
        let names = Embeddings::find(tensors).map_err(|error| error.about(setting))?;
        let [embedding, head] = [names.embedding(), names.head()].map(|name| {
            let tensor = tensors.get(&*name);
            let plain = tensor.map(|tensor| embeddings::check_plain(tensors, &name, tensor));
            plain.transpose().map_err(|error| error.about(setting))?;
            Ok(tensor.cloned())
        });
        let embedding = embedding?.expect("it was found");
        let objects = embeddings::language_models(catalog, embedding.shape[0])?;
        let is_tied = match catalog.config_mut()? {
            None => None,
            Some(config) => {
                let said = objects.iter().filter_map(|path| {
                    let path: Vec<&str> = path.iter().map(String::as_str).chain([TIED]).collect();
                    config.get_at(&path)?.as_bool()
                });
                said.reduce(|a, b| a || b)
            }
        };
        Ok(Model {
            names,
            embedding,
            head: head?,
            is_tied,
            objects,
        })
    }
}

fn warn_idle(catalog: &mut Catalog, setting: &'static str, problem: String) {
    let warning = Warning::new(Code::NoEffect, problem).about(setting);
    catalog.report.warnings.push(warning);
}

/// The model says that it has a head of its own, and has none.
fn no_head(model: &Model, setting: &'static str) -> Error {
    let problem = format!(
        "{CONFIG_FILE} says that {TIED} is false, and there is no {}: either tensors are missing, or the model has no head",
        model.names.head()
    );
    let error = Error::new(Code::ConfigMismatch, problem).about(setting);
    error.with_hint(
        Hint::give_value(SET, format!("{TIED}=true")).to("correct the base, in a view of its own"),
    )
}

/// Has config.json say whether the embedding is the head: wherever it says it, and of each object that describes
/// the language model, where the kind of model decides what it means to say nothing.
fn declare(catalog: &mut Catalog, model: &Model, setting: &'static str, tied: bool) -> Result<()> {
    let value = Value::from(tied);
    let Some(config) = catalog.config_mut()? else {
        let what = format!("{TIED}: {tied}");
        embeddings::warn_without_config(catalog, setting, &what);
        return Ok(());
    };
    let objects = model.objects.iter().cloned();
    let mut paths: Vec<Vec<String>> = objects
        .map(|mut path| {
            path.push(TIED.to_owned());
            path
        })
        .collect();
    for (path, _) in config.everywhere(TIED) {
        if !paths.contains(&path) {
            paths.push(path);
        }
    }
    for path in paths {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        if config.get_at(&path).as_ref() != Some(&value) {
            config.set_at(&path, &value)?;
        }
    }
    Ok(())
}
