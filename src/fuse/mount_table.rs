//! What is mounted where, as the kernel tells it.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};

use crate::error::{Error, Result};

/// The type of our mounts in the mount table; the kernel makes it of `fuse` and the subtype.
pub(super) const FILESYSTEM_TYPE: &str = "fuse.ckptfs";

/// One line of the mount table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MountEntry {
    pub(super) id: u64,
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
        let _parent = fields.next()?;
        let device = String::from_utf8(fields.next()?.to_vec()).ok()?;
        let _root = fields.next()?;
        let mountpoint = unescape(fields.next()?);
        fields.find(|field| *field == b"-")?;
        Some(MountEntry {
            id,
            device,
            mountpoint: mountpoint.into(),
            filesystem_type: unescape(fields.next()?),
            source: unescape(fields.next()?),
        })
    }

    pub(super) fn is_ours(&self) -> bool {
        self.filesystem_type == FILESYSTEM_TYPE
    }

    /// Whether the process that served this mount is gone.
    pub(super) fn is_dead(&self) -> bool {
        // The kernel may answer a stat from its cache, but asks the filesystem for its size.
        rustix::fs::statvfs(&self.mountpoint).err() == Some(rustix::io::Errno::NOTCONN)
    }
}

/// The whole mount table of this process.
pub(super) fn entries() -> Result<Vec<MountEntry>> {
    const TABLE: &str = "/proc/self/mountinfo";
    let table = fs::read(TABLE).map_err(|e| Error::io("read", TABLE, e))?;
    let lines = table.split(|&byte| byte == b'\n');
    Ok(lines.filter_map(MountEntry::parse).collect())
}

/// The mount whose root is at `path` (an absolute path without links), if there is one: where
/// several lie over each other, the one that can be reached. Asks nothing of the mounted
/// filesystem, so it works on a dead one too.
pub(super) fn at(path: &Path) -> Result<Option<MountEntry>> {
    let id = mount_id(path).map_err(|e| Error::io("find the mount", path, e))?;
    let at_path = |entry: &MountEntry| entry.id == id && entry.mountpoint == path;
    Ok(entries()?.into_iter().find(at_path))
}

/// The mount that `file` was opened in, if it is still mounted.
pub(super) fn of(file: &impl AsRawFd) -> Option<MountEntry> {
    let id = id_of(file).ok()?;
    entries().ok()?.into_iter().find(|entry| entry.id == id)
}

/// The mount that `path` leads into.
fn mount_id(path: &Path) -> io::Result<u64> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    id_of(&rustix::fs::open(path, flags, Mode::empty())?)
}

fn id_of(file: &impl AsRawFd) -> io::Result<u64> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))?;
    info.lines()
        .find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
        .ok_or_else(|| io::Error::other("/proc/self/fdinfo does not tell the mount"))
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

/// `mountpoint` as an absolute path without links. A dead mount there is no hindrance.
pub(super) fn resolve(mountpoint: &Path) -> Result<PathBuf> {
    let resolved = match mountpoint.canonicalize() {
        Err(e) if e.raw_os_error() == Some(libc::ENOTCONN) => {
            match (mountpoint.parent(), mountpoint.file_name()) {
                (Some(parent), Some(name)) if parent == Path::new("") => {
                    Path::new(".").canonicalize().map(|path| path.join(name))
                }
                (Some(parent), Some(name)) => parent.canonicalize().map(|path| path.join(name)),
                _ => Err(e),
            }
        }
        result => result,
    };
    resolved.map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Error::Request(format!(
            "{}: there is no such directory; make it first",
            mountpoint.display()
        )),
        _ => Error::io("find", mountpoint, e),
    })
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
                device: "0:52".to_owned(),
                mountpoint: "/mnt/my model".into(),
                filesystem_type: "fuse.ckptfs".into(),
                source: r"/a\b".into(),
            }
        );
        assert!(entry.is_ours());
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
