//! Memory for the inputs and outputs of tiles, used again and again: fresh memory would be
//! cleared, and mapped page by page, for every tile.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::sync::Arc;

use crate::read::sync::Mutex;

use crate::error::{Error, Result};
use crate::memory::{self, HugePages};

/// Buffers that nobody uses now.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    idle: Mutex<Idle>,
}

#[derive(Debug, Default)]
struct Idle {
    /// Those of each kind, in the order in which they were given back, with the number of that.
    by_kind: HashMap<Kind, VecDeque<(u64, Memory)>>,
    bytes: usize,
    /// How often something was given back.
    given: u64,
}

/// Memory of one kind and capacity is as good as any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Small(usize),
    Huge(usize),
}

#[derive(Debug)]
enum Memory {
    Small(Vec<u8>),
    Huge(HugePages),
}

impl Default for Memory {
    fn default() -> Self {
        Memory::Small(Vec::new())
    }
}

impl Memory {
    fn new(kind: Kind) -> Result<Self> {
        match kind {
            Kind::Small(capacity) => memory::with_capacity(capacity).map(Memory::Small),
            Kind::Huge(len) => HugePages::new(len).map(Memory::Huge),
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Memory::Small(bytes) => Kind::Small(bytes.capacity()),
            Memory::Huge(pages) => Kind::Huge(pages.len()),
        }
    }
}

impl Kind {
    fn bytes(self) -> usize {
        match self {
            Kind::Small(bytes) | Kind::Huge(bytes) => bytes,
        }
    }
}

impl Buffers {
    /// Idle buffers beyond this many bytes are freed, those first that have not been used for longest: the
    /// tensors of a model are of several sizes, and those of the last one must not be in the way of this one's.
    pub(super) const MOST_IDLE_BYTES: usize = 32 << 20;

    /// The bytes of all idle buffers, counted one by one.
    #[cfg(test)]
    pub(super) fn idle_bytes(&self) -> usize {
        let idle = self.idle.lock();
        let kinds = idle.by_kind.iter();
        kinds.map(|(kind, idle)| kind.bytes() * idle.len()).sum()
    }

    /// A buffer of `len` bytes of no particular value.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub(super) fn take(self: &Arc<Self>, len: usize) -> Result<Buffer> {
        let capacity = len.next_power_of_two() + memory::PAGE;
        let memory = self.memory(Kind::Small(capacity), len)?;
        let Memory::Small(mut bytes) = memory else {
            unreachable!("memory is of the kind that was asked for");
        };
        let start = memory::to_page(&bytes);
        bytes.resize(start + len, 0);
        Ok(Buffer {
            memory: Memory::Small(bytes),
            range: start..start + len,
            home: Some(self.clone()),
        })
    }

    /// The same in huge pages, `before` bytes after the beginning of a page.
    pub(super) fn take_huge(self: &Arc<Self>, before: usize, len: usize) -> Result<Buffer> {
        let capacity = (before + len).next_multiple_of(HugePages::SIZE);
        Ok(Buffer {
            memory: self.memory(Kind::Huge(capacity), len)?,
            range: before..before + len,
            home: Some(self.clone()),
        })
    }

    /// Memory of this kind, for `len` bytes.
    fn memory(&self, kind: Kind, len: usize) -> Result<Memory> {
        let reused = self.idle.lock().take(kind);
        match reused {
            Some(memory) => Ok(memory),
            None => Memory::new(kind).map_err(|_| Error::no_memory(len)),
        }
    }

    fn give(&self, memory: Memory) {
        let freed = self.idle.lock().give(memory, Self::MOST_IDLE_BYTES);
        // Outside of the lock: the kernel may take its time.
        drop(freed);
    }
}

impl Idle {
    /// The memory of `kind` that was given back last.
    fn take(&mut self, kind: Kind) -> Option<Memory> {
        let (_, memory) = self.by_kind.get_mut(&kind)?.pop_back()?;
        self.bytes -= kind.bytes();
        Some(memory)
    }

    /// Keeps `memory`, and at most `most` bytes in all. Returns what is not kept.
    fn give(&mut self, memory: Memory, most: usize) -> Vec<Memory> {
        let kind = memory.kind();
        if kind.bytes() > most {
            return vec![memory];
        }
        self.bytes += kind.bytes();
        self.given += 1;
        let same = self.by_kind.entry(kind).or_default();
        same.push_back((self.given, memory));
        let mut freed = Vec::new();
        while self.bytes > most {
            let oldest = |(_, idle): &(&Kind, &mut VecDeque<(u64, Memory)>)| {
                idle.front().map_or(u64::MAX, |(number, _)| *number)
            };
            let kinds = self.by_kind.iter_mut();
            let Some((kind, idle)) = kinds.min_by_key(oldest) else {
                break;
            };
            self.bytes -= kind.bytes();
            freed.extend(idle.pop_front().map(|(_, memory)| memory));
        }
        freed
    }
}

/// Bytes whose memory goes back to where it was taken from.
#[derive(Default)]
pub struct Buffer {
    memory: Memory,
    /// Where they are in it.
    range: Range<usize>,
    home: Option<Arc<Buffers>>,
}

impl Buffer {
    /// The memory of whole blocks of `size` bytes that the bytes of a buffer in huge pages are in.
    pub(super) fn blocks(&mut self, size: usize) -> &mut [u8] {
        let end = self.range.end.next_multiple_of(size);
        &mut self.all_mut()[..end]
    }

    fn all(&self) -> &[u8] {
        match &self.memory {
            Memory::Small(bytes) => bytes,
            Memory::Huge(pages) => pages,
        }
    }

    fn all_mut(&mut self) -> &mut [u8] {
        match &mut self.memory {
            Memory::Small(bytes) => bytes,
            Memory::Huge(pages) => pages,
        }
    }
}

impl From<Vec<u8>> for Buffer {
    fn from(bytes: Vec<u8>) -> Self {
        Buffer {
            range: 0..bytes.len(),
            memory: Memory::Small(bytes),
            home: None,
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.all()[self.range.clone()]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        let range = self.range.clone();
        &mut self.all_mut()[range]
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer of {} bytes", self.len())
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            home.give(std::mem::take(&mut self.memory));
        }
    }
}
