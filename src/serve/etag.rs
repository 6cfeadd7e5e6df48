//! Entity tags, and what clients ask for by them (RFC 9110, section 13).
//!
//! The content of a computed file is not known before it was read, so its tag is a checksum of all that
//! decides on it (`fingerprint.rs`).

use std::fmt;

use crate::catalog::Extents;
use crate::fingerprint::Fingerprint;
use crate::manifest::to_hex;

/// What bytes depend on besides the view: another version may compute others.
const PROGRAM: &str = concat!("ckptfs ", env!("CARGO_PKG_VERSION"));

/// Bytes of a tag. As many as git's checksums have, which the Hub uses as tags and commits; clients
/// take a tag of 32 bytes to be a SHA-256 of the content.
const BYTES: usize = 20;

/// A strong entity tag: two files of one tag have the same bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Etag(String);

impl Etag {
    /// The tag of the file at `path` of a view with this content.
    pub(super) fn of_file(path: &[u8], content: &Extents) -> Self {
        let mut print = Fingerprint::default();
        print.text(PROGRAM.as_bytes());
        print.text(path);
        print.number(content.len());
        for segment in content.segments() {
            print.segment(segment);
        }
        print.sources();
        Etag::short(print)
    }

    /// The tag of all of these files.
    pub(super) fn of_files<'a>(files: impl Iterator<Item = (&'a [u8], &'a Etag)>) -> Self {
        let mut print = Fingerprint::default();
        for (path, tag) in files {
            print.text(path);
            print.text(tag.0.as_bytes());
        }
        Etag::short(print)
    }

    /// The tag of the directory at `path`.
    pub(super) fn of_directory(path: &[u8]) -> Self {
        let mut print = Fingerprint::default();
        print.text(path);
        Etag::short(print)
    }

    fn short(print: Fingerprint) -> Self {
        Etag(to_hex(&print.finish()[..BYTES]))
    }

    /// In hexadecimal.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// As in headers.
impl fmt::Display for Etag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

/// How a request that has conditions is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As if it had none.
    Send,
    /// 304: the client has it.
    NotModified,
    /// 412: the client wants something else.
    Failed,
}

/// What the values of `If-Match` and `If-None-Match` say of a file with the tag `tag`.
pub fn outcome(tag: &Etag, if_match: Option<&[u8]>, if_none_match: Option<&[u8]>) -> Outcome {
    if if_match.is_some_and(|tags| !has(tags, tag, Comparison::Strong)) {
        return Outcome::Failed;
    }
    if if_none_match.is_some_and(|tags| has(tags, tag, Comparison::Weak)) {
        return Outcome::NotModified;
    }
    Outcome::Send
}

/// Whether a range may be sent, by the value of `If-Range`. A date never fits, as files have none.
pub fn range_fits(tag: &Etag, if_range: Option<&[u8]>) -> bool {
    if_range.is_none_or(|value| value.trim_ascii() == tag.to_string().as_bytes())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    /// Weak tags fit nothing.
    Strong,
    Weak,
}

/// Whether the list `tags` has `tag`, or is `*`.
fn has(tags: &[u8], tag: &Etag, comparison: Comparison) -> bool {
    let mut rest = tags.trim_ascii();
    if rest == b"*" {
        return true;
    }
    let wanted = tag.0.as_bytes();
    loop {
        let separators = |byte: &u8| *byte == b',' || byte.is_ascii_whitespace();
        let start = rest.iter().position(|byte| !separators(byte));
        let Some(start) = start else {
            return false;
        };
        rest = &rest[start..];
        let (is_weak, quoted) = match rest.strip_prefix(b"W/") {
            Some(quoted) => (true, quoted),
            None => (false, rest),
        };
        let Some(opaque) = quoted.strip_prefix(b"\"") else {
            return false;
        };
        let Some(end) = opaque.iter().position(|&byte| byte == b'"') else {
            return false;
        };
        if &opaque[..end] == wanted && !(is_weak && comparison == Comparison::Strong) {
            return true;
        }
        rest = &opaque[end + 1..];
    }
}
