//! The partial directory: what is written before it takes its place, left where a run stopped, and
//! gone on with by the next run.
//!
//! | name | what it is |
//! |---|---|
//! | `lock` | locked by whoever writes here: parts share it, all others have it alone |
//! | `part-I.lock` | locked by whoever writes part I |
//! | `request.json` | what this is of; the last to be made when it begins |
//! | `files.jsonl`, `part-I.jsonl` | complete files, each a line, added once the file is on the disk |
//! | `view/` | the files |
//! | `placing.json` | all is complete, and `view/` is being moved to the destination |
//! | `previous/` | what the destination held, where names cannot be exchanged |
//!
//! It goes from *begun* to *complete* file by file, then to *placing*, and is then deleted. A stop
//! at any point leaves one of these states, and all of them are gone on with.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::error::setting::{FINISH, PART};
use crate::error::{Code, Error, Hint, Result};
use crate::jobs::Progress;
use crate::manifest::{Sha256Sum, from_hex, to_hex};
use crate::materialize::lock::{Lock, lock};
use crate::materialize::options::{Options, Share};
use crate::materialize::output::sync_directory;
use crate::materialize::request::Request;
use crate::materialize::state::{remove, replace, write_new};
use crate::materialize::sums::Sums;
use crate::shown::Show;
use crate::source::with_room;
use crate::view::EntryId;

const REQUEST: &str = "request.json";
const PLACING: &str = "placing.json";

/// How the names of partial directories end.
pub(super) const SUFFIX: &str = ".ckptfs-partial";

/// A complete file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Its position in the view.
    entry: EntryId,
    /// For people.
    name: String,
    /// Checksums in hexadecimal.
    check: Option<String>,
    sha256: Option<String>,
}

impl Record {
    pub(super) fn new(entry: EntryId, path: &Path, sums: Sums) -> Self {
        Record {
            entry,
            name: path.to_string_lossy().into_owned(),
            check: sums.check.map(check_text),
            sha256: sums.sha256.map(|sum| to_hex(&sum)),
        }
    }

    pub(super) fn sha256(&self) -> Option<Sha256Sum> {
        from_hex(self.sha256.as_deref()?.as_bytes())
    }

    /// Whether it can be seen from a file's bytes that it is the one recorded.
    pub(super) fn can_be_checked(&self) -> bool {
        self.check.is_some()
    }

    pub(super) fn is_of(&self, sums: &Sums) -> bool {
        let same_sha256 = match (self.sha256(), sums.sha256) {
            (Some(recorded), Some(found)) => recorded == found,
            _ => true,
        };
        self.can_be_checked() && self.check == sums.check.map(check_text) && same_sha256
    }
}

fn check_text(check: u128) -> String {
    format!("{check:032x}")
}

/// Which directory is being moved to the destination.
#[derive(Debug, Serialize, Deserialize)]
struct Placing {
    inode: u64,
}

/// A partial directory that this process writes in.
#[derive(Debug)]
pub(super) struct Partial {
    path: PathBuf,
    /// Whether it is known to be of this request.
    is_open: bool,
    share: Share,
    request: Request,
    /// Held until this is dropped.
    _locks: Vec<Lock>,
    records: Mutex<BTreeMap<EntryId, Record>>,
    /// Where records of this run go.
    log: Mutex<Option<File>>,
    /// Files that are being written.
    begun: Mutex<BTreeMap<EntryId, PathBuf>>,
}

impl Partial {
    /// Goes on with the partial directory at `path`, or begins it anew if there is none, or one of
    /// something else. `restore` is called first, with the place where an earlier run may have left
    /// what was at the destination.
    ///
    /// # Errors
    /// If somebody else writes there, or it holds what must not be given up: parts that do not
    /// belong to this request, or anything else of another one if `options` say so.
    pub(super) fn open(
        path: PathBuf,
        options: &Options,
        request: Request,
        restore: impl FnOnce(&Path) -> Result<()>,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let share = options.share;
        let locks = lock(&path, share, progress)?;
        if !matches!(share, Share::Part(_)) {
            restore(&path.join("previous"))?;
        } else if path.join(PLACING).exists() {
            let problem = "its parts are being put together";
            let error = Error::of_file(Code::PartsIncomplete, &path, problem);
            return Err(error.with_hint(Hint::give(FINISH).to("continue")));
        }
        let mut partial = Partial {
            is_open: false,
            share,
            request,
            _locks: locks,
            records: Mutex::default(),
            log: Mutex::default(),
            begun: Mutex::default(),
            path,
        };
        partial.begin(options.start_again, progress)?;
        *partial.records.lock() = read_logs(&partial.path)?;
        partial.is_open = true;
        Ok(partial)
    }

    /// Has the directory be of this request.
    fn begin(&self, start_again: bool, progress: &dyn Progress) -> Result<()> {
        loop {
            let Some(found) = read_request(&self.path)? else {
                match self.share {
                    Share::Part(_) => {}
                    _ => self.clear()?,
                }
                match self.write_request() {
                    // Another part was faster.
                    Err(error) if error.io_kind() == Some(ErrorKind::AlreadyExists) => continue,
                    result => return result,
                }
            };
            let Some(difference) = self.request.difference(&found) else {
                return Ok(());
            };
            if found.parts.is_some() || self.share != Share::Whole || !start_again {
                let problem =
                    format!("what is written here is not what was asked for: {difference}");
                let error = Error::of_file(Code::OtherRequest, &self.path, problem);
                return Err(
                    error.with_hint("ask for the same, or delete this directory to start again")
                );
            }
            progress.note(&format!(
                "{}: an earlier run stopped here, but {difference}; starting again",
                self.path.shown()
            ));
            self.clear()?;
        }
    }

    /// Deletes all but the lock. What says of which request the rest is goes last.
    fn clear(&self) -> Result<()> {
        for log in logs(&self.path)? {
            remove(&log)?;
        }
        for name in ["view", "previous", PLACING, REQUEST] {
            remove(&self.path.join(name))?;
            sync_directory(&self.path)?;
        }
        Ok(())
    }

    fn write_request(&self) -> Result<()> {
        let text = serde_json::to_vec_pretty(&self.request).expect("it is JSON");
        write_new(&self.path, REQUEST, &text)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the files are.
    pub(super) fn view(&self) -> PathBuf {
        self.path.join("view")
    }

    /// Where replaced files are kept until they are deleted.
    pub(super) fn previous(&self) -> PathBuf {
        self.path.join("previous")
    }

    /// The record of a file that was complete, or is by now.
    pub(super) fn record(&self, entry: EntryId) -> Option<Record> {
        self.records.lock().get(&entry).cloned()
    }

    /// Whether part `number` was ever begun.
    pub(super) fn has_part(&self, number: usize) -> bool {
        self.path.join(format!("part-{number}.jsonl")).exists()
    }

    /// Begins the records of this run with `kept`, those of earlier ones that still hold. All others
    /// of `entries` are forgotten.
    pub(super) fn keep(&self, entries: &[EntryId], kept: Vec<Record>) -> Result<()> {
        let name = match self.share {
            Share::Part(part) => format!("part-{}.jsonl", part.number()),
            Share::Whole | Share::Finish => "files.jsonl".to_owned(),
        };
        let mut records = self.records.lock();
        for entry in entries {
            records.remove(entry);
        }
        let mut text = Vec::new();
        if self.share == Share::Whole {
            // Of files that are in place already. Parts keep their records themselves.
            text.extend(records.values().flat_map(line));
        }
        for record in kept {
            text.extend(line(&record));
            records.insert(record.entry, record);
        }
        let path = self.path.join(&name);
        replace(&self.path, &name, &text)?;
        let log = with_room(|| OpenOptions::new().append(true).open(&path));
        *self.log.lock() = Some(log.map_err(|e| Error::io("open", &path, e))?);
        Ok(())
    }

    /// Notes that the file at `path` begins to be written.
    pub(super) fn begin_file(&self, entry: EntryId, path: &Path) {
        self.begun.lock().insert(entry, path.to_owned());
    }

    /// Records a file that is on the disk.
    pub(super) fn add(&self, record: Record) -> Result<()> {
        let mut log = self.log.lock();
        let log = log.as_mut().expect("records have begun");
        let written = log.write_all(&line(&record));
        written.map_err(|e| Error::io("record a complete file in", &self.path, e))?;
        self.begun.lock().remove(&record.entry);
        self.records.lock().insert(record.entry, record);
        Ok(())
    }

    /// Forces the records to the disk.
    pub(super) fn sync(&self) -> Result<()> {
        if let Some(log) = &*self.log.lock() {
            let synced = log.sync_all();
            synced.map_err(|e| Error::io("force to the disk", &self.path, e))?;
        }
        sync_directory(&self.path)
    }

    /// Notes that all is complete and begins to take its place.
    pub(super) fn begin_placing(&self) -> Result<()> {
        let view = self.view();
        let metadata = view.metadata();
        let inode = metadata
            .map_err(|e| Error::io("read the attributes", &view, e))?
            .ino();
        let text = serde_json::to_vec(&Placing { inode }).expect("it is JSON");
        replace(&self.path, PLACING, &text)
    }

    /// Notes that nothing was moved after all.
    pub(super) fn end_placing(&self) {
        // The error that led here is the one to report; the note alone does no harm.
        let _ = fs::remove_file(self.path.join(PLACING));
    }

    /// Whether an earlier run has moved the files to `destination`.
    pub(super) fn is_placed_at(&self, destination: &Path) -> bool {
        let placing = fs::read(self.path.join(PLACING)).ok();
        let placing = placing.and_then(|text| serde_json::from_slice::<Placing>(&text).ok());
        let found = destination.metadata().ok();
        matches!((placing, found), (Some(placing), Some(found)) if placing.inode == found.ino())
    }

    /// Deletes the directory with all it holds: the files are in place.
    pub(super) fn remove(self) -> io::Result<()> {
        // A stop in between must leave records without files, never the reverse.
        for name in ["view", "previous"] {
            match fs::remove_dir_all(self.path.join(name)) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        fs::remove_dir_all(&self.path)
    }
}

impl Drop for Partial {
    /// After a failure: what is not complete is of no use, and takes space.
    fn drop(&mut self) {
        for path in self.begun.lock().values() {
            let _ = fs::remove_file(path);
        }
        let is_empty = self.records.lock().is_empty() && !self.path.join(PLACING).exists();
        if self.is_open && is_empty && self.share == Share::Whole {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// The number of parts that the partial directory at `path` was begun in.
///
/// # Errors
/// If it was not begun in parts.
pub(super) fn parts_at(path: &Path) -> Result<usize> {
    parts_of(read_request(path)?.as_ref(), path)
}

/// The same of the request that was found at `path`.
pub(super) fn parts_of(found: Option<&Request>, path: &Path) -> Result<usize> {
    match found {
        Some(Request {
            parts: Some(parts), ..
        }) => Ok(*parts),
        Some(_) => {
            let error = Error::of_file(Code::Conflict, path, "this was not begun in parts");
            Err(error.with_hint(Hint::leave_out(FINISH)))
        }
        None => {
            let problem = "no part of this view was written here";
            let error = Error::of_file(Code::PartsIncomplete, path, problem);
            Err(error.with_hint(Hint::give(PART).to("write all parts first")))
        }
    }
}

/// The files that are recorded as complete in the partial directory at `path`, if it is there and
/// of `request`.
pub(super) fn recorded(path: &Path, request: &Request) -> Result<BTreeMap<EntryId, Record>> {
    match read_request(path)? {
        Some(found) if request.difference(&found).is_none() => read_logs(path),
        _ => Ok(BTreeMap::new()),
    }
}

fn logs(path: &Path) -> Result<Vec<PathBuf>> {
    let list_error = |e| Error::io("list", path, e);
    let mut logs = Vec::new();
    for entry in fs::read_dir(path).map_err(list_error)? {
        let path = entry.map_err(list_error)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "jsonl")
        {
            logs.push(path);
        }
    }
    Ok(logs)
}

fn read_logs(path: &Path) -> Result<BTreeMap<EntryId, Record>> {
    let mut records = BTreeMap::new();
    for log in logs(path)? {
        let text = fs::read(&log).map_err(|e| Error::io("read", &log, e))?;
        // A line that was cut off, or was not yet on the disk, is of no complete file.
        let lines = text.split_inclusive(|byte| *byte == b'\n');
        let lines = lines.filter_map(|line| line.strip_suffix(b"\n"));
        for record in lines.map_while(|line| serde_json::from_slice::<Record>(line).ok()) {
            records.insert(record.entry, record);
        }
    }
    Ok(records)
}

/// Whether an earlier run was about to move its files from the partial directory at `path`.
pub(super) fn is_placing(path: &Path) -> bool {
    path.join(PLACING).exists()
}

fn line(record: &Record) -> Vec<u8> {
    let mut line = serde_json::to_vec(record).expect("it is JSON");
    line.push(b'\n');
    line
}

fn read_request(path: &Path) -> Result<Option<Request>> {
    let path = path.join(REQUEST);
    match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|e| {
            let problem = format!("this cannot be understood: {e}");
            let error = Error::of_file(Code::OtherRequest, &path, problem);
            error.with_hint("delete its directory to start again")
        }),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("read", path, e)),
    }
}
