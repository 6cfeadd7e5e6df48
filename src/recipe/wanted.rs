//! A view as it is asked for in one call, on a command line or in Python: a base or a recipe, and
//! settings on top of it.

use std::path::{Path, PathBuf};

use crate::error::setting::{MODEL, RECIPE};
use crate::error::{Code, Error, Hint, Result};
use crate::layout::Shards;
use crate::ops::Value;
use crate::recipe::models::Places;
use crate::recipe::request::{DEFAULT_SHARD_BYTES, ViewRequest};
use crate::source::Location;

/// What is asked for. Relative paths are relative to the working directory.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Directory or URL of a checkpoint, or a model in the cache of the hub; or else there is a recipe.
    pub base: Option<PathBuf>,
    pub recipe: Option<PathBuf>,
    /// Where models of the recipe are, by what it calls them.
    pub models: Vec<(String, Location)>,
    /// Values by the key of their setting, in the order in which they are applied.
    pub asked: Vec<(&'static str, Value)>,
    /// In place of a value for the setting of this name.
    pub shards: Option<Shards>,
    /// The most tensor bytes in one shard.
    pub shard_bytes: Option<u64>,
}

impl Wanted {
    /// The request, on top of the recipe if one is given: what is one thing replaces the recipe's,
    /// lists go on.
    ///
    /// # Errors
    /// If the recipe cannot be read, a source is not there, or a value is not possible.
    pub fn request(&self) -> Result<ViewRequest> {
        let places = Places::from_environment(self.models.clone());
        let mut request = match (&self.recipe, &self.base) {
            (Some(recipe), _) => {
                let local = Location::from(recipe).check_local("a recipe");
                local.map_err(|error| error.about(RECIPE))?;
                ViewRequest::from_recipe(&absolute(recipe), &places)?
            }
            (None, Some(base)) if self.models.is_empty() => ViewRequest {
                warnings: places.warnings(base)?,
                ..ViewRequest::new(places.location(base)?)
            },
            (None, Some(_)) => {
                let problem = "it is about a recipe, and there is none";
                let error = Error::new(Code::Conflict, problem).about(MODEL);
                return Err(error.with_hint(Hint::leave_out(MODEL)));
            }
            (None, None) => {
                let problem = "neither a base nor a recipe is given";
                return Err(Error::new(Code::Conflict, problem));
            }
        };
        let from_recipe = request.shards.take();
        for (key, value) in &self.asked {
            request.set(key, found(value, &places)?)?;
        }
        request.shards = self.shards.or(request.shards);
        match (request.shards, self.shard_bytes) {
            // What is asked for wins over the recipe: a size over its single file, and the other way round.
            (None, Some(_)) if from_recipe == Some(Shards::Single) => {
                request.shards = Some(Shards::Repack);
            }
            (None, _) => request.shards = from_recipe,
            (Some(Shards::Single), None) => request.shard_bytes = DEFAULT_SHARD_BYTES,
            (Some(_), _) => {}
        }
        if let Some(bytes) = self.shard_bytes {
            request.shard_bytes = bytes;
        }
        Ok(request)
    }
}

/// `value`, its file or source where it is: a view outlives the working directory that it is made in.
fn found(value: &Value, places: &Places) -> Result<Value> {
    Ok(match value {
        Value::File { name, from } => Value::File {
            name: name.clone(),
            from: match from.local() {
                Some(path) => Location::Local(absolute(path)),
                None => from.clone(),
            },
        },
        Value::Source {
            location,
            weight,
            names,
        } => Value::Source {
            location: places.location(location.as_path())?,
            weight: *weight,
            names: names.clone(),
        },
        other => other.clone(),
    })
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
