//! Pin files: what planning learned of sources at URLs. Another run, also on another machine, has the same view
//! from one without asking for it again.
//!
//! | bytes | |
//! |---|---|
//! | 0 to 7 | `CKPTPIN1` |
//! | 8 to 15 | the length of the JSON, little-endian |
//! | 16 to 31 | the XXH3 checksum, 128 bits, of all that follows |
//! | then | JSON: `listings`, `files` and `pieces`; then the bytes of the pieces, one after the other |

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_128;

use crate::error::{Code, Error, Result};
use crate::source::remote::store::{Object, Pin};

const MAGIC: &[u8; 8] = b"CKPTPIN1";

/// Bytes before the JSON.
const HEAD: usize = 32;

/// Maximum length of a pin file, in bytes.
const MAX_BYTES: u64 = 1 << 30;

/// What planning learned of sources at URLs: which files there are, what pins them, and the bytes that it read.
#[derive(Debug, Default, Clone)]
pub struct Pins {
    known: Known,
    /// By [content](Object::content), in order, none touching another.
    pieces: BTreeMap<String, Vec<Piece>>,
}

/// Which files there are.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(super) struct Known {
    /// By the URL of the directory.
    pub(super) listings: BTreeMap<String, Vec<Object>>,
    /// By the URL of a file that was asked for alone; nothing if there is none.
    pub(super) files: BTreeMap<String, Option<Object>>,
}

/// Bytes of a file.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) offset: u64,
    pub(super) bytes: Bytes,
}

#[derive(Serialize, Deserialize)]
struct Contents {
    #[serde(flatten)]
    known: Known,
    pieces: Vec<PieceEntry>,
}

#[derive(Serialize, Deserialize)]
struct PieceEntry {
    content: String,
    offset: u64,
    len: u64,
}

impl Pins {
    pub(super) fn new(known: Known, pieces: BTreeMap<String, Vec<Piece>>) -> Self {
        Pins { known, pieces }
    }

    /// Whether nothing is pinned: no source was at a URL.
    pub fn is_empty(&self) -> bool {
        self.known.listings.is_empty() && self.known.files.is_empty()
    }

    /// The pin file at `path`.
    ///
    /// # Errors
    /// If it cannot be read, or is no pin file of this version.
    pub fn read(path: &Path) -> Result<Self> {
        let failed = |error| Error::io("read the pin file", path, error);
        let file = File::open(path).map_err(failed)?;
        let mut bytes = Vec::new();
        let mut file = file.take(MAX_BYTES + 1);
        file.read_to_end(&mut bytes).map_err(failed)?;
        Self::parse(bytes.into()).map_err(|problem| {
            let error = Error::of_file(Code::BadPinFile, path, problem);
            error.with_hint("make it again with ckptfs plan --pin FILE")
        })
    }

    /// The bytes of a pin file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let pieces = self
            .pieces
            .iter()
            .flat_map(|(content, pieces)| pieces.iter().map(move |piece| (content, piece)));
        let entries = pieces.clone().map(|(content, piece)| PieceEntry {
            content: content.clone(),
            offset: piece.offset,
            len: piece.bytes.len() as u64,
        });
        let contents = Contents {
            known: self.known.clone(),
            pieces: entries.collect(),
        };
        let json = serde_json::to_vec(&contents).expect("names and numbers are written as JSON");
        let mut file = vec![0; HEAD];
        file.extend_from_slice(&json);
        pieces.for_each(|(_, piece)| file.extend_from_slice(&piece.bytes));
        let checksum = XxHash3_128::oneshot(&file[HEAD..]);
        file[..8].copy_from_slice(MAGIC);
        file[8..16].copy_from_slice(&(json.len() as u64).to_le_bytes());
        file[16..HEAD].copy_from_slice(&checksum.to_le_bytes());
        file
    }

    /// What `file` is, or what is wrong with it.
    fn parse(file: Bytes) -> std::result::Result<Self, String> {
        if file.len() as u64 > MAX_BYTES {
            return Err(format!("it has more than {MAX_BYTES} bytes"));
        }
        if file.len() < HEAD || &file[..8] != MAGIC {
            return Err("it does not begin as a pin file of this version does".to_owned());
        }
        let json_len = u64::from_le_bytes(file[8..16].try_into().expect("8 bytes"));
        let checksum = u128::from_le_bytes(file[16..HEAD].try_into().expect("16 bytes"));
        if XxHash3_128::oneshot(&file[HEAD..]) != checksum {
            return Err("its checksum is another: it is damaged or cut short".to_owned());
        }
        let data = usize::try_from(json_len)
            .ok()
            .and_then(|len| HEAD.checked_add(len))
            .filter(|data| *data <= file.len())
            .ok_or("it is shorter than it says")?;
        let contents: Contents =
            serde_json::from_slice(&file[HEAD..data]).map_err(|error| error.to_string())?;
        let mut pins = Pins::new(contents.known, BTreeMap::new());
        pins.check()?;
        let mut at = data;
        for entry in contents.pieces {
            let PieceEntry {
                content,
                offset,
                len,
            } = entry;
            let end = usize::try_from(len)
                .ok()
                .and_then(|len| at.checked_add(len))
                .filter(|end| *end <= file.len() && offset.checked_add(len).is_some())
                .ok_or_else(|| format!("a piece of {content} is not all there"))?;
            let bytes = file.slice(at..end);
            pins.pieces
                .entry(content)
                .or_default()
                .push(Piece { offset, bytes });
            at = end;
        }
        Ok(pins)
    }

    /// Checks that objects of repositories, and only those, are pinned by commits: the stores rely on it.
    fn check(&self) -> std::result::Result<(), String> {
        let alone = self.known.files.values().flatten();
        for object in self.known.listings.values().flatten().chain(alone) {
            let is_of_hub = object.url().starts_with("hf://");
            if is_of_hub != matches!(object.pin, Pin::Commit { .. }) {
                return Err(format!("{} is not pinned as it must be", object.url()));
            }
        }
        Ok(())
    }

    /// The objects below `url`, if they were listed.
    pub(super) fn listing(&self, url: &str) -> Option<&[Object]> {
        self.known.listings.get(url).map(Vec::as_slice)
    }

    /// The object at `url`, or that there is none, if it was asked for.
    pub(super) fn file(&self, url: &str) -> Option<&Option<Object>> {
        self.known.files.get(url)
    }

    /// The bytes `range` of `content`, if planning read all of them.
    pub(super) fn bytes(&self, content: &str, range: &Range<u64>) -> Option<&[u8]> {
        let pieces = self.pieces.get(content)?;
        let next = pieces.partition_point(|piece| piece.offset <= range.start);
        let piece = &pieces[next.checked_sub(1)?];
        let from = usize::try_from(range.start - piece.offset).ok()?;
        let len = usize::try_from(range.end - range.start).ok()?;
        piece.bytes.get(from..from.checked_add(len)?)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn pins() -> Pins {
        let object = |url: &str, pin| Object {
            name: "x".to_owned(),
            location: Path::new(url).into(),
            len: 10,
            modified: SystemTime::UNIX_EPOCH,
            pin,
        };
        let commit = Pin::Commit {
            commit: "c".to_owned(),
            hash: "h".to_owned(),
        };
        let known = Known {
            listings: [
                (
                    "s3://b".to_owned(),
                    vec![object("s3://b/x", Pin::Tag("1".to_owned()))],
                ),
                ("hf://o/m".to_owned(), vec![object("hf://o/m/x", commit)]),
            ]
            .into(),
            files: [("s3://b/none".to_owned(), None)].into(),
        };
        let piece = |offset, bytes: &'static [u8]| Piece {
            offset,
            bytes: Bytes::from_static(bytes),
        };
        let pieces = [(
            "s3://b/x".to_owned(),
            vec![piece(0, b"0123"), piece(6, b"6789")],
        )];
        Pins::new(known, pieces.into())
    }

    #[test]
    fn a_pin_file_has_what_was_learned() {
        let read = Pins::parse(pins().to_bytes().into()).unwrap();
        assert_eq!(read.listing("s3://b").unwrap().len(), 1);
        assert!(read.listing("s3://c").is_none());
        assert!(matches!(read.file("s3://b/none"), Some(None)));
        assert!(read.file("s3://b/other").is_none());
        assert_eq!(read.bytes("s3://b/x", &(1..4)), Some(&b"123"[..]));
        assert_eq!(read.bytes("s3://b/x", &(6..10)), Some(&b"6789"[..]));
        for range in [1..5, 4..6, 5..7, 6..11] {
            assert_eq!(read.bytes("s3://b/x", &range), None, "{range:?}");
        }
        assert_eq!(read.bytes("hf://o/m/x", &(0..1)), None);
    }

    #[test]
    fn a_file_with_any_other_byte_is_refused() {
        let good = pins().to_bytes();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(Pins::parse(bad.into()).is_err(), "byte {at}");
            assert!(
                Pins::parse(good[..at].to_vec().into()).is_err(),
                "{at} bytes"
            );
        }
    }

    #[test]
    fn a_repository_that_is_not_pinned_by_a_commit_is_refused() {
        let mut pins = pins();
        pins.known.listings.get_mut("hf://o/m").unwrap()[0].pin = Pin::Nothing;
        let problem = Pins::parse(pins.to_bytes().into()).unwrap_err();
        assert!(problem.contains("hf://o/m/x"), "{problem}");
    }
}
