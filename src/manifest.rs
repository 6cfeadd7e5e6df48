//! `SHA256SUMS`: the checksums of the files of a directory, as `sha256sum` writes and checks them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use crate::error::{Code, Error, Result};

/// The name of the file, at the top of a directory.
pub const MANIFEST_FILE: &str = "SHA256SUMS";

/// The most bytes of it that are read.
pub const MAX_MANIFEST_BYTES: u64 = 256 << 20;

/// A SHA-256 checksum.
pub type Sha256Sum = [u8; 32];

/// The text that names `sums` by the paths of their files, relative to the directory.
pub fn text(sums: &BTreeMap<PathBuf, Sha256Sum>) -> Vec<u8> {
    let mut text = Vec::new();
    for (path, sum) in sums {
        let name = escaped(path.as_os_str().as_bytes());
        if name.len() > path.as_os_str().len() {
            text.push(b'\\');
        }
        text.extend(to_hex(sum).bytes());
        text.extend(b"  ");
        text.extend(name);
        text.push(b'\n');
    }
    text
}

/// Reads `text`, the content of the file at `shown`.
///
/// # Errors
/// If a line is no checksum and path, names a file twice or one outside of the directory.
pub fn parse(text: &[u8], shown: &Path) -> Result<BTreeMap<PathBuf, Sha256Sum>> {
    let mut sums = BTreeMap::new();
    let lines = text.split(|byte| *byte == b'\n').enumerate();
    for (number, line) in lines.filter(|(_, line)| !line.is_empty()) {
        let fault = |what: &str| {
            Error::of_file(
                Code::BadChecksum,
                shown,
                format!("line {}: {what}", number + 1),
            )
        };
        let (sum, path) =
            parse_line(line).ok_or_else(|| fault("expected a SHA-256 checksum and a file name"))?;
        let is_inside = |part: Component| matches!(part, Component::Normal(_) | Component::CurDir);
        if path.as_os_str().is_empty() || !path.components().all(is_inside) {
            return Err(fault("the file is not in this directory"));
        }
        // `sha256sum ./*` names files by ./name.
        let path: PathBuf = path
            .components()
            .filter(|c| *c != Component::CurDir)
            .collect();
        if sums.insert(path, sum).is_some() {
            return Err(fault("the file was named before"));
        }
    }
    Ok(sums)
}

fn parse_line(line: &[u8]) -> Option<(Sha256Sum, PathBuf)> {
    let (is_escaped, line) = match line.strip_prefix(b"\\") {
        Some(line) => (true, line),
        None => (false, line),
    };
    let (sum, rest) = line.split_at_checked(64)?;
    let name = rest.strip_prefix(b"  ").or(rest.strip_prefix(b" *"))?;
    let name = if is_escaped {
        unescaped(name)?
    } else {
        name.to_vec()
    };
    Some((from_hex(sum)?, OsString::from_vec(name).into()))
}

const ESCAPES: [(u8, u8); 3] = [(b'\\', b'\\'), (b'\n', b'n'), (b'\r', b'r')];

fn escaped(name: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(name.len());
    for byte in name {
        match ESCAPES.iter().find(|(plain, _)| plain == byte) {
            Some((_, letter)) => text.extend([b'\\', *letter]),
            None => text.push(*byte),
        }
    }
    text
}

fn unescaped(text: &[u8]) -> Option<Vec<u8>> {
    let mut name = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        name.push(match byte {
            b'\\' => {
                let letter = bytes.next()?;
                ESCAPES.iter().find(|(_, l)| l == letter)?.0
            }
            byte => *byte,
        });
    }
    Some(name)
}

/// `sum` in lower-case hexadecimal.
pub fn to_hex(sum: &[u8]) -> String {
    sum.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The checksum that `text` is in hexadecimal.
pub fn from_hex(text: &[u8]) -> Option<Sha256Sum> {
    let mut sum = [0; 32];
    if text.len() != 2 * sum.len() {
        return None;
    }
    for (byte, digits) in sum.iter_mut().zip(text.chunks_exact(2)) {
        let digit = |position: usize| char::from(digits[position]).to_digit(16);
        *byte = (digit(0)? * 16 + digit(1)?) as u8;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &[u8]) -> Result<BTreeMap<PathBuf, Sha256Sum>> {
        parse(text, Path::new("SHA256SUMS"))
    }

    #[test]
    fn every_name_comes_back() {
        let names = ["a", "deep/er/b c", "new\nline", "back\\slash\r", " "];
        let sums: BTreeMap<PathBuf, Sha256Sum> =
            names.iter().map(|name| (name.into(), [7; 32])).collect();
        assert_eq!(parsed(&text(&sums)).unwrap(), sums);
    }

    #[test]
    fn other_ways_to_name_a_file_are_understood() {
        let hex = "0A".repeat(32);
        for line in [format!("{hex}  a\n"), format!("{hex} *./a")] {
            let expected = BTreeMap::from([(PathBuf::from("a"), [10; 32])]);
            assert_eq!(parsed(line.as_bytes()).unwrap(), expected);
        }
    }

    #[test]
    fn a_line_that_is_none_is_refused_by_number() {
        let hex = "00".repeat(32);
        for (text, says) in [
            (
                format!("{hex}  a\n{hex}  a"),
                "line 2: the file was named before",
            ),
            (format!("{hex}  ../a"), "line 1: the file is not in"),
            (format!("{hex}  /a"), "line 1: the file is not in"),
            (format!("{hex}  "), "line 1: the file is not in"),
            (hex.clone(), "line 1: expected"),
            (format!("{}  a", &hex[2..]), "line 1: expected"),
            (format!("\\{hex}  a\\x"), "line 1: expected"),
            ("\u{e9}".repeat(80), "line 1: expected"),
        ] {
            let message = parsed(text.as_bytes()).unwrap_err().to_string();
            assert!(message.contains(says), "{message}");
        }
    }
}
