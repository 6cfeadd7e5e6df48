//! Noting what planning learns of sources, for a pin file.

use std::collections::BTreeMap;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::source::remote::pins::{Known, Piece, Pins};
use crate::source::remote::store::Object;

/// What was learned so far, while it is noted.
#[derive(Debug, Default)]
pub(super) struct Recorder(Mutex<Option<Recording>>);

#[derive(Debug, Default)]
struct Recording {
    known: Known,
    /// By [content](Object::content) and offset.
    pieces: BTreeMap<String, BTreeMap<u64, Vec<u8>>>,
    bytes: u64,
}

impl Recorder {
    /// Maximum bytes of recorded files; servers are asked later for those beyond it.
    const MAX_BYTES: u64 = 256 << 20;

    /// One that notes from now on, if it `is_on`.
    pub(super) fn new(is_on: bool) -> Self {
        Recorder(Mutex::new(is_on.then(Recording::default)))
    }

    /// Notes the objects below `url`.
    pub(super) fn listing(&self, url: &str, objects: &[Object]) {
        if let Some(recording) = &mut *self.0.lock() {
            let listings = &mut recording.known.listings;
            listings.insert(url.to_owned(), objects.to_vec());
        }
    }

    /// Notes what is at `url`, or that nothing is.
    pub(super) fn file(&self, url: &str, object: Option<&Object>) {
        if let Some(recording) = &mut *self.0.lock() {
            let files = &mut recording.known.files;
            files.insert(url.to_owned(), object.cloned());
        }
    }

    /// Notes `bytes` of `content`.
    pub(super) fn bytes(&self, content: &str, offset: u64, bytes: &[u8]) {
        let mut recording = self.0.lock();
        let Some(recording) = &mut *recording else {
            return;
        };
        let len = bytes.len() as u64;
        let pieces = match recording.pieces.get_mut(content) {
            Some(pieces) => pieces,
            None => recording.pieces.entry(content.to_owned()).or_default(),
        };
        let before = pieces.range(..=offset).next_back();
        let is_known = before.is_some_and(|(at, piece)| at + piece.len() as u64 >= offset + len);
        if !is_known && recording.bytes + len <= Self::MAX_BYTES {
            recording.bytes += len;
            let old = pieces.insert(offset, bytes.to_vec());
            recording.bytes -= old.map_or(0, |old| old.len() as u64);
        }
    }

    /// All that was noted. No more is.
    pub(super) fn take(&self) -> Pins {
        let Recording { known, pieces, .. } = self.0.lock().take().unwrap_or_default();
        let pieces = pieces.into_iter();
        let pieces = pieces.map(|(content, pieces)| (content, joined(pieces)));
        Pins::new(known, pieces.collect())
    }
}

/// `pieces` of an object, those in one that touch or overlap.
fn joined(pieces: BTreeMap<u64, Vec<u8>>) -> Vec<Piece> {
    let mut joined: Vec<(u64, Vec<u8>)> = Vec::new();
    for (offset, bytes) in pieces {
        match joined.last_mut() {
            Some((start, last)) if offset <= *start + last.len() as u64 => {
                let known = *start + last.len() as u64 - offset;
                let new = bytes.get(known as usize..).unwrap_or_default();
                last.extend_from_slice(new);
            }
            _ => joined.push((offset, bytes)),
        }
    }
    let pieces = joined.into_iter().map(|(offset, bytes)| Piece {
        offset,
        bytes: Bytes::from(bytes),
    });
    pieces.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_that_touch_or_overlap_are_one_piece() {
        let recorder = Recorder::new(true);
        let content: Vec<u8> = (0..100).collect();
        for range in [0..8, 8..40, 30..50, 10..20, 60..70, 60..65, 99..100] {
            recorder.bytes("u", range.start as u64, &content[range]);
        }
        let pins = recorder.take();
        recorder.bytes("u", 80, &content[80..90]);
        for (range, is_known) in [
            (0..50, true),
            (60..70, true),
            (99..100, true),
            (50..60, false),
        ] {
            let found = pins.bytes("u", &(range.start as u64..range.end as u64));
            assert_eq!(found, is_known.then_some(&content[range]));
        }
        assert_eq!(recorder.take().bytes("u", &(80..90)), None, "it has ended");
        assert!(pins.is_empty(), "bytes alone pin nothing");
    }
}
