//! How much the cache takes on disk: counted before it is written, by all processes together.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::shown::Show;
use crate::source::remote::blocks::BLOCK;
use crate::source::remote::cache::index::Word;
use crate::source::remote::cache::locks::{Lock, Opening};
use crate::source::remote::cache::opened::{Opened, bytes_on_disk, data_path, index_path, objects};
use crate::source::remote::cache::scratch::Scratch;

/// The part of the free space that the cache may take, where nobody says how much.
const SHARE_OF_FREE: u64 = 10;

/// The part of a filesystem that is left free.
const LEFT_FREE: u64 = 20;

/// The part of the cache that is evicted at once.
const EVICTED: u64 = 32;

/// The directory of the cache, and its bound.
#[derive(Debug)]
pub(super) struct Room {
    directory: PathBuf,
    max: u64,
    /// Holds the number of bytes that are taken, or are about to be.
    usage: Mutex<File>,
    /// Who has it evicts.
    evicting: Mutex<File>,
    off: AtomicBool,
    /// Reservations since the free space was last looked at.
    unseen: AtomicU64,
    scratch: Scratch,
}

impl Room {
    /// The cache in `directory`, of at most `max` bytes.
    pub(super) fn new(directory: PathBuf, max: Option<u64>) -> io::Result<Self> {
        check_local(&directory)?;
        let (usage, evicting) = (open(&directory, "usage")?, open(&directory, "evicting")?);
        let max = match max {
            Some(max) => max,
            None => (free(&directory)?.0 + read(&usage)?) / SHARE_OF_FREE,
        };
        Ok(Room {
            max,
            usage: Mutex::new(usage),
            evicting: Mutex::new(evicting),
            off: AtomicBool::new(false),
            unseen: AtomicU64::new(0),
            scratch: Scratch::default(),
            directory,
        })
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Memory for whole blocks that are read.
    pub(super) fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    pub(super) fn is_on(&self) -> bool {
        !self.off.load(Ordering::Relaxed)
    }

    /// Goes on without the cache; the log says so once.
    pub(super) fn failed(&self, error: &io::Error) {
        if !self.off.swap(true, Ordering::Relaxed) {
            log::warn!(
                "{}: no more blocks of sources are kept here: {error}",
                self.directory.shown()
            );
        }
    }

    /// Begins to write a block: nobody counts the bytes on disk again until it is written. `None` if somebody
    /// does just now.
    pub(super) fn begin(&self) -> io::Result<Option<Opening>> {
        Opening::shared(open(&self.directory, "writing")?)
    }

    /// Takes `bytes` of room, if there is some, for what was [begun](Self::begin).
    pub(super) fn reserve(&self, bytes: u64) -> io::Result<bool> {
        Ok(self.max >= 2 * BLOCK && !self.is_disk_full(bytes)? && self.take(bytes)?)
    }

    fn take(&self, bytes: u64) -> io::Result<bool> {
        self.change(|used| {
            let after = used.saturating_add(bytes);
            (after <= self.max).then_some(after)
        })
    }

    /// Notes that `bytes` are not taken any more.
    pub(super) fn give_back(&self, bytes: u64) {
        let _ = self.change(|used| Some(used.saturating_sub(bytes)));
    }

    /// Sets what is taken to what `next` makes of it, unless that is nothing, or other processes keep it
    /// from that.
    pub(super) fn change(&self, next: impl Fn(u64) -> Option<u64>) -> io::Result<bool> {
        /// It is held for two system calls.
        const TRIES: usize = 1000;
        let usage = self.usage.lock();
        for _ in 0..TRIES {
            let Some(_lock) = Lock::of_file(&usage)? else {
                std::thread::yield_now();
                continue;
            };
            let Some(next) = next(read(&usage)?) else {
                return Ok(false);
            };
            usage.write_all_at(&next.to_le_bytes(), 0)?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Whether the filesystem has too little free space. It is asked for each 16 blocks.
    fn is_disk_full(&self, bytes: u64) -> io::Result<bool> {
        const SELDOM: u64 = 16;
        if !self
            .unseen
            .fetch_add(1, Ordering::Relaxed)
            .is_multiple_of(SELDOM)
        {
            return Ok(false);
        }
        let (free, all) = free(&self.directory)?;
        Ok(free < bytes + all / LEFT_FREE)
    }

    /// Evicts what was not used for long; whether there may be room then.
    pub(super) fn evict(&self) -> io::Result<bool> {
        let Some(evicting) = self.evicting.try_lock() else {
            return Ok(false);
        };
        let Some(_lock) = Lock::of_file(&evicting)? else {
            return Ok(false);
        };
        let sum = |objects: &[(PathBuf, u64)]| objects.iter().map(|(_, bytes)| bytes).sum::<u64>();
        // A process that was killed may have counted what it did not write.
        if let Some(_nobody_writes) = Opening::alone(open(&self.directory, "writing")?)? {
            let taken = sum(&objects(&self.directory)?);
            self.change(|_| Some(taken))?;
        }
        let objects = objects(&self.directory)?;
        let taken = sum(&objects);
        let mut blocks: Vec<(u64, usize, u64, Word)> = Vec::new();
        for (object, (path, _)) in objects.iter().enumerate() {
            let Ok(opened) = Opened::open(path, 0, false) else {
                continue;
            };
            for (block, entry) in opened.index.entries()?.into_iter().enumerate() {
                if entry.word.is_present() {
                    blocks.push((entry.used, object, block as u64, entry.word));
                }
            }
        }
        blocks.sort_unstable_by_key(|(used, object, block, _)| (*used, *object, *block));
        let goal = (self.max / EVICTED).max(2 * BLOCK) + taken.saturating_sub(self.max);
        let goal = blocks.len().min(goal.div_ceil(BLOCK) as usize);
        let mut victims = blocks[..goal].to_vec();
        victims.sort_unstable_by_key(|(_, object, block, _)| (*object, *block));
        let mut freed = 0;
        for of_object in victims.chunk_by(|a, b| a.1 == b.1) {
            let Ok(opened) = Opened::open(&objects[of_object[0].1].0, 0, false) else {
                continue;
            };
            let len = opened.data.metadata()?.len();
            for (_, _, block, word) in of_object {
                if let Some(_lock) = Lock::of_block(opened.index.file(), *block)?
                    && opened.index.entry(*block)?.word == *word
                {
                    opened.evict(*block, *word)?;
                    freed += bytes_on_disk(len, *block);
                }
            }
        }
        self.give_back(freed);
        self.remove_empty(&objects);
        Ok(freed > 0)
    }

    /// Removes the files of objects that have had no block for long.
    fn remove_empty(&self, objects: &[(PathBuf, u64)]) {
        const LONG: std::time::Duration = std::time::Duration::from_secs(3600);
        for (path, bytes) in objects {
            let is_old = |path: PathBuf| {
                let modified = path.metadata().and_then(|metadata| metadata.modified());
                modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > LONG))
            };
            if *bytes == 0 && is_old(index_path(path)) {
                let _ = std::fs::remove_file(data_path(path));
                let _ = std::fs::remove_file(index_path(path));
            }
        }
    }
}

/// A file that holds no block.
fn open(directory: &Path, name: &str) -> io::Result<File> {
    let mut options = File::options();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600);
    options.open(directory.join(name))
}

fn read(usage: &File) -> io::Result<u64> {
    let mut bytes = [0; 8];
    match usage.read_exact_at(&mut bytes, 0) {
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error),
        _ => Ok(u64::from_le_bytes(bytes)),
    }
}

/// The free bytes of the filesystem of `path`, and all of them.
fn free(path: &Path) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::statvfs(path)?;
    Ok((stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize))
}

/// Checks that `directory` is on a disk of this machine: other machines would not see its locks.
fn check_local(directory: &Path) -> io::Result<()> {
    const SHARED: [u64; 6] = [
        0x6969,      // NFS
        0xFF53_4D42, // CIFS
        0xFE53_4D42, // SMB 2
        0x0BD0_0BD0, // Lustre
        0x4750_4653, // GPFS
        0x00C3_6400, // Ceph
    ];
    let kind = rustix::fs::statfs(directory)?.f_type as u64 & 0xFFFF_FFFF;
    if SHARED.contains(&kind) {
        let problem = "it is on a network filesystem, and must be on a disk of this machine";
        return Err(io::Error::other(problem));
    }
    Ok(())
}
