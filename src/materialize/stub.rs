//! A view without its weights, for programs that read these in process.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

use crate::error::{Code, Error, Result};
use crate::memory;
use crate::outputs::OutputCheck;
use crate::read::Reader;
use crate::recipe::{Plan, ViewRequest};

/// The name of the recipe in a stub.
pub const STUB_RECIPE: &str = "ckptfs.yml";

/// Writes every file of the view of `request` but its shards (config, tokenizer, index, …) to `directory`,
/// which is empty or does not exist, and its recipe as [`STUB_RECIPE`]: that last, so that a stub with
/// a recipe is complete.
///
/// # Errors
/// If the directory has files, is in a source or cannot be written to, or no recipe can describe the view.
pub fn write_stub(request: &ViewRequest, plan: &Plan, directory: &Path) -> Result<()> {
    let recipe = request.to_recipe()?;
    OutputCheck::new(&request.inputs(), &plan.view)?.check(directory)?;
    let failed = |action: &str, path: &Path, error| Error::io(action, path, error);
    match fs::create_dir(directory) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let mut entries =
                fs::read_dir(directory).map_err(|error| failed("list", directory, error))?;
            if entries.next().is_some() {
                let problem = "the directory is not empty";
                let error = Error::of_file(Code::BadDestination, directory, problem);
                return Err(error.with_hint("choose a new one"));
            }
        }
        made => made.map_err(|error| failed("create", directory, error))?,
    }
    let write = |path: &Path, text: &[u8]| {
        let written = File::create_new(path).and_then(|mut file| file.write_all(text));
        written.map_err(|error| failed("write", path, error))
    };
    let reader = Reader::new(plan.view.clone(), 0);
    let shards: Vec<_> = plan.shards.iter().map(|shard| shard.entry).collect();
    for (id, path, content) in plan.view.files() {
        if shards.contains(&id) || path == Path::new(STUB_RECIPE) {
            continue;
        }
        let path = directory.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|error| failed("create", parent, error))?;
        }
        let mut bytes = memory::zeros(content.len())?;
        reader.read_at(id, 0, &mut bytes)?;
        write(&path, &bytes)?;
    }
    write(&directory.join(STUB_RECIPE), recipe.as_bytes())
}
