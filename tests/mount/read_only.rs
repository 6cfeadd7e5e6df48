//! Nothing can be changed through a mount.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Mode, OFlags, RenameFlags, Timestamps, XattrFlags,
};
use rustix::mount::MountFlags;

use crate::fixture::{Fixture, Kind, assert_same, read_tree};

type Change = (&'static str, fn(&Path) -> io::Result<()>);

/// Every kind of change to what is mounted on a directory.
const CHANGES: &[Change] = &[
    ("open for writing", |at| {
        File::options()
            .write(true)
            .open(at.join("README.md"))
            .map(drop)
    }),
    ("open for reading and writing", |at| {
        File::options()
            .read(true)
            .write(true)
            .open(at.join("README.md"))
            .map(drop)
    }),
    ("open for appending", |at| {
        File::options()
            .append(true)
            .open(at.join("README.md"))
            .map(drop)
    }),
    ("open for truncation", |at| {
        let mut options = File::options();
        options.write(true).truncate(true);
        options.open(at.join("README.md")).map(drop)
    }),
    ("open for reading and truncation", |at| {
        let flags = OFlags::RDONLY | OFlags::TRUNC;
        Ok(rustix::fs::open(at.join("README.md"), flags, Mode::empty()).map(drop)?)
    }),
    ("open for writing what may be created", |at| {
        let mut options = File::options();
        options.write(true).create(true);
        options.open(at.join("README.md")).map(drop)
    }),
    ("create below", |at| {
        File::create(at.join("tokenizer/new")).map(drop)
    }),
    ("create", |at| File::create_new(at.join("new")).map(drop)),
    ("mkdir", |at| fs::create_dir(at.join("new"))),
    ("mknod", |at| {
        let mode = Mode::from_raw_mode(0o600);
        Ok(rustix::fs::mknodat(
            CWD,
            at.join("new"),
            FileType::Fifo,
            mode,
            0,
        )?)
    }),
    ("symlink", |at| {
        std::os::unix::fs::symlink("README.md", at.join("new"))
    }),
    ("link", |at| {
        fs::hard_link(at.join("README.md"), at.join("new"))
    }),
    ("unlink", |at| fs::remove_file(at.join("README.md"))),
    ("rmdir", |at| fs::remove_dir(at.join("tokenizer"))),
    ("rename", |at| {
        fs::rename(at.join("README.md"), at.join("new"))
    }),
    ("rename over another", |at| {
        fs::rename(at.join("README.md"), at.join("empty.txt"))
    }),
    ("rename a directory", |at| {
        fs::rename(at.join("tokenizer"), at.join("new"))
    }),
    ("exchange", |at| {
        let (one, other) = (at.join("README.md"), at.join("empty.txt"));
        let flags = RenameFlags::EXCHANGE;
        Ok(rustix::fs::renameat_with(CWD, one, CWD, other, flags)?)
    }),
    ("ftruncate", |at| {
        let file = File::options().write(true).open(at.join("README.md"))?;
        file.set_len(0)
    }),
    ("truncate", |at| {
        let path = CString::new(at.join("README.md").as_os_str().as_bytes())?;
        // SAFETY: the path is a string that ends in NUL and outlives the call.
        match unsafe { libc::truncate(path.as_ptr(), 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }),
    ("fallocate", |at| {
        let file = File::options().write(true).open(at.join("README.md"))?;
        Ok(rustix::fs::fallocate(file, FallocateFlags::empty(), 0, 1)?)
    }),
    ("chmod", |at| {
        fs::set_permissions(at.join("README.md"), fs::Permissions::from_mode(0o777))
    }),
    ("fchmod", |at| {
        File::open(at.join("README.md"))?.set_permissions(fs::Permissions::from_mode(0o777))
    }),
    ("chmod of a directory", |at| {
        fs::set_permissions(at.join("tokenizer"), fs::Permissions::from_mode(0o777))
    }),
    ("fchown", |at| {
        std::os::unix::fs::fchown(File::open(at.join("README.md"))?, Some(1), Some(1))
    }),
    ("futimens", |at| {
        File::open(at.join("README.md"))?.set_modified(std::time::UNIX_EPOCH)
    }),
    ("chown", |at| {
        std::os::unix::fs::chown(at.join("README.md"), Some(1), Some(1))
    }),
    ("utimens", |at| {
        let zero = rustix::fs::Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let times = Timestamps {
            last_access: zero,
            last_modification: zero,
        };
        Ok(rustix::fs::utimensat(
            CWD,
            at.join("README.md"),
            &times,
            AtFlags::empty(),
        )?)
    }),
    ("setxattr", |at| {
        let path = at.join("README.md");
        Ok(rustix::fs::setxattr(
            path,
            "user.a",
            b"b",
            XattrFlags::empty(),
        )?)
    }),
    ("fsetxattr", |at| {
        let file = File::open(at.join("README.md"))?;
        let flags = XattrFlags::empty();
        Ok(rustix::fs::fsetxattr(file, "user.a", b"b", flags)?)
    }),
    ("fremovexattr", |at| {
        let file = File::open(at.join("README.md"))?;
        Ok(rustix::fs::fremovexattr(file, "user.a")?)
    }),
    ("mknod of a regular file", |at| {
        let mode = Mode::from_raw_mode(0o600);
        let path = at.join("new");
        Ok(rustix::fs::mknodat(
            CWD,
            path,
            FileType::RegularFile,
            mode,
            0,
        )?)
    }),
    ("removexattr", |at| {
        Ok(rustix::fs::removexattr(at.join("README.md"), "user.a")?)
    }),
];

fn assert_unchangeable(fixture: &Fixture) {
    for (name, change) in CHANGES {
        let error = change(&fixture.mountpoint).expect_err(name);
        assert_eq!(error.raw_os_error(), Some(libc::EROFS), "{name}: {error}");
    }
    assert_same(
        &read_tree(&fixture.mountpoint),
        &fixture.expected(Kind::PatchedFp8),
    );
}

#[test]
fn every_change_is_refused_with_erofs() {
    let fixture = Fixture::new();
    fixture.mount(Kind::PatchedFp8, &[]);
    assert_unchangeable(&fixture);
}

#[test]
fn every_change_is_refused_with_erofs_even_where_root_remounts_for_writing() {
    let fixture = Fixture::new();
    fixture.mount(Kind::PatchedFp8, &[]);
    // Now it is no longer the kernel that refuses.
    rustix::mount::mount_remount(&fixture.mountpoint, MountFlags::empty(), "").unwrap();
    let flags = rustix::fs::statvfs(&fixture.mountpoint).unwrap().f_flag;
    assert!(!flags.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    assert_unchangeable(&fixture);
}

#[test]
fn a_file_without_a_name_cannot_be_made() {
    let fixture = Fixture::new();
    fixture.mount(Kind::PatchedFp8, &[]);
    let flags = OFlags::TMPFILE | OFlags::WRONLY;
    let made = rustix::fs::open(&fixture.mountpoint, flags, Mode::RUSR);
    assert_eq!(made.unwrap_err(), rustix::io::Errno::ROFS);
}

#[test]
fn a_descriptor_for_reading_writes_nothing() {
    let fixture = Fixture::new();
    fixture.mount(Kind::PatchedFp8, &[]);
    let file = File::open(fixture.mountpoint.join("README.md")).unwrap();
    let write = file.write_at(b"?", 0).unwrap_err();
    assert_eq!(write.raw_os_error(), Some(libc::EBADF));
    let allocate = rustix::fs::fallocate(
        &file,
        FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
        0,
        1,
    );
    assert_eq!(allocate.unwrap_err(), rustix::io::Errno::BADF);
    assert_eq!(
        file.set_len(0).unwrap_err().raw_os_error(),
        Some(libc::EINVAL)
    );
}

#[test]
fn a_mapping_cannot_be_made_writable() {
    let fixture = Fixture::new();
    fixture.mount(Kind::PatchedFp8, &[]);
    let file = File::open(fixture.shard()).unwrap();
    // SAFETY: nothing writes to a view.
    let mapping = unsafe { memmap2::Mmap::map(&file) }.unwrap();
    // A private copy of the pages may change; the file does not.
    // SAFETY: as above.
    let mut private = unsafe { memmap2::MmapOptions::new().map_copy(&file) }.unwrap();
    private[0] ^= 0xFF;
    assert_ne!(private[0], mapping[0]);
    // SAFETY: as above.
    let shared = unsafe { memmap2::MmapMut::map_mut(&file) };
    assert_eq!(shared.unwrap_err().raw_os_error(), Some(libc::EACCES));
}
