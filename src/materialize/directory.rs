//! Writing a view as a directory: in one run, or in parts that are then put together.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::jobs::{self, Progress};
use crate::manifest::{self, MANIFEST_FILE};
use crate::materialize::destination::Destination;
use crate::materialize::ending::{discard, out_of_space, settle};
use crate::materialize::new_file::NewFile;
use crate::materialize::options::{Options, Share, Summary};
use crate::materialize::output::sync_directory;
use crate::materialize::partial::{Partial, is_placing, parts_at};
use crate::materialize::parts::{Seen, deal};
use crate::materialize::request::Request;
use crate::materialize::watcher::Watcher;
use crate::materialize::write::{Writer, complete_record};
use crate::recipe::Plan;

/// A run that has its partial directory to itself.
#[derive(Debug)]
pub(super) struct Begun {
    partial: Partial,
    /// Whether an earlier run was about to move its files, or has.
    was_placing: bool,
    parts: Option<usize>,
}

impl Begun {
    /// Whether an earlier run has recorded `file` as complete.
    pub(super) fn has(&self, file: &NewFile) -> bool {
        self.partial.record(file.entry).is_some()
    }
}

/// What a run has written.
#[derive(Debug)]
pub(super) struct Written {
    summary: Summary,
    /// The partial directory, which can go: all files are at the destination. `None` where those of
    /// a part wait for the others.
    placed: Option<Partial>,
}

/// Takes the partial directory of the view of `plan`.
///
/// # Errors
/// If it belongs to somebody else, or the destination is not to be replaced.
pub(super) fn begin(
    plan: &Plan,
    destination: &Destination,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Begun> {
    let path = destination.partial_beside();
    // Once files are being placed, what is at the destination may be from here.
    let was_placing = is_placing(&path);
    if !was_placing {
        destination.check_replaceable(options.overwrite)?;
    }
    destination.make_parent()?;
    let parts = match options.share {
        Share::Whole => None,
        Share::Part(part) => Some(part.count()),
        Share::Finish => Some(parts_at(&path)?),
    };
    let request = Request::new(plan, false, parts);
    let restore = |previous: &_| destination.restore(previous);
    let partial = Partial::open(path, options, request, restore, progress)?;
    Ok(Begun {
        partial,
        was_placing,
        parts,
    })
}

/// Writes the files and moves them to their place.
pub(super) fn write(
    begun: Begun,
    plan: &Plan,
    destination: &Destination,
    options: &Options,
    progress: &dyn Progress,
    watcher: &dyn Watcher,
) -> Result<Written> {
    let Begun {
        partial,
        was_placing,
        parts,
    } = begun;
    let all = NewFile::all(plan);
    if was_placing && is_placed(&partial, destination, &all, options, progress)? {
        for file in &all {
            watcher.complete(file.entry, &destination.path().join(&file.path));
        }
        watcher.placed(destination.path(), &mut || Ok(()))?;
        return Ok(Written {
            summary: all_kept(&all),
            placed: Some(partial),
        });
    }
    // What was there may be back.
    destination.check_replaceable(options.overwrite)?;
    let files = files(plan, options.share);
    let write = |files: &[NewFile]| {
        let writer = Writer::new(plan, &partial, destination.shown(), options, progress)?;
        let written = writer.watched_by(watcher).write(files);
        written.map_err(|e| out_of_space(e, destination, &partial, files))
    };
    let summary = match options.share {
        Share::Whole => {
            let summary = write(&files)?;
            write_manifest(&partial, &files, options)?;
            summary
        }
        Share::Part(_) => {
            return Ok(Written {
                summary: write(&files)?,
                placed: None,
            });
        }
        Share::Finish => {
            let parts = parts.expect("parts are finished");
            let shards: Vec<NewFile> = all.into_iter().filter(NewFile::is_shard).collect();
            check_parts(&partial, parts, &shards, options)?;
            let written = write(&files)?;
            let mut summary = all_kept(&shards);
            summary.files += written.files;
            summary.bytes += written.bytes;
            summary.kept += written.kept;
            summary.kept_bytes += written.kept_bytes;
            let files: Vec<NewFile> = shards.into_iter().chain(files).collect();
            write_manifest(&partial, &files, options)?;
            summary
        }
    };
    partial.begin_placing()?;
    let mut place =
        || destination.replace_with(&partial.view(), &partial.previous(), options.overwrite);
    let placed = watcher.placed(destination.path(), &mut place);
    placed.inspect_err(|_| partial.end_placing())?;
    Ok(Written {
        summary,
        placed: Some(partial),
    })
}

/// The files that a run with this share of the view writes, shards first.
pub(super) fn files(plan: &Plan, share: Share) -> Vec<NewFile<'_>> {
    let (shards, others): (Vec<NewFile>, Vec<NewFile>) =
        NewFile::all(plan).into_iter().partition(NewFile::is_shard);
    match share {
        Share::Whole => shards.into_iter().chain(others).collect(),
        Share::Finish => others,
        Share::Part(part) => {
            let part_of = part_of_shards(&shards, part.count());
            let of_part = |(_, number): &(NewFile, usize)| *number == part.number();
            let own = shards.into_iter().zip(part_of).filter(of_part);
            own.map(|(shard, _)| shard).collect()
        }
    }
}

impl Written {
    /// Deletes what is left once the files are in place.
    pub(super) fn finish(self, destination: &Destination) -> Summary {
        let mut summary = self.summary;
        if let Some(partial) = self.placed {
            settle(destination.parent(), &mut summary);
            discard(partial, &mut summary);
        }
        summary
    }
}

/// The summary of `files` that are all from earlier runs.
fn all_kept(files: &[NewFile]) -> Summary {
    let bytes = files.iter().map(|file| file.content.len()).sum();
    Summary {
        files: files.len(),
        bytes,
        kept: files.len(),
        kept_bytes: bytes,
        ..Summary::default()
    }
}

/// Whether an earlier run was stopped when all was in place already.
fn is_placed(
    partial: &Partial,
    destination: &Destination,
    files: &[NewFile],
    options: &Options,
    progress: &dyn Progress,
) -> Result<bool> {
    let has_manifest = destination.path().join(MANIFEST_FILE).exists();
    if !partial.is_placed_at(destination.path()) || options.sha256 && !has_manifest {
        return Ok(false);
    }
    progress.start(files.iter().map(|file| file.content.len()).sum());
    let placed = jobs::map(files, options.jobs, |file| {
        let path = destination.path().join(&file.path);
        let placed = match partial.record(file.entry) {
            None => false,
            Some(record) if record.can_be_checked() => {
                complete_record(partial, file, &path, false, progress)?.is_some()
            }
            Some(_) => has_length(&path, file.content.len()),
        };
        progress.advance(file.content.len());
        Ok(placed)
    })?;
    Ok(placed.into_iter().all(|placed| placed))
}

fn has_length(path: &Path, len: u64) -> bool {
    path.symlink_metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.len() == len)
}

fn part_of_shards(shards: &[NewFile], parts: usize) -> Vec<usize> {
    let lengths: Vec<u64> = shards.iter().map(|shard| shard.content.len()).collect();
    deal(&lengths, parts)
}

/// # Errors
/// If a part is not complete; all such parts are named.
fn check_parts(
    partial: &Partial,
    parts: usize,
    shards: &[NewFile],
    options: &Options,
) -> Result<()> {
    let mut seen = Seen::new(parts);
    for (shard, part) in shards.iter().zip(part_of_shards(shards, parts)) {
        let record = partial.record(shard.entry);
        let path = partial.view().join(&shard.path);
        let complete = record.filter(|_| has_length(&path, shard.content.len()));
        seen.add(part, complete.map(|record| record.sha256().is_some()));
    }
    let again = "run them again, which only reads";
    seen.check(partial.path(), options.sha256, again, |part| {
        partial.has_part(part)
    })
}

/// Writes the checksums of `files` beside them, if they are asked for.
fn write_manifest(partial: &Partial, files: &[NewFile], options: &Options) -> Result<()> {
    if !options.sha256 {
        return Ok(());
    }
    let sums: BTreeMap<PathBuf, _> = files
        .iter()
        .map(|file| {
            let record = partial
                .record(file.entry)
                .and_then(|record| record.sha256());
            (file.path.clone(), record.expect("every file was summed"))
        })
        .collect();
    let path = partial.view().join(MANIFEST_FILE);
    let write = || {
        // Of an earlier run.
        if path.symlink_metadata().is_ok() {
            fs::remove_file(&path)?;
        }
        let mut file = File::create_new(&path)?;
        file.write_all(&manifest::text(&sums))?;
        file.sync_all()
    };
    write().map_err(|e| Error::io("write", &path, e))?;
    sync_directory(&partial.view())
}
