//! Writing a view while something else uses it: each file as soon as it is complete, and in the end
//! the directory, which is then the same that [`materialize`](super::materialize) writes.
//!
//! A complete directory has a *receipt* beside it, `.NAME.ckptfs-persisted`: the request that it is of
//! and the identity of each file. By it the next run knows the directory without reading it.

use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};
use crate::jobs::Progress;
use crate::materialize::destination::{Destination, url};
use crate::materialize::directory::{self, Begun};
use crate::materialize::new_file::NewFile;
use crate::materialize::options::{Options, Share, Summary};
use crate::materialize::outlook::outlook;
use crate::materialize::partial::is_placing;
use crate::materialize::request::Request;
use crate::materialize::space::Outlook;
use crate::materialize::state::replace;
use crate::materialize::watcher::Watcher;
use crate::recipe::Plan;
use crate::shown::Show;

/// How the names of receipts end.
const SUFFIX: &str = ".ckptfs-persisted";

/// What an earlier run has made of a directory.
#[derive(Debug, Serialize, Deserialize)]
struct Receipt {
    request: Request,
    files: Vec<Written>,
}

/// A file of a complete directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Written {
    /// Relative to the directory.
    file: PathBuf,
    inode: u64,
    bytes: u64,
    /// Seconds and nanoseconds since 1970.
    modified: (i64, i64),
}

impl Written {
    fn new(file: PathBuf, metadata: &Metadata) -> Self {
        Written {
            file,
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

/// A view that is to be written to a directory, which nobody else writes to meanwhile.
#[derive(Debug)]
pub struct Persisting {
    plan: Arc<Plan>,
    destination: Destination,
    options: Options,
    /// `None` if an earlier run has written all of it.
    begun: Option<Begun>,
}

impl Persisting {
    /// Takes the directory `out` for the view of `plan`, which was planned from `inputs`. Nothing is
    /// overwritten and nothing given up, whatever `options` say. `progress` is told what is odd.
    ///
    /// # Errors
    /// As [`materialize`](super::materialize); if an earlier run was of another request; if a file
    /// that it completed is no longer what it was; if there is too little space.
    pub fn begin(
        plan: Arc<Plan>,
        inputs: &[PathBuf],
        out: &Path,
        options: Options,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let options = Options {
            hardlink: false,
            overwrite: false,
            start_again: false,
            weights_only: false,
            share: Share::Whole,
            ..options
        };
        let destination = Destination::resolve(out, &plan, inputs, &options)?;
        let begun = once_others_have_ended(|| {
            let partial = destination.partial_beside();
            if !is_placing(&partial) && is_finished(&plan, &destination)? {
                return Ok(None);
            }
            outlook(&plan, inputs, out, &options)?.check_space(out)?;
            let begun = directory::begin(&plan, &destination, &options, progress);
            begun
                .map(Some)
                .map_err(|e| destination.as_asked_for(e, &partial))
        })?;
        Ok(Persisting {
            plan,
            destination,
            options,
            begun,
        })
    }

    /// Bytes of the files that no earlier run has recorded as complete.
    pub fn bytes_left(&self) -> u64 {
        let Some(begun) = &self.begun else {
            return 0;
        };
        let missing = NewFile::all(&self.plan).into_iter();
        let missing = missing.filter(|file| !begun.has(file));
        missing.map(|file| file.content.len()).sum()
    }

    /// Whether all is written already.
    pub fn is_finished(&self) -> bool {
        self.begun.is_none()
    }

    /// The directory, without links.
    pub fn directory(&self) -> &Path {
        self.destination.path()
    }

    /// Where files are until all of them are complete.
    pub fn staging(&self) -> PathBuf {
        self.destination.partial_beside()
    }

    /// Writes what is missing, and then has the directory take its place. If it
    /// is told to stop, or fails, what is complete stays for the next run.
    ///
    /// # Errors
    /// As [`materialize`](super::materialize).
    pub fn run(self, progress: &dyn Progress, watcher: &dyn Watcher) -> Result<Summary> {
        let Persisting {
            plan,
            destination,
            options,
            begun,
        } = self;
        let files = NewFile::all(&plan);
        let begun = match begun {
            Some(begun) => begun,
            None => {
                let directory = destination.path();
                for file in &files {
                    watcher.complete(file.entry, &directory.join(&file.path));
                }
                watcher.placed(directory, &mut || Ok(()))?;
                let bytes = files.iter().map(|file| file.content.len()).sum();
                progress.start(bytes);
                progress.skip(bytes);
                return Ok(Summary::default());
            }
        };
        let partial = destination.partial_beside();
        let written = directory::write(begun, &plan, &destination, &options, progress, watcher);
        let written = written.map_err(|e| destination.as_asked_for(e, &partial))?;
        // Before what else would say so is deleted.
        leave_receipt(&plan, &destination, &files)?;
        Ok(written.finish(&destination))
    }
}

/// What [`materialize`](super::materialize), or a [`Persisting`], would do with the directory `out`,
/// which either may have written already.
///
/// # Errors
/// If it is refused.
pub fn persist_outlook(plan: &Plan, inputs: &[PathBuf], out: &Path) -> Result<Outlook> {
    let options = Options::default();
    if url(out).is_some() {
        return outlook(plan, inputs, out, &options);
    }
    let destination = Destination::resolve(out, plan, inputs, &options)?;
    let is_complete = !is_placing(&destination.partial_beside())
        && receipt_of(&destination).exists()
        && is_finished(plan, &destination)?;
    if is_complete {
        return Outlook::complete(plan, destination.path());
    }
    outlook(plan, inputs, out, &options)
}

/// What `begin` gives, tried again while another process has the directory: that of a mount which was
/// just taken away is about to let go of it.
fn once_others_have_ended<T>(begin: impl Fn() -> Result<T>) -> Result<T> {
    const PATIENCE: Duration = Duration::from_secs(3);
    let start = Instant::now();
    loop {
        match begin() {
            Err(error) if error.code() == Code::Locked && start.elapsed() < PATIENCE => {
                thread::sleep(Duration::from_millis(10));
            }
            begun => return begun,
        }
    }
}

/// Whether an earlier run has completed the destination.
///
/// # Errors
/// If that was of another request, or it was changed since.
fn is_finished(plan: &Plan, destination: &Destination) -> Result<bool> {
    if !destination.exists() {
        return Ok(false);
    }
    let path = receipt_of(destination);
    let text = match fs::read(&path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return refuse_others(destination),
        text => text.map_err(|e| Error::io("read", &path, e))?,
    };
    let receipt: Receipt = serde_json::from_slice(&text).map_err(|e| {
        let problem = format!("this cannot be understood: {e}");
        let error = Error::of_file(Code::OtherRequest, &path, problem);
        error.with_hint("delete it and the directory that it is of to write that again")
    })?;
    if let Some(difference) = Request::new(plan, false, None).difference(&receipt.request) {
        let problem = format!("what is written here is not what was asked for: {difference}");
        let error = destination.refuse(Code::OtherRequest, problem);
        return Err(error.with_hint("choose another directory, or delete this one"));
    }
    for written in &receipt.files {
        let now = destination.path().join(&written.file).symlink_metadata();
        let now = now.map(|now| Written::new(written.file.clone(), &now));
        if !now.is_ok_and(|now| now == *written) {
            let problem = format!(
                "{} in it is not the file that was written here",
                written.file.shown()
            );
            let error = destination.refuse(Code::OtherRequest, problem);
            return Err(error.with_hint("choose another directory, or delete this one"));
        }
    }
    Ok(true)
}

/// # Errors
/// If the destination, which no run has completed, holds something.
fn refuse_others(destination: &Destination) -> Result<bool> {
    let path = destination.path();
    let list_error = |e| Error::io("list", destination.shown(), e);
    if fs::read_dir(path).map_err(list_error)?.next().is_none() {
        return Ok(false);
    }
    let problem = "this directory is not empty, and was not written by a mount";
    let error = destination.refuse(Code::NotEmpty, problem);
    Err(error.with_hint("choose another directory; the view is put there whole"))
}

fn receipt_of(destination: &Destination) -> PathBuf {
    destination.beside(SUFFIX)
}

/// Says beside the destination, which has all of `files`, what it is.
fn leave_receipt(plan: &Plan, destination: &Destination, files: &[NewFile]) -> Result<()> {
    let files = files.iter().map(|file| {
        let path = destination.path().join(&file.path);
        let metadata = path.symlink_metadata();
        let metadata = metadata.map_err(|e| Error::io("read the attributes", &path, e))?;
        Ok(Written::new(file.path.clone(), &metadata))
    });
    let receipt = Receipt {
        request: Request::new(plan, false, None),
        files: files.collect::<Result<_>>()?,
    };
    let text = serde_json::to_vec(&receipt).expect("it is JSON");
    replace(destination.parent(), receipt_of(destination), &text)
}
