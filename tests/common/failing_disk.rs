//! A filesystem on a real directory, of whose changes one can be made to fail.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, Session, TimeOrNow,
    WriteFlags,
};
use rustix::mount::UnmountFlags;

use crate::common::real_directory::{TTL, attributes, entries, kind, read};

/// A mounted directory.
pub(crate) struct FailingDisk {
    mountpoint: PathBuf,
    /// Changes until the one that fails; none fails once it is below 0.
    until_failure: Arc<AtomicI64>,
    _session: BackgroundSession,
}

impl FailingDisk {
    /// Shows the directory `real` at `mountpoint`.
    pub(crate) fn new(real: &Path, mountpoint: &Path) -> Self {
        let until_failure = Arc::new(AtomicI64::new(-1));
        let disk = Disk {
            paths: Mutex::new(HashMap::from([(INodeNo::ROOT, real.to_owned())])),
            until_failure: until_failure.clone(),
        };
        let session = Session::new(disk, mountpoint, &Config::default()).unwrap();
        FailingDisk {
            mountpoint: mountpoint.to_owned(),
            until_failure,
            _session: session.spawn().unwrap(),
        }
    }

    /// Has the change after the next `changes` fail with EIO, and no other.
    pub(crate) fn fail_after(&self, changes: i64) {
        self.until_failure.store(changes, Ordering::SeqCst);
    }

    /// Fails nothing any more; says whether something did fail.
    pub(crate) fn heal(&self) -> bool {
        self.until_failure.swap(-1, Ordering::SeqCst) < 0
    }
}

impl Drop for FailingDisk {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.mountpoint, UnmountFlags::DETACH).unwrap();
    }
}

struct Disk {
    /// Where each inode was last seen. Nothing is remembered by the kernel, so that every path is
    /// looked up anew from the root.
    paths: Mutex<HashMap<INodeNo, PathBuf>>,
    until_failure: Arc<AtomicI64>,
}

impl Disk {
    fn path(&self, inode: INodeNo) -> PathBuf {
        self.paths.lock().unwrap()[&inode].clone()
    }

    /// The attributes of `path`, which is remembered.
    fn entry(&self, path: PathBuf) -> io::Result<FileAttr> {
        let metadata = path.symlink_metadata()?;
        let root = self.paths.lock().unwrap()[&INodeNo::ROOT] == path;
        let inode = if root {
            INodeNo::ROOT
        } else {
            INodeNo(metadata.ino())
        };
        self.paths.lock().unwrap().insert(inode, path);
        Ok(attributes(inode, &metadata))
    }

    /// Makes a change, unless it is the one that fails.
    fn change<T>(&self, make: impl FnOnce() -> io::Result<T>) -> Result<T, Errno> {
        if self.until_failure.fetch_sub(1, Ordering::SeqCst) == 0 {
            return Err(Errno::EIO);
        }
        make().map_err(Errno::from)
    }
}

fn empty(result: Result<(), Errno>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

fn entry(result: Result<FileAttr, Errno>, reply: ReplyEntry) {
    match result {
        Ok(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Disk {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        entry(
            self.entry(self.path(parent).join(name))
                .map_err(Errno::from),
            reply,
        );
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.entry(self.path(inode)) {
            Ok(attributes) => reply.attr(&TTL, &attributes),
            Err(error) => reply.error(error.into()),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let path = self.path(inode);
        let result = self.change(|| {
            if let Some(mode) = mode {
                fs::set_permissions(&path, fs::Permissions::from_mode(mode & 0o7777))?;
            }
            if let Some(size) = size {
                OpenOptions::new().write(true).open(&path)?.set_len(size)?;
            }
            if let Some(TimeOrNow::SpecificTime(time)) = mtime {
                File::open(&path)?.set_modified(time)?;
            }
            self.entry(path)
        });
        match result {
            Ok(attributes) => reply.attr(&TTL, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let path = self.path(parent).join(name);
        let result = self.change(|| {
            fs::create_dir(&path)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode & 0o7777))?;
            self.entry(path)
        });
        entry(result, reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let path = self.path(parent).join(name);
        empty(self.change(|| fs::remove_file(path)), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let path = self.path(parent).join(name);
        empty(self.change(|| fs::remove_dir(path)), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let from = self.path(parent).join(name);
        let to = self.path(new_parent).join(new_name);
        let flags = rustix::fs::RenameFlags::from_bits_retain(flags.bits());
        let cwd = rustix::fs::CWD;
        let rename = || Ok(rustix::fs::renameat_with(cwd, &from, cwd, &to, flags)?);
        empty(self.change(rename), reply);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let path = self.path(parent).join(name);
        let created = self.change(|| {
            let mut options = OpenOptions::new();
            options.write(true).mode(mode & 0o7777);
            if flags & libc::O_EXCL != 0 {
                options.create_new(true)
            } else {
                options.create(true)
            };
            options.open(&path)?;
            self.entry(path)
        });
        let direct = FopenFlags::FOPEN_DIRECT_IO;
        match created {
            Ok(attributes) => {
                reply.created(&TTL, &attributes, Generation(0), FileHandle(0), direct)
            }
            Err(error) => reply.error(error),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        reply.data(&read(&self.path(inode), offset, size));
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let path = self.path(inode);
        let write = || {
            OpenOptions::new()
                .write(true)
                .open(path)?
                .write_all_at(data, offset)
        };
        match self.change(write) {
            Ok(()) => reply.written(data.len() as u32),
            Err(error) => reply.error(error),
        }
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        empty(self.change(|| Ok(())), reply);
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        empty(self.change(|| Ok(())), reply);
    }

    fn readdir(
        &self,
        _: &Request,
        directory: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        for (position, entry) in entries(&self.path(directory), offset) {
            let metadata = entry.metadata().unwrap();
            let inode = INodeNo(metadata.ino());
            if reply.add(inode, position, kind(&metadata), entry.file_name()) {
                break;
            }
        }
        reply.ok();
    }
}
