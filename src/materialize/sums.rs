//! Checksums of written files: one to find out whether a file is still what was written, and
//! SHA-256 where it is asked for.
//!
//! Threads write the segments of a file in any order, so the first is made of a checksum for each
//! segment (XXH3, 128 bits). SHA-256 needs all bytes of a file in their order.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use sha2::{Digest, Sha256};
use twox_hash::xxhash3_128::Hasher;

use crate::catalog::Extents;
use crate::error::{Error, Result};
use crate::jobs::Progress;
use crate::manifest::Sha256Sum;
use crate::materialize::failures::interrupted;

/// Bytes that are read at once.
const CHUNK_BYTES: u64 = 1 << 20;

/// The checksums of a whole file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sums {
    /// `None` if the kernel copied bytes that nobody saw.
    pub(super) check: Option<u128>,
    pub(super) sha256: Option<Sha256Sum>,
}

/// The checksums of the segments of a file, as they become known.
#[derive(Debug)]
pub(super) struct SegmentSums {
    segments: Vec<Option<u128>>,
    sha256: Option<Sha256Sum>,
}

impl SegmentSums {
    pub(super) fn new(segments: usize) -> Self {
        SegmentSums {
            segments: vec![None; segments],
            sha256: None,
        }
    }

    /// What they are for the whole file.
    pub(super) fn whole(&self) -> Sums {
        let mut hasher = Hasher::new();
        let all_seen = self.segments.iter().all(|sum| {
            sum.inspect(|sum| hasher.write(&sum.to_le_bytes()))
                .is_some()
        });
        Sums {
            check: all_seen.then(|| hasher.finish_128()),
            sha256: self.sha256,
        }
    }
}

/// Sees the bytes of segments, in the order in which they are in the file.
pub(super) struct Summing {
    segment: Hasher,
    is_seen: bool,
    sha256: Option<Sha256>,
}

impl Summing {
    /// With `sha256`, all segments of the file must follow.
    pub(super) fn new(sha256: bool) -> Self {
        Summing {
            segment: Hasher::new(),
            is_seen: true,
            sha256: sha256.then(Sha256::new),
        }
    }

    /// Whether every byte must be shown.
    pub(super) fn wants_all(&self) -> bool {
        self.sha256.is_some()
    }

    pub(super) fn see(&mut self, bytes: &[u8]) {
        self.segment.write(bytes);
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(bytes);
        }
    }

    /// Some bytes of the segment pass unseen.
    pub(super) fn miss(&mut self) {
        self.is_seen = false;
    }

    /// Segment number `position` of the file ends.
    pub(super) fn end_segment(&mut self, position: usize, sums: &mut SegmentSums) {
        let sum = std::mem::replace(&mut self.segment, Hasher::new()).finish_128();
        sums.segments[position] = self.is_seen.then_some(sum);
        self.is_seen = true;
    }

    /// The last segment has ended.
    pub(super) fn end(&mut self, sums: &mut SegmentSums) {
        if let Some(sha256) = self.sha256.take() {
            sums.sha256 = Some(sha256.finalize().into());
        }
    }
}

/// The checksums of `file`, found by reading it; it is to hold `content`. `None` if it has another
/// length.
///
/// # Errors
/// If it cannot be read, or the job is cancelled.
pub(super) fn of_file(
    file: &File,
    path: &Path,
    content: &Extents,
    sha256: bool,
    progress: &dyn Progress,
) -> Result<Option<Sums>> {
    let metadata = file.metadata();
    let metadata = metadata.map_err(|e| Error::io("read the attributes", path, e))?;
    if !metadata.is_file() || metadata.len() != content.len() {
        return Ok(None);
    }
    let mut buffer = vec![0; CHUNK_BYTES.min(content.len()) as usize];
    let mut summing = Summing::new(sha256);
    let mut sums = SegmentSums::new(content.segments().len());
    for (position, segment) in content.segments().iter().enumerate() {
        let end = segment.start + segment.len;
        let mut at = segment.start;
        while at < end {
            if progress.cancelled() {
                return Err(interrupted());
            }
            let bytes = &mut buffer[..(end - at).min(CHUNK_BYTES) as usize];
            file.read_exact_at(bytes, at).map_err(|e| {
                let action = format!("read {} bytes at offset {at}", bytes.len());
                Error::io(action, path, e)
            })?;
            summing.see(bytes);
            at += bytes.len() as u64;
        }
        summing.end_segment(position, &mut sums);
    }
    summing.end(&mut sums);
    Ok(Some(sums.whole()))
}
