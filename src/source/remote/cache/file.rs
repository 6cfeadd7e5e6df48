//! The blocks of an object.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use rustix::process::{Resource, getrlimit};
use sha2::{Digest, Sha256};

use crate::shown::Show;
use crate::source::pool::{InUse, Pool, Rank, Slot};
use crate::source::remote::blocks::BLOCK;
use crate::source::remote::cache::index::{Entry, PIECE, Word};
use crate::source::remote::cache::locks::Lock;
use crate::source::remote::cache::opened::{Opened, bytes_on_disk, data_path};
use crate::source::remote::cache::room::Room;
use crate::source::remote::options::BlockCacheOptions;
use crate::source::remote::store::{Object, Pin};

/// What the directory with the files is called; another version has another name.
const DIRECTORY: &str = "blocks-2";

/// The cache of a directory; without effect where it cannot be used.
#[derive(Debug)]
pub(in crate::source::remote) struct BlockCache(Option<Arc<Room>>);

/// The blocks of an object.
#[derive(Debug)]
pub(in crate::source::remote) struct File {
    room: Arc<Room>,
    path: PathBuf,
    len: u64,
    opened: Arc<Slot<Opened>>,
    /// Held for each write: the kernel allows one at a time to a file, and threads that wait for it there spin.
    writing: Mutex<()>,
    /// Of each block, what was checked.
    checked: OnceLock<Box<[Checked]>>,
}

/// Which pieces of a block were checked against their checksums (the lower half, a bit for each), and with which word
/// of it (the upper half).
#[derive(Debug, Default)]
struct Checked(AtomicU64);

/// Objects that are open.
static OPEN: Pool<Opened> = Pool::new(share);

/// The part of the limit on open files that these may take, two for an object.
fn share() -> usize {
    const SHARE: u64 = 8;
    let limit = getrlimit(Resource::Nofile).current;
    let share = limit.map_or(4096, |limit| limit / SHARE);
    usize::try_from(share).unwrap_or(usize::MAX).max(1)
}

impl Checked {
    /// The pieces that were checked with `word`.
    fn pieces(&self, word: Word) -> u32 {
        let checked = self.0.load(Ordering::Relaxed);
        if (checked >> 32) as u32 == word.short() {
            checked as u32
        } else {
            0
        }
    }

    /// Notes that `pieces` were, too.
    fn add(&self, word: Word, pieces: u32) {
        let known = self.pieces(word);
        let all = u64::from(word.short()) << 32 | u64::from(known | pieces);
        // What another notes meanwhile may be lost, and is checked again.
        self.0.store(all, Ordering::Relaxed);
    }
}

impl BlockCache {
    /// The cache in the directory of `options`, which is made if it is not there.
    pub(in crate::source::remote) fn new(options: &BlockCacheOptions) -> Self {
        let directory = options.directory.join(DIRECTORY);
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory);
        let room = made.and_then(|()| Room::new(directory, options.max_bytes));
        BlockCache(
            room.map(Arc::new)
                .map_err(|error| {
                    let directory = options.directory.shown();
                    log::warn!(
                        "{directory}: cannot keep blocks of sources here, and keeps none: {error}"
                    );
                })
                .ok(),
        )
    }

    /// The blocks of `object`; `None` if they cannot be kept: nothing would say that they are of another
    /// content.
    pub(in crate::source::remote) fn file(&self, object: &Object) -> Option<File> {
        let room = self.0.as_ref().filter(|_| object.pin != Pin::Nothing)?;
        let mut name = Sha256::new();
        for part in [object.url(), &object.pin.to_string()] {
            name.update((part.len() as u64).to_le_bytes());
            name.update(part);
        }
        name.update(object.len.to_le_bytes());
        let name = name.finalize();
        let name: String = name[..20]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Some(File {
            room: room.clone(),
            path: room.directory().join(name),
            len: object.len,
            opened: OPEN.slot(Rank::First),
            writing: Mutex::default(),
            checked: OnceLock::new(),
        })
    }
}

impl File {
    fn block_len(&self, block: u64) -> usize {
        BLOCK.min(self.len - block * BLOCK) as usize
    }

    /// The files, if there are any.
    fn existing(&self) -> Option<InUse<Opened>> {
        self.opened
            .get(|| Opened::open(&self.path, self.len, false))
            .ok()
    }

    fn checked(&self, block: u64) -> &Checked {
        let checked = self.checked.get_or_init(|| {
            let blocks = self.len.div_ceil(BLOCK);
            (0..blocks).map(|_| Checked::default()).collect()
        });
        &checked[block as usize]
    }

    /// Whether `block` is there, as far as its entry says.
    pub(in crate::source::remote) fn has(&self, block: u64) -> bool {
        let entry = self
            .existing()
            .and_then(|opened| opened.index.entry(block).ok());
        entry.is_some_and(|entry| entry.word.is_present())
    }

    /// Fills `part` with the bytes of `block` from `skip`, if they are there.
    pub(in crate::source::remote) fn read(&self, block: u64, skip: usize, part: &mut [u8]) -> bool {
        let Some(opened) = self.existing() else {
            return false;
        };
        self.try_read(&opened, block, skip, part).unwrap_or(false)
    }

    fn try_read(
        &self,
        opened: &Opened,
        block: u64,
        skip: usize,
        part: &mut [u8],
    ) -> io::Result<bool> {
        let entry = opened.index.entry(block)?;
        if !entry.word.is_present() {
            return Ok(false);
        }
        if !self.read_checked(opened, block, &entry, skip, part)? {
            return Ok(false);
        }
        // A hole that was made meanwhile reads as zeros.
        if opened.index.word(block)? != entry.word {
            return Ok(false);
        }
        opened.index.touch(block, &entry)?;
        Ok(true)
    }

    /// Fills `part` with the bytes of `block` from `skip`; whether the pieces of it that were not checked before have the
    /// checksums of `entry`.
    fn read_checked(
        &self,
        opened: &Opened,
        block: u64,
        entry: &Entry,
        skip: usize,
        part: &mut [u8],
    ) -> io::Result<bool> {
        let checked = self.checked(block);
        let known = checked.pieces(entry.word);
        let end = skip + part.len();
        let pieces = skip / PIECE..end.div_ceil(PIECE);
        if pieces.clone().all(|piece| known & 1 << piece != 0) {
            let at = block * BLOCK + skip as u64;
            return opened.data.read_exact_at(part, at).map(|()| true);
        }
        let mut rest = part;
        for piece in pieces {
            let whole = piece * PIECE..self.block_len(block).min((piece + 1) * PIECE);
            let wanted = skip.max(whole.start)..end.min(whole.end);
            let (part, after) = rest.split_at_mut(wanted.len());
            rest = after;
            let read = |bytes: &mut [u8], at: usize| {
                opened.data.read_exact_at(bytes, block * BLOCK + at as u64)
            };
            if known & 1 << piece != 0 {
                read(part, wanted.start)?;
                continue;
            }
            let found = if wanted == whole {
                read(part, whole.start)?;
                Entry::checksum_of(part)
            } else {
                let mut memory = self.room.scratch().take();
                let memory = &mut memory[..whole.len()];
                read(memory, whole.start)?;
                let from = wanted.start - whole.start;
                part.copy_from_slice(&memory[from..from + wanted.len()]);
                Entry::checksum_of(memory)
            };
            if found != entry.checksums[piece] {
                self.forget_damaged(opened, block, entry.word)?;
                return Ok(false);
            }
            checked.add(entry.word, 1 << piece);
        }
        Ok(true)
    }

    /// Takes `block` away, which has not the checksums of `word`, unless it is another one by now.
    fn forget_damaged(&self, opened: &Opened, block: u64, word: Word) -> io::Result<()> {
        if opened.index.word(block)? != word {
            return Ok(());
        }
        log::warn!(
            "{}: block {block} is damaged, and fetched again",
            data_path(&self.path).shown()
        );
        self.forget(opened, block, word)
    }

    /// Takes `block` away, if it is still the one of `word`.
    fn forget(&self, opened: &Opened, block: u64, word: Word) -> io::Result<()> {
        let Some(_lock) = Lock::of_block(opened.index.file(), block)? else {
            return Ok(());
        };
        if opened.index.entry(block)?.word == word {
            opened.evict(block, word)?;
            self.room.give_back(bytes_on_disk(self.len, block));
        }
        Ok(())
    }

    /// Keeps `bytes`, which are `block`, if there is room for them.
    pub(in crate::source::remote) fn keep(&self, block: u64, bytes: &[u8]) {
        if bytes.len() != self.block_len(block) || !self.room.is_on() {
            return;
        }
        if let Err(error) = self.try_keep(block, bytes) {
            self.room.failed(&error);
        }
    }

    fn try_keep(&self, block: u64, bytes: &[u8]) -> io::Result<()> {
        let opened = self
            .opened
            .get(|| Opened::open(&self.path, self.len, true))?;
        if opened.index.entry(block)?.word.is_present() {
            return Ok(());
        }
        let is_done = self.keep_in_room(&opened, block, bytes)?;
        if !is_done && self.room.evict()? {
            self.keep_in_room(&opened, block, bytes)?;
        }
        Ok(())
    }

    /// Whether there was room for a block, which is written then.
    fn keep_in_room(&self, opened: &Opened, block: u64, bytes: &[u8]) -> io::Result<bool> {
        let Some(_writing) = self.room.begin()? else {
            return Ok(true);
        };
        if !self.room.reserve(bytes_on_disk(self.len, block))? {
            return Ok(false);
        }
        let written = self.write(opened, block, bytes);
        if !matches!(written, Ok(true)) {
            self.room.give_back(bytes_on_disk(self.len, block));
        }
        written.map(|_| true)
    }

    /// Writes a block for which there is room; whether it did.
    fn write(&self, opened: &Opened, block: u64, bytes: &[u8]) -> io::Result<bool> {
        let Some(_lock) = Lock::of_block(opened.index.file(), block)? else {
            return Ok(false);
        };
        let word = opened.index.entry(block)?.word;
        if word.is_present() {
            return Ok(false);
        }
        opened.index.set_word(block, word.next().busy())?;
        let written = {
            let _alone = self.writing.lock();
            opened.data.write_all_at(bytes, block * BLOCK)
        };
        if let Err(error) = written {
            // What was written of it takes no more room.
            let _ = opened.evict(block, word);
            return Err(error);
        }
        opened.index.set(block, word.next().present(), bytes)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
