//! A filesystem that passes a directory through and fails, or does something else, where a test
//! wants it to.

use std::ffi::OsStr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEntry, ReplyOpen,
    Request, Session,
};
use rustix::mount::UnmountFlags;

use crate::common::real_directory::{self, TTL, entries, kind};

/// Called with the number of the process or thread that reads, the path of the file behind, and
/// the range; false fails the read with EIO.
type OnRead = Box<dyn FnMut(u32, &Path, Range<u64>) -> bool + Send>;

/// A directory passed through. Nothing of its files is cached by the kernel.
pub(crate) struct FaultyDirectory {
    mountpoint: PathBuf,
    on_read: Arc<Mutex<OnRead>>,
    _session: BackgroundSession,
}

impl FaultyDirectory {
    /// Moves `directory` to `real`, and shows it at its old place.
    pub(crate) fn in_place_of(directory: &Path, real: &Path) -> Self {
        std::fs::rename(directory, real).unwrap();
        std::fs::create_dir(directory).unwrap();
        let on_read: Arc<Mutex<OnRead>> = Arc::new(Mutex::new(Box::new(|_, _, _| true)));
        let filesystem = PassThrough {
            paths: Mutex::new(vec![real.to_owned()]),
            on_read: on_read.clone(),
        };
        let session = Session::new(filesystem, directory, &Config::default()).unwrap();
        FaultyDirectory {
            mountpoint: directory.to_owned(),
            on_read,
            _session: session.spawn().unwrap(),
        }
    }

    /// Has `action` decide about every read from now on.
    pub(crate) fn on_read(
        &self,
        action: impl FnMut(u32, &Path, Range<u64>) -> bool + Send + 'static,
    ) {
        *self.on_read.lock().unwrap() = Box::new(action);
    }

    /// Fails all reads of files called `name` that touch `bad`, and no others.
    pub(crate) fn fail(&self, name: &str, bad: Range<u64>) {
        let name = name.to_owned();
        self.on_read(move |_, path, range| {
            !path.ends_with(&name) || range.end <= bad.start || bad.end <= range.start
        });
    }

    /// Fails nothing any more.
    pub(crate) fn heal(&self) {
        self.on_read(|_, _, _| true);
    }
}

impl Drop for FaultyDirectory {
    fn drop(&mut self) {
        // Whoever still has something open must not be able to keep it.
        rustix::mount::unmount(&self.mountpoint, UnmountFlags::DETACH).unwrap();
    }
}

struct PassThrough {
    /// What each inode stands for, in the order in which they were looked up.
    paths: Mutex<Vec<PathBuf>>,
    on_read: Arc<Mutex<OnRead>>,
}

impl PassThrough {
    fn path(&self, inode: INodeNo) -> PathBuf {
        self.paths.lock().unwrap()[inode.0 as usize - 1].clone()
    }

    fn inode(&self, path: PathBuf) -> INodeNo {
        let mut paths = self.paths.lock().unwrap();
        let known = paths.iter().position(|known| *known == path);
        let position = known.unwrap_or_else(|| {
            paths.push(path);
            paths.len() - 1
        });
        INodeNo(position as u64 + 1)
    }

    fn attributes(&self, inode: INodeNo) -> std::io::Result<FileAttr> {
        let metadata = self.path(inode).metadata()?;
        Ok(real_directory::attributes(inode, &metadata))
    }
}

impl Filesystem for PassThrough {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let inode = self.inode(self.path(parent).join(name));
        match self.attributes(inode) {
            Ok(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
            Err(error) => reply.error(error.into()),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(inode) {
            Ok(attributes) => reply.attr(&TTL, &attributes),
            Err(error) => reply.error(error.into()),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        request: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let path = self.path(inode);
        let range = offset..offset + u64::from(size);
        if !(self.on_read.lock().unwrap())(request.pid(), &path, range) {
            return reply.error(Errno::EIO);
        }
        reply.data(&real_directory::read(&path, offset, size));
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
            let kind = kind(&entry.metadata().unwrap());
            let inode = self.inode(entry.path());
            if reply.add(inode, position, kind, entry.file_name()) {
                break;
            }
        }
        reply.ok();
    }
}
