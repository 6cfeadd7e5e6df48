//! Putting shards and index into an existing model directory, and touching nothing else in it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use serde_json::{Map, Value};

use crate::catalog::CONFIG_FILE;
use crate::error::setting::OVERWRITE;
use crate::error::{Code, Error, Hint, Result, Warning};
use crate::format::OUTPUT;
use crate::jobs::Progress;
use crate::materialize::destination::{Destination, swap_in};
use crate::materialize::ending::{discard, out_of_space, settle};
use crate::materialize::new_file::NewFile;
use crate::materialize::options::{Options, Summary};
use crate::materialize::partial::{Partial, is_placing};
use crate::materialize::request::Request;
use crate::materialize::write::{Writer, complete_record};
use crate::read::Reader;
use crate::recipe::Plan;
use crate::shown::Show;
use crate::view::View;

pub(super) fn place(
    plan: &Plan,
    destination: &Destination,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Summary> {
    if !destination.exists() {
        return Err(destination.refuse(
            Code::NotFound,
            "weights alone are placed into an existing model directory, and this does not exist",
        ));
    }
    let path = destination.partial_inside();
    // Once files are being placed, some that are there may be from here.
    let was_placing = is_placing(&path);
    let mut files = weights(plan);
    if !was_placing {
        check_names(&files, &[], destination, options.overwrite)?;
    }
    let request = Request::new(plan, true, None);
    let restore = |previous: &_| restore(previous, destination);
    let partial = Partial::open(path, options, request, restore, progress)?;
    let mut placed = Vec::new();
    if was_placing {
        for file in &files {
            let path = destination.path().join(&file.path);
            if complete_record(&partial, file, &path, false, progress)?.is_some() {
                placed.push(file.path.clone());
            }
        }
        check_names(&files, &placed, destination, options.overwrite)?;
        files.retain(|file| !placed.contains(&file.path));
    }
    let mut summary = Writer::new(plan, &partial, destination.shown(), options, progress)?
        .write(&files)
        .map_err(|e| out_of_space(e, destination, &partial, &files))?;
    summary.files += placed.len();
    summary.kept += placed.len();
    summary.warnings.extend(config_warning(plan, destination)?);
    let aside = partial.previous();
    fs::create_dir_all(&aside).map_err(|e| Error::io("create", &aside, e))?;
    partial.begin_placing()?;
    put_in_place(&files, &partial.view(), &aside, destination).inspect_err(|_| {
        if placed.is_empty() {
            partial.end_placing();
        }
    })?;
    settle(destination.path(), &mut summary);
    discard(partial, &mut summary);
    Ok(summary)
}

/// Moves back what a run that was stopped between two renames has left in `previous`.
fn restore(previous: &Path, destination: &Destination) -> Result<()> {
    let Ok(entries) = fs::read_dir(previous) else {
        return Ok(());
    };
    for entry in entries {
        let entry = entry.map_err(|e| Error::io("list", previous, e))?;
        let target = destination.path().join(entry.file_name());
        if target.symlink_metadata().is_err() {
            let moved = fs::rename(entry.path(), &target);
            moved.map_err(|e| Error::io("move the previous content back to", &target, e))?;
        }
    }
    Ok(())
}

/// The shards and then the index, which makes them a checkpoint.
pub(super) fn weights(plan: &Plan) -> Vec<NewFile<'_>> {
    let mut weights: Vec<NewFile> = NewFile::all(plan)
        .into_iter()
        .filter(|file| file.is_shard() || Some(file.entry) == plan.index)
        .collect();
    weights.sort_by_key(|file| !file.is_shard());
    weights
}

/// # Errors
/// If a name is taken that must not be, other than by those that are `placed`, or loaders would
/// mix other weights up with these.
fn check_names(
    files: &[NewFile],
    placed: &[PathBuf],
    destination: &Destination,
    overwrite: bool,
) -> Result<()> {
    let mut taken = Vec::new();
    for file in files.iter().filter(|file| !placed.contains(&file.path)) {
        match destination.path().join(&file.path).symlink_metadata() {
            Ok(metadata) if metadata.is_dir() => {
                let name = file.path.shown();
                let problem =
                    format!("{name} in it is a directory, and a file is to have this name");
                let error = destination.refuse(Code::NotEmpty, problem);
                return Err(error.with_hint("move it away"));
            }
            Ok(_) => taken.push(file.path.shown().to_string()),
            Err(_) => {}
        }
    }
    let list_error = |e| Error::io("list", destination.shown(), e);
    let mut others = Vec::new();
    for entry in fs::read_dir(destination.path()).map_err(list_error)? {
        let name = PathBuf::from(entry.map_err(list_error)?.file_name());
        // Loaders go by an index also where the view has none.
        let is_weights =
            OUTPUT.is_shard(name.as_os_str()) || name == Path::new(OUTPUT.index_file());
        if is_weights && files.iter().all(|file| file.path != name) {
            others.push(name.shown().to_string());
        }
    }
    others.sort();
    if !others.is_empty() {
        let problem = format!(
            "other weights are there, and loaders would read them together with those of the view: {}",
            others.join(", ")
        );
        let error = destination.refuse(Code::OtherWeights, problem);
        return Err(error.with_hint("delete or move them first"));
    }
    if taken.is_empty() || overwrite {
        Ok(())
    } else {
        let problem = format!("there already: {}", taken.join(", "));
        let error = destination.refuse(Code::NotEmpty, problem);
        Err(error.with_hint(Hint::give(OVERWRITE).to("replace them")))
    }
}

/// A file that now has its new content.
struct Placed {
    target: PathBuf,
    /// Where the content is that it had.
    old: Option<PathBuf>,
}

/// Moves the staged files to their names. After a failure all names are as before.
fn put_in_place(
    files: &[NewFile],
    staged: &Path,
    aside: &Path,
    destination: &Destination,
) -> Result<()> {
    let mut placed: Vec<Placed> = Vec::new();
    for file in files {
        let target = destination.path().join(&file.path);
        match move_to(&staged.join(&file.path), &target, &aside.join(&file.path)) {
            Ok(old) => placed.push(Placed { target, old }),
            Err(e) => {
                take_back(placed);
                return Err(Error::io("put the finished file here", target, e));
            }
        }
    }
    Ok(())
}

fn move_to(new: &Path, target: &Path, aside: &Path) -> io::Result<Option<PathBuf>> {
    if target.symlink_metadata().is_ok() {
        return swap_in(new, target, aside).map(Some);
    }
    match renameat_with(CWD, new, CWD, target, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => fs::rename(new, target)?,
        result => result?,
    }
    Ok(None)
}

fn take_back(placed: Vec<Placed>) {
    for Placed { target, old } in placed.into_iter().rev() {
        // The error that led here is the one to report.
        let _ = match old {
            Some(old) => fs::rename(old, target),
            None => fs::remove_file(target),
        };
    }
}

/// Says where the directory's config.json, which stays, is not the view's.
fn config_warning(plan: &Plan, destination: &Destination) -> Result<Option<Warning>> {
    let Some(id) = plan.view.lookup(View::ROOT, CONFIG_FILE.as_ref()) else {
        return Ok(None);
    };
    let Some(content) = plan.view.file(id) else {
        return Ok(None);
    };
    let mut wanted = vec![0; content.len() as usize];
    Reader::new(plan.view.clone(), 0).read_at(id, 0, &mut wanted)?;
    let shown = destination.shown().join(CONFIG_FILE);
    let warning = |problem: String| {
        let warning = Warning::new(Code::OtherWeights, problem).in_file(shown.clone());
        Some(warning.with_hint("loaders go by it, so copy the config.json of the view"))
    };
    let Ok(found) = fs::read(destination.path().join(CONFIG_FILE)) else {
        let problem = "the view has this file and the directory does not";
        return Ok(warning(problem.to_owned()));
    };
    if found == wanted {
        return Ok(None);
    }
    let difference = match (parse(&wanted), parse(&found)) {
        (Some(wanted), Some(found)) if wanted == found => return Ok(None),
        (Some(wanted), Some(found)) => differing_keys(&wanted, &found),
        _ => "its text is another".to_owned(),
    };
    Ok(warning(format!(
        "it is not the config.json of the view: {difference}"
    )))
}

fn parse(text: &[u8]) -> Option<Map<String, Value>> {
    serde_json::from_slice(text).ok()
}

fn differing_keys(wanted: &Map<String, Value>, found: &Map<String, Value>) -> String {
    let missing = wanted
        .keys()
        .filter(|key| !found.contains_key(*key))
        .map(|key| format!("{key} is missing"));
    let changed = wanted
        .iter()
        .filter(|(key, value)| found.get(*key).is_some_and(|other| other != *value))
        .map(|(key, _)| format!("{key} differs"));
    let extra = found
        .keys()
        .filter(|key| !wanted.contains_key(*key))
        .map(|key| format!("{key} is only there"));
    missing
        .chain(changed)
        .chain(extra)
        .collect::<Vec<_>>()
        .join(", ")
}
