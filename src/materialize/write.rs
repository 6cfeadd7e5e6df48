//! Writing the files of a view into an empty directory.

use std::collections::HashSet;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, CWD, FallocateFlags, fallocate, linkat};
use rustix::io::{Errno, retry_on_intr};

use crate::error::{Error, Result};
use crate::jobs::{self, Progress};
use crate::materialize::output::{Output, sync_directory};
use crate::materialize::pieces::{Piece, Queue};
use crate::materialize::{Options, Summary, copy};
use crate::read::Reader;
use crate::recipe::Plan;
use crate::source::{Attributes, SourceFile};
use crate::view::{Content, EntryId, FileContent, SegmentData, View};

/// A file that is to be written.
#[derive(Debug)]
pub(super) struct NewFile<'a> {
    /// Relative to the top of the view.
    pub(super) path: PathBuf,
    pub(super) content: &'a FileContent,
    attributes: Attributes,
    is_shard: bool,
}

impl<'a> NewFile<'a> {
    /// Every file of the view.
    pub(super) fn all(plan: &'a Plan) -> Vec<Self> {
        let shards: HashSet<EntryId> = plan.shards.iter().map(|shard| shard.entry).collect();
        let files = plan.view.files();
        files
            .map(|(id, path, content)| NewFile {
                path,
                content,
                attributes: plan.view.get(id).expect("an id of the view").attributes,
                is_shard: shards.contains(&id),
            })
            .collect()
    }

    pub(super) fn is_shard(&self) -> bool {
        self.is_shard
    }
}

/// Writes files of one view.
pub(super) struct Writer<'a> {
    reader: Reader,
    /// Where the view's top directory is made.
    directory: &'a Path,
    options: &'a Options,
    progress: &'a dyn Progress,
    failed: AtomicBool,
}

impl<'a> Writer<'a> {
    /// Every tile is read once and in order, so the cache only has to hold those being worked on,
    /// and the scales of a tensor until its codes are written.
    const CACHE_BYTES: usize = 16 << 20;

    pub(super) fn new(
        plan: &Plan,
        directory: &'a Path,
        options: &'a Options,
        progress: &'a dyn Progress,
    ) -> Self {
        Writer {
            reader: Reader::new(plan.view.clone(), Self::CACHE_BYTES),
            directory,
            options,
            progress,
            failed: AtomicBool::new(false),
        }
    }

    /// Makes the view's directories and writes `files`; all of it is on the disk then.
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
        let mut queue = Queue::default();
        for file in files {
            if let Some(source) = self.to_be_linked(file) {
                if self.link(source, &file.path)? {
                    summary.linked += 1;
                    summary.linked_bytes += file.content.len();
                    self.progress.advance(file.content.len());
                    continue;
                }
                summary.copied_instead += 1;
            }
            self.create(file)?;
            queue.add(file, self.directory);
        }
        let threads = self.options.jobs.min(queue.len());
        let take = |at: &mut Option<usize>| queue.take(at);
        jobs::drain(threads, take, |piece| {
            self.write_piece(&piece)
                .and_then(|()| piece.finish())
                .inspect_err(|_| self.failed.store(true, Ordering::Relaxed))
        })?;
        for id in self.directories() {
            sync_directory(&self.directory.join(self.reader.view().path(id)))?;
        }
        Ok(summary)
    }

    /// The view's directories, empty ones too, parents first; for the weights alone only the top
    /// one.
    fn directories(&self) -> impl Iterator<Item = EntryId> {
        let view = self.reader.view();
        let len = match self.options.weights_only {
            true => View::ROOT + 1,
            false => view.len(),
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
        DirBuilder::new()
            .mode(attributes.mode | 0o700)
            .create(&path)
            .and_then(|()| File::open(&path))
            .and_then(|directory| keep_group_out(&directory, &attributes))
            .map_err(|e| Error::io("create", &path, e))
    }

    fn to_be_linked<'f>(&self, file: &NewFile<'f>) -> Option<&'f SourceFile> {
        let wanted = self.options.hardlink && file.is_shard;
        let source = wanted.then(|| file.content.whole_file())??;
        Some(source)
    }

    /// Links the planned file, whatever its name leads to by now; returns whether that could be
    /// done.
    fn link(&self, source: &SourceFile, path: &Path) -> Result<bool> {
        use std::os::fd::AsRawFd;
        let descriptor = source.handle()?.as_raw_fd();
        source.check_unchanged()?;
        let opened = format!("/proc/self/fd/{descriptor}");
        let new = self.directory.join(path);
        Ok(linkat(CWD, opened, CWD, new, AtFlags::SYMLINK_FOLLOW).is_ok())
    }

    /// Makes the empty file, with space for what will not be shared with a source: a full disk is
    /// found out early, and the file lies in few places of the disk.
    fn create(&self, file: &NewFile) -> Result<()> {
        let path = self.directory.join(&file.path);
        let create_error = |e| Error::io("create", &path, e);
        let created = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(file.attributes.mode | 0o200)
            .open(&path)
            .map_err(create_error)?;
        keep_group_out(&created, &file.attributes).map_err(create_error)?;
        let computed = |data: &SegmentData| matches!(data, SegmentData::Computed { .. });
        let len = file.content.len();
        if file.content.segments().iter().any(|s| computed(&s.data))
            || len > 0 && copy::wants_space(&created)
        {
            match retry_on_intr(|| fallocate(&created, FallocateFlags::empty(), 0, len)) {
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
                Err(e) => {
                    return Err(Error::io(format!("reserve {len} bytes"), &path, e.into()));
                }
            }
        }
        Ok(())
    }

    fn write_piece(&self, piece: &Piece) -> Result<()> {
        self.progress.file(&piece.file.path);
        let output = Output::new(&piece.target, self.progress, &self.failed)?;
        for segment in &piece.segments {
            match &segment.data {
                SegmentData::Bytes(bytes) => output.write_all_at(bytes, segment.start)?,
                SegmentData::Source { file, offset } => {
                    copy::range(file, *offset, &output, segment.start, segment.len)?;
                }
                SegmentData::Computed {
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
                    let end = segment.start + segment.len;
                    assert_eq!(at, end, "{} ends where the layout says", node.name);
                }
            }
        }
        Ok(())
    }
}

/// Takes from a new file or directory what its mode would give to people whom the source did not
/// give it.
fn keep_group_out(file: &File, source: &Attributes) -> std::io::Result<()> {
    let metadata = file.metadata()?;
    let mode = metadata.mode() & 0o777;
    let allowed = match metadata.gid() == source.gid {
        true => mode,
        false => mode_for_another_group(mode),
    };
    match allowed == mode {
        true => Ok(()),
        false => file.set_permissions(Permissions::from_mode(allowed)),
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
