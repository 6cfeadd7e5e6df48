//! What is mounted where, as the kernel tells it.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags};

use crate::error::{Code, Error, Result};
use crate::source::with_room;

/// The type of our mounts in the mount table; the kernel makes it of `fuse` and the subtype.
pub(super) const FILESYSTEM_TYPE: &str = "fuse.ckptfs";

/// One line of the mount table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MountEntry {
    pub(super) id: u64,
    /// The mount that this one is in.
    pub(super) parent: u64,
    /// Major and minor number; with them the kernel names the mounted filesystem elsewhere.
    pub(super) device: String,
    pub(super) mountpoint: PathBuf,
    pub(super) filesystem_type: OsString,
    pub(super) source: OsString,
}

impl MountEntry {
    /// Reads a line of `/proc/self/mountinfo`, described in proc_pid_mountinfo(5).
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|&byte| byte == b' ');
        let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        let parent = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        let device = String::from_utf8(fields.next()?.to_vec()).ok()?;
        let _root = fields.next()?;
        let mountpoint = unescape(fields.next()?);
        fields.find(|field| *field == b"-")?;
        Some(MountEntry {
            id,
            parent,
            device,
            mountpoint: mountpoint.into(),
            filesystem_type: unescape(fields.next()?),
            source: unescape(fields.next()?),
        })
    }

    pub(super) fn is_ours(&self) -> bool {
        self.filesystem_type == FILESYSTEM_TYPE
    }
}

/// The whole mount table of this process.
pub(super) fn entries() -> Result<Vec<MountEntry>> {
    const TABLE: &str = "/proc/self/mountinfo";
    let table = with_room(|| fs::read(TABLE)).map_err(|e| Error::io("read", TABLE, e))?;
    let lines = table.split(|&byte| byte == b'\n');
    Ok(lines.filter_map(MountEntry::parse).collect())
}

/// The error that there is no mount at `path`.
pub(super) fn nothing_mounted(path: &Path) -> Error {
    Error::of_file(Code::NotMounted, path, "nothing is mounted there")
}

/// The mount whose root is at `path` (an absolute path without links), if there is one: where
/// several lie over each other, the one that can be reached. Asks nothing of any filesystem, so it
/// works where one is dead or does not answer.
pub(super) fn at(path: &Path) -> Result<Option<MountEntry>> {
    let entries = entries()?;
    let found = leading_into(&entries, path).filter(|entry| entry.mountpoint == path);
    Ok(found.cloned())
}

/// The mount that `file` was opened in, if it is still mounted.
pub(super) fn entry_of_file(file: &impl AsRawFd) -> Option<MountEntry> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).ok()?;
    let id: u64 = info
        .lines()
        .find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())?;
    entries().ok()?.into_iter().find(|entry| entry.id == id)
}

/// The mount of `entries` that `path` (absolute, without links) leads into. `None` if none of them
/// is at the top, as in a changed root directory.
pub(super) fn leading_into<'a>(entries: &'a [MountEntry], path: &Path) -> Option<&'a MountEntry> {
    let is_known = |id| entries.iter().any(|entry| entry.id == id);
    let is_on = |entry: &MountEntry, lower: Option<&MountEntry>| match lower {
        Some(lower) => entry.parent == lower.id && entry.id != lower.id,
        None => entry.parent == entry.id || !is_known(entry.parent),
    };
    let prefixes: Vec<&Path> = path.ancestors().collect();
    let mut current = None;
    for prefix in prefixes.into_iter().rev() {
        // The last of them, as that is the one that hides others.
        while let Some(upper) = entries
            .iter()
            .rfind(|entry| entry.mountpoint == prefix && is_on(entry, current))
        {
            current = Some(upper);
        }
    }
    current
}

/// A number of the mount that `path` leads into which no later mount gets again, unlike its id and
/// device. `None` before Linux 6.8.
pub(super) fn unique_id(path: &Path) -> Option<u64> {
    /// `STATX_MNT_ID_UNIQUE` of linux/stat.h.
    const UNIQUE_ID: StatxFlags = StatxFlags::from_bits_retain(0x4000);
    // Not synchronized: this must not wait for a filesystem that does not answer.
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC;
    let status = rustix::fs::statx(CWD, path, flags, UNIQUE_ID).ok()?;
    let known = status.stx_mask & UNIQUE_ID.bits() != 0;
    known.then_some(status.stx_mnt_id)
}

/// Undoes the escapes of the mount table: `\040` is a space.
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = tail.get(..3).and_then(|digits| {
            let digits = OsStr::from_bytes(digits).to_str()?;
            u8::from_str_radix(digits, 8).ok()
        });
        match (byte, octal) {
            (b'\\', Some(value)) => {
                bytes.push(value);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_mount_table_is_read_with_its_escapes_undone() {
        let line = br"97 61 0:52 / /mnt/my\040model ro,noatime shared:3 master:1 - fuse.ckptfs /a\134b ro,user_id=0";
        let entry = MountEntry::parse(line).unwrap();
        assert_eq!(
            entry,
            MountEntry {
                id: 97,
                parent: 61,
                device: "0:52".to_owned(),
                mountpoint: "/mnt/my model".into(),
                filesystem_type: "fuse.ckptfs".into(),
                source: r"/a\b".into(),
            }
        );
        assert!(entry.is_ours());
    }

    #[test]
    fn a_path_leads_into_the_mount_that_hides_others() {
        let entry = |id, parent, mountpoint: &str| MountEntry {
            id,
            parent,
            device: String::new(),
            mountpoint: mountpoint.into(),
            filesystem_type: OsString::new(),
            source: OsString::new(),
        };
        let mut entries = vec![
            entry(20, 1, "/"),
            entry(21, 20, "/a"),
            entry(22, 21, "/a/b"),
            entry(23, 22, "/a/b"),
            entry(24, 20, "/c/d"),
        ];
        let leads_into = |entries: &[MountEntry], path: &str| {
            leading_into(entries, Path::new(path)).map(|entry| entry.id)
        };
        for (path, id) in [
            ("/", 20),
            ("/x", 20),
            ("/a", 21),
            ("/a/bc", 21),
            ("/a/b", 23),
            ("/a/b/c", 23),
            ("/c", 20),
            ("/c/d/e", 24),
        ] {
            assert_eq!(leads_into(&entries, path), Some(id), "{path}");
        }
        // Mounted over `/a` later: what is in it cannot be reached any more.
        entries.push(entry(25, 21, "/a"));
        assert_eq!(leads_into(&entries, "/a/b/c"), Some(25));
        // In a changed root directory, the top is no mount.
        assert_eq!(leads_into(&entries[1..2], "/a/x"), Some(21));
        assert_eq!(leads_into(&entries[1..2], "/x"), None);
    }

    #[test]
    fn only_the_root_of_a_mount_is_a_mountpoint() {
        assert_eq!(
            at(Path::new("/")).unwrap().unwrap().mountpoint,
            Path::new("/")
        );
        assert_eq!(at(Path::new("/proc/self")).unwrap(), None);
    }
}
