//! `RUN@latest`: the newest complete checkpoint in the directory of a training run.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use regex::Regex;

use crate::error::{Code, Error, Result, Warning};
use crate::format::Checkpoint;
use crate::shown::Show;
use crate::source::Location;

/// What stands after a directory in place of a revision.
pub(super) const LATEST: &str = "latest";

/// How the Trainer of transformers, DeepSpeed, verl, Megatron-Core and others call checkpoints.
static CHECKPOINT: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^(?:checkpoint-|global_step_?|iter_|step[-_])([0-9]{1,18})$")
        .expect("a valid expression")
});

/// The checkpoint that was found, and a warning for each newer one that is not complete.
#[derive(Debug)]
pub(super) struct Latest {
    pub(super) directory: PathBuf,
    pub(super) warnings: Vec<Warning>,
}

/// The run that `path` names the newest checkpoint of: `RUN@latest`, where `RUN` is a directory.
pub(super) fn run(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let run = name.strip_suffix(LATEST)?.strip_suffix('@')?;
    let run = path.with_file_name(run);
    run.is_dir().then_some(run)
}

/// The newest complete checkpoint in the directory `run`.
///
/// # Errors
/// If there is none, or the newest one is damaged otherwise than by being incomplete.
pub(super) fn latest(run: &Path) -> Result<Latest> {
    let directory = Location::Local(run.to_owned()).open()?;
    let names = directory.names()?;
    let mut found: Vec<(u64, &str)> = names
        .iter()
        .filter_map(|name| name.to_str())
        .filter_map(|name| Some((CHECKPOINT.captures(name)?[1].parse().ok()?, name)))
        .filter(|(_, name)| run.join(name).is_dir())
        .collect();
    found.sort_unstable();
    let mut warnings = Vec::new();
    let mut newest = None;
    for (_, name) in found.into_iter().rev() {
        let path = run.join(name);
        match Checkpoint::open(Location::Local(path.clone())) {
            Ok(_) => {
                return Ok(Latest {
                    directory: path,
                    warnings,
                });
            }
            Err(error) if is_incomplete(error.code()) => {
                let problem =
                    format!("it is not complete, and an older checkpoint is taken: {error}");
                warnings.push(Warning::new(error.code(), problem).in_file(path));
                newest = newest.or(Some(error));
            }
            Err(error) => return Err(error),
        }
    }
    Err(newest.unwrap_or_else(|| {
        let problem = format!(
            "{} has no checkpoint-N, global_stepN, global_step_N, iter_N or step-N",
            run.shown()
        );
        Error::of_file(Code::NoCheckpoint, run, problem)
    }))
}

/// Whether this may be of a checkpoint that is still being written.
fn is_incomplete(code: Code) -> bool {
    matches!(
        code,
        Code::Unfinished | Code::MissingShard | Code::Truncated | Code::NoCheckpoint
    )
}
