//! What is different between two views (a checkpoint directory or a mount is a view of itself):
//! tensors by name, and the other files by path. Values are streamed; memory stays at a few chunks
//! a thread.

mod files;
mod numbers;
mod rows;
mod tensors;
mod what;

use std::path::Path;

use serde::Serialize;

pub use files::{FileDiff, KeyDiff};
pub use numbers::Values;
pub use rows::{Row, rows};
pub use tensors::{Header, TensorDiff};
pub use what::What;

use crate::error::Result;
use crate::jobs::Progress;
use crate::read::Reader;
use crate::recipe::{Places, Plan, ViewRequest};
use crate::source::Location;

/// What is different from the first view to the second.
#[derive(Debug, Clone, Serialize)]
pub struct Diff {
    /// Tensors of the first and of the second view.
    pub tensors: [usize; 2],
    /// Tensors that are the same in both.
    pub equal: usize,
    /// Whether values were compared; else tensors count as equal by dtype and shape.
    pub values_compared: bool,
    /// Tensors that are not the same: those of the first view in its order, then those that only
    /// the second has.
    pub different: Vec<TensorDiff>,
    /// Files beside shards and index that are the same in both.
    pub files_equal: usize,
    /// In the order of their paths.
    pub files: Vec<FileDiff>,
}

impl Diff {
    /// Whether nothing is different.
    pub fn is_empty(&self) -> bool {
        self.different.is_empty() && self.files.is_empty()
    }
}

/// The request for what `path` names: the view of a recipe if it is a file, else a checkpoint directory
/// or a mount as it is.
///
/// # Errors
/// If there is no such thing, or the recipe cannot be understood.
pub fn request(path: &Path, models: &[(String, Location)]) -> Result<ViewRequest> {
    let places = Places::from_environment(models.to_vec());
    if path.is_file() {
        ViewRequest::from_recipe(path, &places)
    } else {
        Ok(ViewRequest::new(places.location(path)?))
    }
}

/// Compares the views of two plans, on `jobs` threads; without `values` only names, dtypes and
/// shapes of tensors, and all bytes of other files.
///
/// # Errors
/// If one of them cannot be read.
pub fn diff(
    [a, b]: [&Plan; 2],
    values: bool,
    jobs: usize,
    progress: &dyn Progress,
) -> Result<Diff> {
    /// Bytes of computed tiles that are kept: everything is read once or twice, front to back.
    const CACHE_BYTES: usize = 64 << 20;
    let readers = [a, b].map(|plan| Reader::new(plan.view.clone(), CACHE_BYTES));
    let sides = tensors::Side::aligned([
        tensors::Side::new(a, &readers[0])?,
        tensors::Side::new(b, &readers[1])?,
    ]);
    let tensors = [sides[0].len(), sides[1].len()];
    let (equal, different) = tensors::compare(&sides, values, jobs, progress)?;
    let (files_equal, files) = files::compare([a, b], [&readers[0], &readers[1]], progress)?;
    Ok(Diff {
        tensors,
        equal,
        values_compared: values,
        different,
        files_equal,
        files,
    })
}
