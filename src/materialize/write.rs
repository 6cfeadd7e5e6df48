//! Writing the files of a view into a partial directory.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rustix::fs::{AtFlags, CWD, FallocateFlags, fallocate, linkat};
use rustix::io::{Errno, retry_on_intr};

use crate::catalog::Extent;
use crate::error::{Code, Error, Result};
use crate::jobs::{self, Progress};
use crate::materialize::new_file::NewFile;
use crate::materialize::options::{Options, Summary};
use crate::materialize::output::{Output, sync_directory};
use crate::materialize::partial::{Partial, Record};
use crate::materialize::pieces::{Piece, Queue};
use crate::materialize::sums::{self, Sums};
use crate::materialize::watcher::Watcher;
use crate::materialize::{copy, space};
use crate::read::{FactsCache, Reader};
use crate::recipe::Plan;
use crate::source::{Attributes, Blob, LocalFile, with_room};
use crate::view::{Content, EntryId, View};

/// Writes files of one view into a partial directory.
pub(super) struct Writer<'a> {
    reader: Reader,
    partial: &'a Partial,
    /// The destination as the user wrote it.
    shown: &'a Path,
    /// Where the view's top directory is made.
    directory: PathBuf,
    options: &'a Options,
    progress: &'a dyn Progress,
    watcher: &'a dyn Watcher,
    failed: AtomicBool,
    /// The error once there was no space for a file. Held while space is reserved: if several did
    /// that at once, each could take what another lacks, and none would have enough.
    full: Mutex<Option<Error>>,
}

impl<'a> Writer<'a> {
    /// Every tile is read once and in order, so the cache only has to hold those being worked on,
    /// and the scales of a tensor until its codes are written.
    const CACHE_BYTES: usize = 16 << 20;
    /// With checksums, scales at the end of a file are written long after their codes.
    const CACHE_BYTES_IN_ORDER: usize = 64 << 20;

    pub(super) fn new(
        plan: &Plan,
        partial: &'a Partial,
        shown: &'a Path,
        options: &'a Options,
        progress: &'a dyn Progress,
    ) -> Result<Self> {
        let cache = if options.sha256 {
            Self::CACHE_BYTES_IN_ORDER
        } else {
            Self::CACHE_BYTES
        };
        let mut reader = Reader::new(plan.view.clone(), cache);
        if options.direct_sources {
            reader = reader.with_direct_sources();
        }
        if let Some(directory) = &options.facts_cache {
            reader = reader.with_facts_cache(FactsCache::new(directory)?);
        }
        Ok(Writer {
            reader,
            partial,
            shown,
            directory: partial.view(),
            options,
            progress,
            watcher: &(),
            failed: AtomicBool::new(false),
            full: Mutex::default(),
        })
    }

    /// Has `watcher` be told of files.
    pub(super) fn watched_by(self, watcher: &'a dyn Watcher) -> Self {
        Writer { watcher, ..self }
    }

    /// Makes the view's directories and writes `files`, except those that an earlier run has
    /// completed; all of it is on the disk then.
    pub(super) fn write(&self, files: &[NewFile]) -> Result<Summary> {
        for id in self.directories() {
            self.make_directory(id)?;
        }
        let mut summary = Summary {
            files: files.len(),
            bytes: files.iter().map(|file| file.content.len()).sum(),
            ..Summary::default()
        };
        self.progress.start(summary.bytes);
        let kept = self.keep(files, &mut summary)?;
        let missing = files.iter().zip(&kept).filter(|(_, kept)| !**kept);
        let missing: Vec<&NewFile> = missing.map(|(file, _)| file).collect();
        space::check(&missing, &self.directory, self.shown, self.options)?;
        let mut queue = Queue::default();
        let mut linked = Vec::new();
        for (file, _) in files.iter().zip(kept).filter(|(_, kept)| !kept) {
            let path = self.directory.join(&file.path);
            remove_file(&path)?;
            if let Some(source) = file.linkable().filter(|_| self.options.hardlink) {
                if self.link(source, &path)? {
                    summary.linked += 1;
                    summary.linked_bytes += file.content.len();
                    linked.push((file, source));
                    continue;
                }
                summary.copied_instead += 1;
            }
            queue.add(file, &self.directory, self.options.sha256);
        }
        jobs::for_each(&linked, self.options.jobs, |(file, source)| {
            self.record_link(file, source)
        })?;
        let threads = self.options.jobs.min(queue.len());
        let take = |at: &mut Option<usize>| queue.take(at, &self.watcher.wanted());
        jobs::drain(threads, take, |piece| {
            self.write_piece(piece, &queue)
                .inspect_err(|_| self.failed.store(true, Ordering::Relaxed))
        })?;
        if let Some(error) = self.full.lock().take() {
            return Err(error);
        }
        for id in self.directories() {
            sync_directory(&self.directory.join(self.reader.view().path(id)))?;
        }
        self.partial.sync()?;
        Ok(summary)
    }

    /// Which of `files` an earlier run has completed and are still as they were: all that is
    /// recorded is read again.
    fn keep(&self, files: &[NewFile], summary: &mut Summary) -> Result<Vec<bool>> {
        let records = jobs::map(files, self.options.jobs, |file| {
            let path = self.directory.join(&file.path);
            let sha256 = self.options.sha256;
            let record = complete_record(self.partial, file, &path, sha256, self.progress)?;
            if record.is_some() {
                self.progress.skip(file.content.len());
                self.watcher.complete(file.entry, &path);
            }
            Ok(record)
        })?;
        let kept: Vec<bool> = records.iter().map(Option::is_some).collect();
        for (file, _) in files.iter().zip(&kept).filter(|(_, kept)| **kept) {
            summary.kept += 1;
            summary.kept_bytes += file.content.len();
        }
        let entries: Vec<EntryId> = files.iter().map(|file| file.entry).collect();
        let records = records.into_iter().flatten().collect();
        self.partial.keep(&entries, records)?;
        Ok(kept)
    }

    /// The view's directories, empty ones too, parents first; for the weights alone only the top
    /// one.
    fn directories(&self) -> impl Iterator<Item = EntryId> {
        let view = self.reader.view();
        let len = if self.options.weights_only {
            View::ROOT + 1
        } else {
            view.len()
        };
        // Ids of parents are smaller than those of their children.
        (View::ROOT..len).filter(|id| {
            let entry = view.get(*id);
            entry.is_some_and(|entry| matches!(entry.content, Content::Directory(_)))
        })
    }

    fn make_directory(&self, id: EntryId) -> Result<()> {
        let view = self.reader.view();
        let attributes = view.get(id).expect("an id of the view").attributes;
        let path = self.directory.join(view.path(id));
        match DirBuilder::new()
            .mode(attributes.mode | 0o700)
            .create(&path)
        {
            // By an earlier run, or another part.
            Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
            created => created,
        }
        .and_then(|()| with_room(|| File::open(&path)))
        .and_then(|directory| keep_group_out(&directory, &attributes))
        .map_err(|e| Error::io("create", &path, e))
    }

    /// Links the planned file, whatever its name leads to by now; returns whether that could be
    /// done.
    fn link(&self, source: &LocalFile, new: &Path) -> Result<bool> {
        use std::os::fd::AsRawFd;
        let file = source.handle()?;
        source.check()?;
        let opened = format!("/proc/self/fd/{}", file.as_raw_fd());
        Ok(linkat(CWD, opened, CWD, new, AtFlags::SYMLINK_FOLLOW).is_ok())
    }

    /// Records a file that is a link to `source`, of which nothing is read but for its checksum.
    fn record_link(&self, file: &NewFile, source: &LocalFile) -> Result<()> {
        let mut sums = Sums {
            check: None,
            sha256: None,
        };
        if self.options.sha256 {
            let progress = self.progress;
            let read = sums::of_file(
                &*source.handle()?,
                source.path(),
                file.content,
                true,
                progress,
            )?;
            source.check()?;
            sums.sha256 = read.and_then(|sums| sums.sha256);
        }
        self.progress.skip(file.content.len());
        self.partial
            .add(Record::new(file.entry, &file.path, sums))?;
        self.watcher
            .complete(file.entry, &self.directory.join(&file.path));
        Ok(())
    }

    /// Makes the empty file for the first of its pieces, with space for what will not be shared with a
    /// source: it is then complete even if others find the disk full, and has few extents on it.
    fn begin(&self, file: &NewFile) -> Result<File> {
        let mut full = self.full.lock();
        if let Some(error) = &*full {
            return Err(error.clone());
        }
        let path = self.directory.join(&file.path);
        self.partial.begin_file(file.entry, &path);
        self.create(file, &path).inspect_err(|error| {
            if error.code() == Code::NoSpace {
                *full = Some(error.clone());
            }
        })
    }

    fn create(&self, file: &NewFile, path: &Path) -> Result<File> {
        let create_error = |e| Error::io("create", path, e);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        // Checksums in file order read what the kernel has copied.
        options.read(self.options.sha256);
        options.mode(file.attributes.mode | 0o200);
        let created = with_room(|| options.open(path)).map_err(create_error)?;
        keep_group_out(&created, &file.attributes).map_err(create_error)?;
        let len = file.content.len();
        if file
            .content
            .segments()
            .iter()
            .any(|s| s.place.node().is_some())
            || len > 0 && copy::wants_space(&created)
        {
            match retry_on_intr(|| fallocate(&created, FallocateFlags::empty(), 0, len)) {
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
                Err(e) => return Err(Error::io(format!("reserve {len} bytes"), path, e.into())),
            }
        }
        Ok(created)
    }

    /// Writes a piece, and records its file if it was the last of it. Where the disk is full, the file
    /// is given up and no other is begun, but those that are get completed: they have their space.
    fn write_piece(&self, piece: Piece, queue: &Queue) -> Result<()> {
        let file = piece.file;
        let written = self
            .write_segments(&piece)
            .inspect_err(|_| piece.target.fail());
        let written = written.and_then(|()| match piece.finish()? {
            Some(sums) => {
                let record = Record::new(file.entry, &file.path, sums);
                self.partial.add(record)?;
                let path = self.directory.join(&file.path);
                self.watcher.complete(file.entry, &path);
                Ok(())
            }
            None => Ok(()),
        });
        match written {
            Err(error) if error.code() == Code::NoSpace => {
                queue.begin_no_more();
                self.full.lock().get_or_insert(error);
                // Others may need what it took.
                remove_file(&self.directory.join(&file.path))
            }
            written => written,
        }
    }

    fn write_segments(&self, piece: &Piece) -> Result<()> {
        self.progress.file(&piece.file.path);
        let make = || self.begin(piece.file);
        let output = Output::new(&piece.target, make, self.progress, &self.failed)?;
        for (position, segment) in &piece.segments {
            match &segment.place {
                Extent::Made { bytes, offset } => {
                    let start = *offset as usize;
                    let bytes = &bytes[start..start + segment.len as usize];
                    output.write_all_at(bytes, segment.start)?;
                }
                Extent::Stored { blob, offset } => {
                    let stored = self.reader.stored();
                    let (start, len) = (segment.start, segment.len);
                    copy::range(stored, &**blob, *offset, &output, start, len)?;
                }
                Extent::Computed {
                    node,
                    output: number,
                    offset,
                } => {
                    let mut at = segment.start;
                    let range = *offset..offset + segment.len;
                    self.reader.stream_computed(node, *number, range, |bytes| {
                        output.write_all_at(bytes, at)?;
                        at += bytes.len() as u64;
                        Ok::<(), Error>(())
                    })?;
                    assert_eq!(
                        at,
                        segment.end(),
                        "{} ends where the layout says",
                        node.name
                    );
                }
            }
            output.end_segment(*position);
        }
        output.end();
        Ok(())
    }
}

/// The record of `file` if the file at `path` is the one that was recorded; with `sha256` it has
/// that.
pub(super) fn complete_record(
    partial: &Partial,
    file: &NewFile,
    path: &Path,
    sha256: bool,
    progress: &dyn Progress,
) -> Result<Option<Record>> {
    let Some(record) = partial.record(file.entry).filter(Record::can_be_checked) else {
        return Ok(None);
    };
    let opened = match with_room(|| File::open(path)) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(|e| Error::io("open", path, e))?,
    };
    progress.file(&file.path);
    let sums = sums::of_file(&opened, path, file.content, sha256, progress)?;
    let sums = sums.filter(|sums| record.is_of(sums));
    Ok(sums.map(|sums| {
        if sha256 {
            Record::new(file.entry, &file.path, sums)
        } else {
            record
        }
    }))
}

/// Deletes the file at `path`, if there is one.
fn remove_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io("delete", path, e)),
        _ => Ok(()),
    }
}

/// Takes from a new file or directory what its mode would give to people whom the source did not
/// give it.
fn keep_group_out(file: &File, source: &Attributes) -> std::io::Result<()> {
    let metadata = file.metadata()?;
    let mode = metadata.mode() & 0o777;
    let allowed = if metadata.gid() == source.gid {
        mode
    } else {
        mode_for_another_group(mode)
    };
    if allowed == mode {
        Ok(())
    } else {
        file.set_permissions(Permissions::from_mode(allowed))
    }
}

/// What is left of `mode` where the group is another than that of the source: its members and all
/// others may do what both the group and all others might.
fn mode_for_another_group(mode: u32) -> u32 {
    let both = (mode >> 3) & mode & 0o007;
    mode & 0o700 | both << 3 | both
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_group_gets_only_what_everybody_has() {
        for (mode, left) in [
            (0o644, 0o644),
            (0o640, 0o600),
            (0o604, 0o600),
            (0o755, 0o755),
            (0o750, 0o700),
            (0o754, 0o744),
        ] {
            assert_eq!(mode_for_another_group(mode), left, "{mode:o}");
        }
    }
}
