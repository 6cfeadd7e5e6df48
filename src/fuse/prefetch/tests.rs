//! Prefetching without a mount.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::pieces::PIECE;
use super::*;
use crate::error::{Code, as_keys};
use crate::fuse::server::Inode;
use crate::recipe::ViewRequest;

/// A page cache that is looked into.
#[derive(Default)]
struct Seen {
    known: Mutex<BTreeMap<Inode, PathBuf>>,
    bytes: Mutex<BTreeMap<Inode, Vec<u8>>>,
    /// Bytes that fit in.
    room: Option<u64>,
    /// A file that cannot be looked up.
    missing: Option<&'static str>,
    ended: bool,
}

impl Pages for Seen {
    fn look_up(&self, path: &Path, inode: Inode) -> Result<()> {
        if self.missing.is_some_and(|missing| path.ends_with(missing)) {
            return Err(Error::of_file(Code::NotServing, path, "it is not there"));
        }
        self.known.lock().insert(inode, path.to_owned());
        Ok(())
    }

    fn store(&self, inode: Inode, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.ended {
            return Err(io::ErrorKind::NotConnected.into());
        }
        assert!(self.known.lock().contains_key(&inode));
        let mut all = self.bytes.lock();
        let file = all.entry(inode).or_default();
        let end = offset as usize + bytes.len();
        file.resize(file.len().max(end), 0);
        file[offset as usize..end].copy_from_slice(bytes);
        Ok(())
    }

    fn have_room(&self, held: u64) -> bool {
        self.room.is_none_or(|room| held < room)
    }
}

impl Seen {
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let (known, bytes) = (self.known.lock(), self.bytes.lock());
        let named = bytes
            .iter()
            .map(|(inode, bytes)| (known[inode].clone(), bytes.clone()));
        named.collect()
    }
}

/// A checkpoint of a weight of `rows` MiB and two other files.
fn checkpoint(rows: usize) -> (TempDir, Arc<Reader>) {
    use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
    let base = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..rows << 20).map(|i| (i / 7) as u8).collect();
    let weight = TensorView::new(Dtype::U8, vec![rows, 1 << 20], &bytes).unwrap();
    let shard = base.path().join("model.safetensors");
    serialize_to_file([("weight", weight)], None, &shard).unwrap();
    fs::write(base.path().join("config.json"), "{}").unwrap();
    fs::create_dir(base.path().join("deep")).unwrap();
    fs::write(base.path().join("deep/notes.txt"), "some text").unwrap();
    let plan = ViewRequest::new(base.path()).plan().unwrap();
    (base, Arc::new(Reader::new(plan.view, 1 << 20)))
}

/// Asserts that `pages` have the files `expected`, and no others.
fn assert_stored(pages: &Seen, expected: &BTreeMap<PathBuf, Vec<u8>>) {
    let stored = pages.files();
    let lens = |files: &BTreeMap<PathBuf, Vec<u8>>| -> Vec<(PathBuf, usize)> {
        let files = files.iter();
        files
            .map(|(path, bytes)| (path.clone(), bytes.len()))
            .collect()
    };
    assert_eq!(lens(&stored), lens(expected));
    assert!(stored == *expected, "other bytes");
}

/// The files of the base, and the index that the view adds.
fn expected(base: &TempDir, reader: &Reader) -> BTreeMap<PathBuf, Vec<u8>> {
    let names = ["config.json", "deep/notes.txt", "model.safetensors"].map(PathBuf::from);
    let read = |name: PathBuf| (name.clone(), fs::read(base.path().join(name)).unwrap());
    names.into_iter().map(read).chain([index(reader)]).collect()
}

fn index(reader: &Reader) -> (PathBuf, Vec<u8>) {
    let view = reader.view();
    let name = PathBuf::from("model.safetensors.index.json");
    let mut ids = 0..view.len();
    let id = ids.find(|id| view.path(*id) == name).unwrap();
    let mut bytes = vec![0; view.file(id).unwrap().len() as usize];
    reader.read_at(id, 0, &mut bytes).unwrap();
    (name, bytes)
}

#[test]
fn every_byte_of_every_file_is_stored_by_any_number_of_threads() {
    for threads in 1..=3 {
        let (base, reader) = checkpoint(3);
        let prefetch = Arc::new(Prefetch::new(reader.clone(), as_keys));
        let pages = Arc::new(Seen::default());
        let threads = NonZeroUsize::new(threads).unwrap();
        let running = Prefetching::start(prefetch.clone(), threads, pages.clone()).unwrap();
        for thread in std::mem::take(&mut { running }.threads) {
            thread.join().unwrap();
        }
        assert_stored(&pages, &expected(&base, &reader));
        let stats = prefetch.stats();
        assert_eq!(stats.state, PrefetchState::Complete);
        assert_eq!(stats.bytes_done, stats.bytes);
    }
}

impl<P: Pages + ?Sized> Pages for Arc<P> {
    fn look_up(&self, path: &Path, inode: Inode) -> Result<()> {
        (**self).look_up(path, inode)
    }

    fn store(&self, inode: Inode, offset: u64, bytes: &[u8]) -> io::Result<()> {
        (**self).store(inode, offset, bytes)
    }

    fn have_room(&self, held: u64) -> bool {
        (**self).have_room(held)
    }
}

#[test]
fn it_stops_where_memory_ends() {
    let (_base, reader) = checkpoint(4);
    let prefetch = Prefetch::new(reader, as_keys);
    let pages = Seen {
        room: Some(2 * PIECE),
        ..Seen::default()
    };
    prefetch.work(&pages);
    assert_eq!(prefetch.stats().state, PrefetchState::NoMemory);
    let stored: usize = pages.files().values().map(Vec::len).sum();
    assert!(
        (2 * PIECE as usize..3 * PIECE as usize).contains(&stored),
        "{stored}"
    );
}

#[test]
fn a_file_that_is_not_there_is_left_out_alone() {
    let (base, reader) = checkpoint(2);
    let prefetch = Prefetch::new(reader.clone(), as_keys);
    let pages = Seen {
        missing: Some("model.safetensors"),
        ..Seen::default()
    };
    prefetch.work(&pages);
    let mut others = expected(&base, &reader);
    others.remove(Path::new("model.safetensors"));
    assert_stored(&pages, &others);
}

#[test]
fn whole_files_that_the_kernel_reads_itself_are_not_stored() {
    let (_base, reader) = checkpoint(2);
    let prefetch = Prefetch::new(reader.clone(), as_keys);
    prefetch.set_passthrough(true);
    let pages = Seen::default();
    prefetch.work(&pages);
    assert_stored(&pages, &BTreeMap::from([index(&reader)]));
    let stats = prefetch.stats();
    assert_eq!(stats.bytes_done, stats.bytes);
}

#[test]
fn it_ends_with_the_mount() {
    let (_base, reader) = checkpoint(2);
    let prefetch = Prefetch::new(reader, as_keys);
    prefetch.work(&Seen {
        ended: true,
        ..Seen::default()
    });
    assert_eq!(prefetch.stats().state, PrefetchState::Stopped);
    assert_eq!(prefetch.pieces.lock().take(), None);
}
