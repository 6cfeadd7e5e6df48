//! A directory's files against the checksums that lie beside them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Code, Error, Result, Warning};
use crate::findings::Faults;
use crate::format::OUTPUT;
use crate::jobs::{self, Progress};
use crate::manifest::{MANIFEST_FILE, MAX_MANIFEST_BYTES, Sha256Sum, parse, to_hex};
use crate::shown::Show;
use crate::text::counted;
use crate::verify::place::{Place, Shape};

/// How a directory compares with its checksums.
#[derive(Debug, Clone, Default)]
pub struct ManifestReport {
    /// Files that have a checksum, and the bytes of those that are there.
    pub files: usize,
    pub bytes: u64,
    /// Files that are missing, cannot be read or have another checksum, and weights without one.
    pub problems: Vec<Warning>,
    /// Other files without a checksum.
    pub warnings: Vec<Warning>,
}

/// Reads every file of `directory` that `SHA256SUMS` in it names, on `jobs` threads, and compares;
/// `None` if there is no such file.
///
/// # Errors
/// If `SHA256SUMS` cannot be read or understood, or the directory cannot be listed. All else is in
/// the report.
pub fn manifest(
    directory: &Path,
    jobs: usize,
    progress: &dyn Progress,
) -> Result<Option<ManifestReport>> {
    let place = Place::open(directory)?;
    if !place.has(MANIFEST_FILE) {
        return Ok(None);
    }
    let text = place.blob(MANIFEST_FILE)?.read_all(MAX_MANIFEST_BYTES)?;
    let sums = parse(&text, &place.path_of(MANIFEST_FILE))?;
    let sums: Vec<(PathBuf, Sha256Sum)> = sums.into_iter().collect();
    let length = |path: &PathBuf| match place.shape(path) {
        Ok(Some(Shape::File(len))) => len,
        _ => 0,
    };
    let mut report = ManifestReport {
        files: sums.len(),
        bytes: sums.iter().map(|(path, _)| length(path)).sum(),
        ..ManifestReport::default()
    };
    let what = format!(
        "{} named by {MANIFEST_FILE}, to compare checksums",
        counted(report.files, "file")
    );
    progress.start_reading(&what, report.bytes);
    let mut faults = Faults::default();
    let found = jobs::map(&sums, jobs, |(path, _)| {
        progress.file(path);
        let sum = sum_of(&place, path, progress);
        if progress.cancelled() {
            Err(Error::interrupted())
        } else {
            Ok(sum)
        }
    })?;
    for ((path, sum), found) in sums.iter().zip(found) {
        let path = path.shown();
        match found {
            Ok(found) if found == *sum => {}
            Ok(found) => faults.problems.add(
                Code::BadChecksum,
                format!(
                    "{path}: its SHA-256 is {}, and {MANIFEST_FILE} has {}",
                    to_hex(&found),
                    to_hex(sum)
                ),
            ),
            Err(None) => {
                let fault = format!("files that {MANIFEST_FILE} names and are missing");
                faults
                    .problems
                    .add_item(Code::BadChecksum, fault, path.to_string());
            }
            Err(Some(error)) => faults
                .problems
                .add(Code::BadChecksum, format!("{path}: cannot read: {error}")),
        }
    }
    find_extra(&place, &sums.into_iter().collect(), &mut faults)?;
    report.problems = faults.problems.into_warnings();
    report.warnings = faults.warnings.into_warnings();
    Ok(Some(report))
}

/// The checksum of the file `name`, links followed; else what is wrong with it, or `None` if there is
/// no such file.
fn sum_of(
    place: &Place,
    name: &Path,
    progress: &dyn Progress,
) -> std::result::Result<Sha256Sum, Option<String>> {
    let said = |error: Error| match error.io_error() {
        Some(error) => Some(error.to_string()),
        None => Some(error.problem().to_owned()),
    };
    // Opening a FIFO or device could block.
    let len = match place.shape(name).map_err(said)? {
        Some(Shape::File(len)) => len,
        Some(_) => return Err(Some("it is not a regular file".to_owned())),
        None => return Err(None),
    };
    let path = place.path_of(name);
    let file = place.opened(name).map_err(said)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; len.min(1 << 20) as usize];
    let mut at = 0;
    while at < len && !progress.cancelled() {
        let count = (len - at).min(1 << 20);
        let buffer = &mut buffer[..count as usize];
        file.read_exact_at(buffer, at, &path).map_err(said)?;
        hash.update(&*buffer);
        at += count;
        progress.advance(count);
    }
    Ok(hash.finalize().into())
}

/// Looks for files without a checksum. Links to directories are not followed.
fn find_extra(
    place: &Place,
    sums: &BTreeMap<PathBuf, Sha256Sum>,
    faults: &mut Faults,
) -> Result<()> {
    let mut pending = vec![PathBuf::new()];
    while let Some(inner) = pending.pop() {
        for (name, is_directory) in place.entries(&inner)? {
            let path = inner.join(name);
            if is_directory {
                // Of tools that fetch models.
                if path != Path::new(".git") && path != Path::new(".cache") {
                    pending.push(path);
                }
            } else if !sums.contains_key(&path) && path != Path::new(MANIFEST_FILE) {
                let (findings, what) = if OUTPUT.is_shard(path.as_os_str()) {
                    (&mut faults.problems, "weights")
                } else {
                    (&mut faults.warnings, "files")
                };
                let fault = format!("{what} that {MANIFEST_FILE} does not name");
                findings.add_item(Code::BadChecksum, fault, path.display().to_string());
            }
        }
    }
    Ok(())
}
