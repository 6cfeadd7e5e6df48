//! From a recipe to a request: every model that it names is looked for.

use std::path::Path;

use crate::error::{Code, Error, Place, Result, Warning};
use crate::ops::Value;
use crate::recipe::document::{Document, Start};
use crate::recipe::merge_request::{MergeRequest, MergedModel};
use crate::recipe::models::{ModelPath, Places, Reference};
use crate::recipe::request::ViewRequest;
use crate::source::Location;

impl ViewRequest {
    /// The view that the recipe `path` describes. Models are looked for at `places`, and
    /// relative to the recipe's directory.
    ///
    /// # Errors
    /// If the recipe cannot be understood (with the line), or a model is not on this machine.
    pub fn from_recipe(path: &Path, places: &Places) -> Result<Self> {
        let Document {
            root,
            start,
            mut view,
        } = Document::read(path)?;
        let absolute = std::path::absolute(path).map_err(|e| Error::io("resolve", path, e))?;
        let beside = absolute.parent().unwrap_or(Path::new("/"));
        let mut places = places.clone();
        let named = std::mem::take(&mut view.models).into_iter();
        let named = named.map(|(id, text)| (id, Location::from(&text).relative_to(beside)));
        places.named.extend(named);
        let asked: Vec<&ModelPath> = start
            .references()
            .iter()
            .chain(view.sources.iter().map(|source| &source.reference))
            .flat_map(|reference| std::iter::once(&reference.model).chain(&reference.lora))
            .collect();
        let unasked = places.unasked(&asked).into_iter().map(|id| {
            let problem = format!(
                "no model of the recipe is called {id}, so naming its directory has no effect"
            );
            Warning::new(Code::NoEffect, problem).in_file(path)
        });
        let warnings: Vec<Warning> = unasked.collect();
        let find = |(reference, place): &(Reference, Place)| match &reference.lora {
            None => places.find(&reference.model, beside, place),
            Some(_) => Err(place.error(
                Code::RecipeConflict,
                "a LoRA adapter can only be added to a model of the merge",
            )),
        };
        let mut request = match start {
            Start::Base(reference, place) => ViewRequest::new(find(&(reference, place))?),
            Start::Merge {
                definition,
                references,
            } => {
                let mut found = Vec::new();
                let models = references.iter().zip(&definition.models);
                let models = models.map(|(reference, name)| {
                    let mut find = |path: &ModelPath| -> Result<Location> {
                        let location = places.find(path, beside, &name.place)?;
                        found.push((path.to_string(), location.clone()));
                        Ok(location)
                    };
                    Ok(MergedModel {
                        location: find(&reference.model)?,
                        lora: reference.lora.as_ref().map(&mut find).transpose()?,
                    })
                });
                let models: Vec<MergedModel> = models.collect::<Result<_>>()?;
                ViewRequest {
                    merge: Some(MergeRequest {
                        models: models.clone(),
                        definition: definition.clone(),
                        root,
                        found,
                    }),
                    ..ViewRequest::new(&models[definition.donor()].location)
                }
            }
        };
        request.recipe = Some(absolute.clone());
        request.warnings = warnings;
        request.operations = view.operations;
        request.operations.relative_to(beside);
        for source in view.sources {
            let place = source.place;
            let value = Value::Source {
                location: find(&(source.reference, place.clone()))?,
                weight: source.weight,
                names: source.names,
            };
            let set = request.operations.set(source.key, value);
            set.map_err(|error| error.at(place))?;
        }
        request.shards = view.shards;
        request.shard_bytes = view.shard_bytes.unwrap_or(request.shard_bytes);
        Ok(request)
    }
}
