//! A directory's bytes against those of a view.

use std::collections::HashMap;
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::catalog::Extents;
use crate::error::{Error, Result};
use crate::format::OUTPUT;
use crate::jobs::{self, Progress};
use crate::read::Reader;
use crate::recipe::Plan;
use crate::shown::Show;
use crate::source::Blob;
use crate::text::counted;
use crate::verify::lengths::tensors_apart;
use crate::verify::place::{Opened, Place, Shape};
use crate::view::{Content, EntryId, View};

/// How a directory compares with a view.
#[derive(Debug, Clone, Default)]
pub struct CompareReport {
    /// Files of the view, and their bytes.
    pub files: usize,
    pub bytes: u64,
    /// In the order of their paths.
    pub differences: Vec<Difference>,
    /// What the directory has and the view does not, apart from weights.
    pub extra: Vec<PathBuf>,
}

/// Something that is not as in the view.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// Relative to the directory.
    pub path: PathBuf,
    pub kind: Kind,
}

/// What is not as in the view.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The view has it and the directory does not.
    Missing,
    /// A directory in place of a file, or the reverse.
    OtherType,
    /// Lengths in bytes, and of a shard which tensors differ by the headers, a line for each kind of
    /// difference.
    Length {
        view: u64,
        directory: u64,
        tensors: Vec<String>,
    },
    /// The first byte that differs, from the start of the file, and in a shard the tensor that
    /// holds it (none for the header).
    Byte { offset: u64, tensor: Option<String> },
    /// Weights that the view does not have, which loaders would read with the others.
    ExtraWeights,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}: ", self.path.shown())?;
        match &self.kind {
            Kind::Missing => f.write_str("missing"),
            Kind::OtherType => f.write_str("not a file where the view has one, or the reverse"),
            Kind::Length {
                view,
                directory,
                tensors,
            } => {
                write!(f, "{directory} bytes long, in the view {view}")?;
                tensors.iter().try_for_each(|line| write!(f, "; {line}"))
            }
            Kind::Byte { offset, tensor } => {
                write!(f, "differs from byte {offset} on")?;
                match tensor {
                    Some(tensor) => write!(f, ", in tensor {tensor}"),
                    None => Ok(()),
                }
            }
            Kind::ExtraWeights => f.write_str("weights that the view does not have"),
        }
    }
}

/// Compares every file of the view of `plan` with `directory`, which may be a URL, on `jobs` threads.
///
/// # Errors
/// If the view or the directory cannot be read. Differences are in the report.
pub fn against_view(
    plan: &Plan,
    directory: &Path,
    jobs: usize,
    progress: &dyn Progress,
) -> Result<CompareReport> {
    let place = Place::open(directory)?;
    let mut report = CompareReport::default();
    find_extra(&plan.view, View::ROOT, &place, &mut report)?;
    let mut same_length = Vec::new();
    for id in 1..plan.view.len() {
        let path = plan.view.path(id);
        match shape_difference(&plan.view, id, &place, &path)? {
            Some(Kind::Length {
                view,
                directory: len,
                ..
            }) => {
                let shard = plan.shards.iter().find(|shard| shard.entry == id);
                let kind = Kind::Length {
                    view,
                    directory: len,
                    tensors: shard.map_or(Vec::new(), |shard| {
                        let found = place.blob(&path.to_string_lossy());
                        tensors_apart(shard, found, len)
                    }),
                };
                report.differences.push(Difference { path, kind });
            }
            Some(kind) => report.differences.push(Difference { path, kind }),
            None => same_length.extend(plan.view.file(id).map(|content| (id, content))),
        }
    }
    report.files = plan.view.files().count();
    report.bytes = plan.view.files().map(|(.., content)| content.len()).sum();
    let what = format!(
        "{} of the same length as in the view, to compare every byte",
        counted(same_length.len(), "file")
    );
    progress.start_reading(
        &what,
        same_length.iter().map(|(_, content)| content.len()).sum(),
    );

    let comparison = Comparison::new(plan, &place, progress);
    jobs::for_each(&ranges(&same_length), jobs, |range| {
        comparison.compare(range)
    })?;
    for (id, offset) in comparison.first_difference.into_inner() {
        report.differences.push(Difference {
            path: plan.view.path(id),
            kind: Kind::Byte {
                offset,
                tensor: tensor_at(plan, id, offset),
            },
        });
    }
    report.differences.sort();
    report.extra.sort();
    Ok(report)
}

/// Looks for what `place` has besides the entries of `id`, and in the directories they share.
fn find_extra(view: &View, id: EntryId, place: &Place, report: &mut CompareReport) -> Result<()> {
    let inner = view.path(id);
    for (name, is_directory) in place.entries(&inner)? {
        let path = inner.join(&name);
        match view.lookup(id, &name) {
            Some(child) if view.children(child).is_some() => {
                // A link may lead to a directory.
                if is_directory || place.shape(&path)? == Some(Shape::Directory) {
                    find_extra(view, child, place, report)?;
                }
            }
            Some(_) => {}
            None if OUTPUT.is_shard(&name) && id == View::ROOT => {
                report.differences.push(Difference {
                    path,
                    kind: Kind::ExtraWeights,
                });
            }
            None => report.extra.push(path),
        }
    }
    Ok(())
}

/// What can be seen of entry `id`, whose path is `path`, without reading it.
fn shape_difference(view: &View, id: EntryId, place: &Place, path: &Path) -> Result<Option<Kind>> {
    let entry = view.get(id).expect("an id of the view");
    let found = place.shape(path)?;
    Ok(match (&entry.content, found) {
        (Content::Directory(_), Some(Shape::Directory)) => None,
        // A store has no directories but those that its objects are in.
        (Content::Directory(entries), None) if place.is_remote() && entries.is_empty() => None,
        (_, None) => Some(Kind::Missing),
        (Content::File(content), Some(Shape::File(len))) if content.len() == len => None,
        (Content::File(content), Some(Shape::File(len))) => Some(Kind::Length {
            view: content.len(),
            directory: len,
            tensors: Vec::new(),
        }),
        _ => Some(Kind::OtherType),
    })
}

/// A part of a file that one thread compares.
struct Range<'a> {
    id: EntryId,
    content: &'a Extents,
    start: u64,
    end: u64,
}

fn ranges<'a>(files: &[(EntryId, &'a Extents)]) -> Vec<Range<'a>> {
    const RANGE_BYTES: u64 = 64 << 20;
    let mut ranges = Vec::new();
    for &(id, content) in files {
        for start in (0..content.len()).step_by(RANGE_BYTES as usize) {
            ranges.push(Range {
                id,
                content,
                start,
                end: content.len().min(start + RANGE_BYTES),
            });
        }
    }
    ranges
}

struct Comparison<'a> {
    reader: Reader,
    place: &'a Place,
    progress: &'a dyn Progress,
    /// The offset in each file that differs.
    first_difference: Mutex<HashMap<EntryId, u64>>,
}

impl<'a> Comparison<'a> {
    /// Tiles are read once and in order; only scales may be wanted after their tiles are gone.
    const CACHE_BYTES: usize = 64 << 20;
    /// Bytes that are compared at once.
    const CHUNK_BYTES: u64 = 1 << 20;

    fn new(plan: &Plan, place: &'a Place, progress: &'a dyn Progress) -> Self {
        Comparison {
            reader: Reader::new(plan.view.clone(), Self::CACHE_BYTES),
            place,
            progress,
            first_difference: Mutex::default(),
        }
    }

    fn compare(&self, range: &Range) -> Result<()> {
        let relative = self.reader.view().path(range.id);
        self.progress.file(&relative);
        let path = self.place.path_of(&relative);
        let file = self.place.opened(&relative)?;
        if is_source(range.content, &file, &path)? {
            self.progress.advance(range.end - range.start);
            return Ok(());
        }
        let mut scratch = Vec::new();
        let mut found = vec![0; Self::CHUNK_BYTES.min(range.end - range.start) as usize];
        let mut at = range.start;
        while at < range.end && !self.differs_before(range.id, at) {
            if self.progress.cancelled() {
                return Err(Error::interrupted());
            }
            let count = (range.end - at).min(Self::CHUNK_BYTES) as usize;
            let found = &mut found[..count];
            file.read_exact_at(found, at, &path)?;
            let differing = |wanted: &[u8]| first_difference(wanted, found);
            if let Some(within) =
                self.reader
                    .read_with(range.id, at, count, &mut scratch, differing)?
            {
                let offset = at + within as u64;
                let mut firsts = self.first_difference.lock();
                let first = firsts.entry(range.id).or_insert(offset);
                *first = offset.min(*first);
            }
            at += count as u64;
            self.progress.advance(count as u64);
        }
        self.progress.advance(range.end - at);
        Ok(())
    }

    /// Whether nothing from `offset` on can be the first difference of the file.
    fn differs_before(&self, id: EntryId, offset: u64) -> bool {
        let firsts = self.first_difference.lock();
        firsts.get(&id).is_some_and(|first| *first < offset)
    }
}

/// Whether `file` is the very source file that `content` is: a hard link.
fn is_source(content: &Extents, file: &Opened, path: &Path) -> Result<bool> {
    let Opened::Local(file) = file else {
        return Ok(false);
    };
    let Some(source) = content.whole_file().and_then(|blob| blob.as_local()) else {
        return Ok(false);
    };
    let stat_error = |e| Error::io("read the attributes", path, e);
    let metadata = file.metadata().map_err(stat_error)?;
    let source_metadata = source.handle()?.metadata().map_err(stat_error)?;
    source.check()?;
    Ok((metadata.dev(), metadata.ino()) == (source_metadata.dev(), source_metadata.ino()))
}

fn first_difference(a: &[u8], b: &[u8]) -> Option<usize> {
    // Comparing whole slices is much faster than looking at each byte.
    if a == b {
        return None;
    }
    let position = a.iter().zip(b).position(|(a, b)| a != b);
    Some(position.unwrap_or(a.len().min(b.len())))
}

/// The tensor of a shard that holds byte `offset`.
fn tensor_at(plan: &Plan, id: EntryId, offset: u64) -> Option<String> {
    let shard = plan.shards.iter().find(|shard| shard.entry == id)?;
    let holds = |range: std::ops::Range<u64>| range.contains(&offset);
    let tensor = shard
        .tensors
        .iter()
        .find(|tensor| holds(tensor.offset..tensor.offset + tensor.len))?;
    Some(tensor.name.to_string())
}
