//! The entries of a zip archive, where they are in the file, without reading them.
//!
//! | part | what is taken from it |
//! |---|---|
//! | local header, bytes, perhaps a data descriptor; for each entry | where its bytes begin; lengths are held against the directory's |
//! | central directory | names, lengths, and where local headers are |
//! | zip64 end record and its locator, where numbers are too large for the last one | where the central directory is |
//! | end record, a comment | the same |
//!
//! Source: PKWARE's APPNOTE 6.3.10. Checksums are not compared, as no entry is read for its own sake.

use std::collections::HashMap;
use std::path::Path;

use crate::error::{Code, Error, Result};
use crate::memory;
use crate::shown::Show;
use crate::source::Blob;

/// What a local header begins with.
pub(in crate::format) const LOCAL_HEADER: &[u8] = b"PK\x03\x04";
const DIRECTORY_HEADER: &[u8] = b"PK\x01\x02";
const END: &[u8] = b"PK\x05\x06";
const END64: &[u8] = b"PK\x06\x06";
const LOCATOR64: &[u8] = b"PK\x06\x07";
const DESCRIPTOR: &[u8] = b"PK\x07\x08";

/// The largest central directory that is read.
const MAX_DIRECTORY_BYTES: u64 = 64 << 20;

const END_BYTES: u64 = 22;
const LOCATOR64_BYTES: u64 = 20;
const END64_BYTES: u64 = 56;
const DIRECTORY_HEADER_BYTES: usize = 46;
const LOCAL_HEADER_BYTES: u64 = 30;

/// The extra field that has numbers of more than 32 bits.
const ZIP64_FIELD: u16 = 1;

const ENCRYPTED: u16 = 1 << 0;
const HAS_DESCRIPTOR: u16 = 1 << 3;

/// The central directory of an archive.
pub(super) struct Archive<'a> {
    blob: &'a dyn Blob,
    entries: HashMap<Box<str>, Entry>,
    /// Where local headers begin, in order, and last where the central directory does.
    starts: Vec<u64>,
}

/// What the central directory says of an entry.
#[derive(Debug, Clone, Copy)]
struct Entry {
    flags: u16,
    method: u16,
    compressed: u64,
    len: u64,
    header: u64,
}

/// Where the bytes of an entry are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stored {
    pub offset: u64,
    pub len: u64,
}

impl<'a> Archive<'a> {
    /// Reads the central directory of `blob`.
    ///
    /// # Errors
    /// If it is damaged or ambiguous.
    pub(super) fn open(blob: &'a dyn Blob) -> Result<Self> {
        let path = blob.location();
        let Directory { start, len, count } = Directory::find(blob)?;
        if len > MAX_DIRECTORY_BYTES {
            let problem = format!(
                "its zip directory has {len} bytes; at most {MAX_DIRECTORY_BYTES} are read"
            );
            return Err(Error::of_file(Code::OverLimit, path, problem));
        }
        let mut bytes = memory::zeros(len)?;
        blob.read_at(&mut bytes, start)?;
        let mut rest = Fields(&bytes);
        let mut entries = HashMap::new();
        let mut starts = Vec::new();
        while !rest.0.is_empty() {
            let parsed = entry(&mut rest);
            let (name, entry) =
                parsed.ok_or_else(|| damaged(path, "its zip directory is not valid"))?;
            starts.push(entry.header);
            if let Some(name) = name
                && let Some(_) = entries.insert(name.clone(), entry)
            {
                return Err(damaged(path, &format!("it has two entries {name}")));
            }
        }
        if starts.len() as u64 != count {
            let problem = format!(
                "its zip directory should have {count} entries, and has {}",
                starts.len()
            );
            return Err(damaged(path, &problem));
        }
        starts.sort_unstable();
        starts.push(start);
        Ok(Archive {
            blob,
            entries,
            starts,
        })
    }

    /// The names of the entries, in no particular order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(|name| &**name)
    }

    /// Whether there is an entry `name`.
    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Where the bytes of the entry `name` are, if there is one.
    ///
    /// # Errors
    /// If it is compressed or encrypted, reaches into another, or its own header says otherwise.
    pub(super) fn entry(&self, name: &str) -> Result<Option<Stored>> {
        let Some(entry) = self.entries.get(name) else {
            return Ok(None);
        };
        let refuse = |problem: &str| {
            Err(damaged(
                self.blob.location(),
                &format!("entry {name}: {problem}"),
            ))
        };
        if entry.flags & ENCRYPTED != 0 {
            return Err(self.unsupported(name, "it is encrypted"));
        }
        if entry.method != 0 {
            let advice = "it is compressed, and tensors are read where they are; write the archive again without compression, or load it with torch and save it again";
            return Err(self.unsupported(name, advice));
        }
        if entry.compressed != entry.len {
            return refuse("it is stored as it is, yet its two lengths are different");
        }
        // The next header, or the central directory: what is between two entries is of the first.
        let next = self.starts.partition_point(|&start| start <= entry.header);
        let is_alone = next > 0 && (next < 2 || self.starts[next - 2] != entry.header);
        let (Some(&end), true) = (self.starts.get(next), is_alone) else {
            return refuse("it begins where another does, or in the zip directory");
        };
        if end - entry.header < LOCAL_HEADER_BYTES {
            return refuse("it reaches into what comes after it");
        }
        let mut header = [0; LOCAL_HEADER_BYTES as usize];
        self.blob.read_at(&mut header, entry.header)?;
        let Some(local) = Local::parse(&header) else {
            return refuse("its header is not where the zip directory says");
        };
        let names_and_fields = local.name + local.extra;
        let offset = entry.header + LOCAL_HEADER_BYTES + names_and_fields;
        if offset > end || end - offset < entry.len {
            return refuse("it reaches into what comes after it");
        }
        let mut rest = memory::zeros(names_and_fields)?;
        self.blob
            .read_at(&mut rest, entry.header + LOCAL_HEADER_BYTES)?;
        let (own_name, extra) = rest.split_at(local.name as usize);
        if own_name != name.as_bytes() {
            return refuse("its header has another name");
        }
        let lengths = local.lengths(extra);
        let follows = entry.flags & HAS_DESCRIPTOR != 0;
        if local.method != 0 || (local.flags ^ entry.flags) & (ENCRYPTED | HAS_DESCRIPTOR) != 0 {
            return refuse("its header says otherwise than the zip directory how it is stored");
        }
        let is_alike = |lengths: [u64; 2]| lengths == [entry.len; 2];
        if !(lengths.is_some_and(is_alike) || follows && lengths == Some([0; 2])) {
            return refuse("its header says otherwise than the zip directory how long it is");
        }
        if follows && !self.descriptor_agrees(offset + entry.len, end, entry.len)? {
            return refuse("what follows it says otherwise than the zip directory how long it is");
        }
        Ok(Some(Stored {
            offset,
            len: entry.len,
        }))
    }

    /// Whether the data descriptor at `start`, before `end`, gives an entry's length as `len`: of 4 or 8 bytes, with
    /// or without a signature before it.
    fn descriptor_agrees(&self, start: u64, end: u64, len: u64) -> Result<bool> {
        let mut bytes = [0; 24];
        let room = (end - start).min(bytes.len() as u64) as usize;
        self.blob.read_at(&mut bytes[..room], start)?;
        let bytes = &bytes[..room];
        let agrees = |fields: &[u8]| {
            let long = [len.to_le_bytes(), len.to_le_bytes()].concat();
            let short = [(len as u32).to_le_bytes(), (len as u32).to_le_bytes()].concat();
            // After the checksum.
            let lengths = fields.get(4..).unwrap_or_default();
            lengths.starts_with(&long) || len <= u32::MAX.into() && lengths.starts_with(&short)
        };
        Ok(bytes.strip_prefix(DESCRIPTOR).is_some_and(agrees) || agrees(bytes))
    }

    fn unsupported(&self, name: &str, problem: &str) -> Error {
        let problem = format!("entry {}: {problem}", name.shown());
        Error::of_file(Code::UnsupportedTorch, self.blob.location(), problem)
    }
}

/// Where a central directory is.
struct Directory {
    start: u64,
    len: u64,
    count: u64,
}

impl Directory {
    fn find(blob: &dyn Blob) -> Result<Self> {
        let path = blob.location();
        let (at, end) = end_record(blob)?;
        let mut fields = Fields(&end[END.len()..]);
        let numbers = (|| {
            let (disk, start_disk) = (fields.u16()?, fields.u16()?);
            let (here, count) = (fields.u16()?, fields.u16()?);
            let (len, start) = (fields.u32()?, fields.u32()?);
            Some((disk, start_disk, here, count, len, start))
        })();
        let (disk, start_disk, here, count, len, start) =
            numbers.expect("the record was read whole");
        let mut directory = Directory {
            start: start.into(),
            len: len.into(),
            count: count.into(),
        };
        let mut is_in_parts = (disk, start_disk) != (0, 0) || here != count;
        let mut follows = at;
        if let Some(larger) = Self::find64(blob, at)? {
            // Where there are both, the small numbers are those of the large record, or say to look there.
            let is_small = |small: u64, limit: u64, large: u64| small == limit || small == large;
            let agrees = is_small(directory.start, u32::MAX.into(), larger.directory.start)
                && is_small(directory.len, u32::MAX.into(), larger.directory.len)
                && is_small(directory.count, u16::MAX.into(), larger.directory.count);
            if !agrees {
                return Err(damaged(
                    path,
                    "its two zip end records contradict each other",
                ));
            }
            is_in_parts = larger.is_in_parts;
            directory = larger.directory;
            follows = larger.at;
        }
        if is_in_parts {
            return Err(damaged(
                path,
                "it is one part of a zip archive in several files",
            ));
        }
        if directory.start.checked_add(directory.len) != Some(follows) {
            let problem =
                "its zip directory does not reach to the end record: bytes were added or lost";
            return Err(damaged(path, problem).with_hint("is the download complete?"));
        }
        Ok(directory)
    }

    /// What the zip64 end record before the end record `at` says, if there is one.
    fn find64(blob: &dyn Blob, at: u64) -> Result<Option<Directory64>> {
        let Some(locator_at) = at.checked_sub(LOCATOR64_BYTES) else {
            return Ok(None);
        };
        let mut locator = [0; LOCATOR64_BYTES as usize];
        blob.read_at(&mut locator, locator_at)?;
        let Some(locator) = locator.strip_prefix(LOCATOR64) else {
            return Ok(None);
        };
        let refuse = || damaged(blob.location(), "its zip64 end record is not valid");
        let mut fields = Fields(locator);
        let (disk, record_at, disks) = (fields.u32(), fields.u64(), fields.u32());
        let record_at = record_at.ok_or_else(refuse)?;
        // Without the extensible data that nobody writes.
        if record_at.checked_add(END64_BYTES) != Some(locator_at) {
            return Err(refuse());
        }
        let mut record = [0; END64_BYTES as usize];
        blob.read_at(&mut record, record_at)?;
        let mut fields = Fields(record.strip_prefix(END64).ok_or_else(refuse)?);
        let parsed = (|| {
            let _length = fields.u64()?;
            let _versions = fields.u32()?;
            let (this, first) = (fields.u32()?, fields.u32()?);
            let (here, count) = (fields.u64()?, fields.u64()?);
            let (len, start) = (fields.u64()?, fields.u64()?);
            let directory = Directory { start, len, count };
            let is_in_parts = (this, first) != (0, 0)
                || here != count
                || disk != Some(0)
                || disks.is_none_or(|disks| disks > 1);
            Some((directory, is_in_parts))
        })();
        let (directory, is_in_parts) = parsed.ok_or_else(refuse)?;
        Ok(Some(Directory64 {
            directory,
            is_in_parts,
            at: record_at,
        }))
    }
}

/// What a zip64 end record says, and where it is.
struct Directory64 {
    directory: Directory,
    is_in_parts: bool,
    at: u64,
}

/// The end record: the last one whose comment ends with the file.
fn end_record(blob: &dyn Blob) -> Result<(u64, [u8; END_BYTES as usize])> {
    let len = blob.len();
    // Normally there is no comment.
    if let Some(at) = len.checked_sub(END_BYTES) {
        let mut record = [0; END_BYTES as usize];
        blob.read_at(&mut record, at)?;
        if record.starts_with(END) && record.ends_with(&[0, 0]) {
            return Ok((at, record));
        }
    }
    let mut tail = memory::zeros(len.min(END_BYTES + u64::from(u16::MAX)))?;
    let start = len - tail.len() as u64;
    blob.read_at(&mut tail, start)?;
    let mut places = (0..tail.len()).rev();
    let found = places.find_map(|at| {
        let record = tail[at..].first_chunk::<{ END_BYTES as usize }>()?;
        let comment = u16::from_le_bytes([record[20], record[21]]);
        let reaches_end = at + END_BYTES as usize + usize::from(comment) == tail.len();
        (record.starts_with(END) && reaches_end).then_some((start + at as u64, *record))
    });
    found.ok_or_else(|| {
        let problem = "it is a zip archive without an end record";
        let error = Error::of_file(Code::Truncated, blob.location(), problem);
        error.with_hint("is the download complete?")
    })
}

/// The next entry of a central directory; without a name if that is not UTF-8, as no name of torch.
fn entry(rest: &mut Fields) -> Option<(Option<Box<str>>, Entry)> {
    let mut fields = Fields(rest.take(DIRECTORY_HEADER_BYTES)?);
    if fields.take(4)? != DIRECTORY_HEADER {
        return None;
    }
    let _versions = fields.u32()?;
    let (flags, method) = (fields.u16()?, fields.u16()?);
    let (_time, _checksum) = (fields.u32()?, fields.u32()?);
    let (compressed, len) = (fields.u32()?, fields.u32()?);
    let [name, extra, comment] = [fields.u16()?, fields.u16()?, fields.u16()?].map(usize::from);
    let disk = fields.u16()?;
    let _attributes = (fields.u16()?, fields.u32()?);
    let header = fields.u32()?;
    let name = std::str::from_utf8(rest.take(name)?).ok();
    let numbers = zip64([len, compressed, header], rest.take(extra)?)?;
    rest.take(comment)?;
    let [len, compressed, header] = numbers;
    let entry = Entry {
        flags,
        method,
        compressed,
        len,
        header,
    };
    (disk == 0 || disk == u16::MAX).then_some((name.map(Box::from), entry))
}

/// `numbers`, in the order of the zip64 field in `extra`, which has those that are too large for 32 bits.
fn zip64<const N: usize>(numbers: [u32; N], extra: &[u8]) -> Option<[u64; N]> {
    let mut large = Fields(field(ZIP64_FIELD, extra)?.unwrap_or_default());
    let mut all = [0; N];
    for (number, small) in all.iter_mut().zip(numbers) {
        *number = match small {
            u32::MAX => large.u64()?,
            small => small.into(),
        };
    }
    Some(all)
}

/// The content of the extra field `wanted`, if there is one; `None` if `extra` is not valid.
fn field(wanted: u16, extra: &[u8]) -> Option<Option<&[u8]>> {
    let mut rest = Fields(extra);
    let mut found = None;
    while !rest.0.is_empty() {
        let id = rest.u16()?;
        let len = rest.u16()?;
        let content = rest.take(len.into())?;
        if id == wanted && found.replace(content).is_some() {
            return None;
        }
    }
    Some(found)
}

/// What a local header says.
struct Local {
    flags: u16,
    method: u16,
    compressed: u32,
    len: u32,
    /// Bytes of the name and of the extra fields, which follow.
    name: u64,
    extra: u64,
}

impl Local {
    fn parse(header: &[u8]) -> Option<Self> {
        let mut fields = Fields(header.strip_prefix(LOCAL_HEADER)?);
        let _version = fields.u16()?;
        let (flags, method) = (fields.u16()?, fields.u16()?);
        let (_time, _checksum) = (fields.u32()?, fields.u32()?);
        Some(Local {
            flags,
            method,
            compressed: fields.u32()?,
            len: fields.u32()?,
            name: fields.u16()?.into(),
            extra: fields.u16()?.into(),
        })
    }

    /// Both lengths, if `extra` is valid.
    fn lengths(&self, extra: &[u8]) -> Option<[u64; 2]> {
        zip64([self.len, self.compressed], extra)
    }
}

/// Little-endian numbers, one after the other.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }
}

fn damaged(path: &Path, problem: &str) -> Error {
    Error::of_file(
        Code::BadTorchFile,
        path,
        format!("the zip archive is damaged: {}", problem.shown()),
    )
}
