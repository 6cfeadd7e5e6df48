//! A directory's files against the checksums that lie beside them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Code, Error, Result, Warning};
use crate::findings::Faults;
use crate::format::OUTPUT;
use crate::jobs::{self, Progress};
use crate::manifest::{MANIFEST_FILE, MAX_MANIFEST_BYTES, Sha256Sum, parse, to_hex};
use crate::shown::Show;
use crate::source::{Blob, LocalFile, with_room};
use crate::text::counted;

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
    let path = directory.join(MANIFEST_FILE);
    if path.symlink_metadata().is_err() {
        return Ok(None);
    }
    let text = LocalFile::new(path.as_path())?.read_all(MAX_MANIFEST_BYTES)?;
    let sums: Vec<(PathBuf, Sha256Sum)> = parse(&text, &path)?.into_iter().collect();
    let length = |path: &PathBuf| directory.join(path).metadata().map_or(0, |m| m.len());
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
        let sum = sum_of(&directory.join(path), progress);
        if progress.cancelled() {
            Err(Error::interrupted())
        } else {
            Ok(sum.map_err(|e| (e.kind(), e.to_string())))
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
            Err((ErrorKind::NotFound | ErrorKind::NotADirectory, _)) => {
                let fault = format!("files that {MANIFEST_FILE} names and are missing");
                faults
                    .problems
                    .add_item(Code::BadChecksum, fault, path.to_string());
            }
            Err((_, error)) => faults
                .problems
                .add(Code::BadChecksum, format!("{path}: cannot read: {error}")),
        }
    }
    find_extra(directory, &sums.into_iter().collect(), &mut faults)?;
    report.problems = faults.problems.into_warnings();
    report.warnings = faults.warnings.into_warnings();
    Ok(Some(report))
}

/// The checksum of the file at `path`, links followed.
fn sum_of(path: &Path, progress: &dyn Progress) -> io::Result<Sha256Sum> {
    // Opening a FIFO or device could block.
    if !path.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut file = with_room(|| File::open(path))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    while !progress.cancelled() {
        let count = match file.read(&mut buffer) {
            Ok(0) => break,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            count => count?,
        };
        hash.update(&buffer[..count]);
        progress.advance(count as u64);
    }
    Ok(hash.finalize().into())
}

/// Looks for files without a checksum. Links to directories are not followed.
fn find_extra(
    directory: &Path,
    sums: &BTreeMap<PathBuf, Sha256Sum>,
    faults: &mut Faults,
) -> Result<()> {
    let mut pending = vec![PathBuf::new()];
    while let Some(inner) = pending.pop() {
        let at = directory.join(&inner);
        let list_error = |e| Error::io("list", &at, e);
        for entry in with_room(|| fs::read_dir(&at)).map_err(list_error)? {
            let entry = entry.map_err(list_error)?;
            let path = inner.join(entry.file_name());
            let is_directory = entry.file_type().map_err(list_error)?.is_dir();
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
