//! The least that a FUSE filesystem can do: files of the names and lengths of a directory's, which
//! begin as those do, and every further read of which is answered at once from one buffer. Nothing is
//! read and nothing computed, so what is slow about it is the kernel's part. A peer in `scripts/bench`.
//!
//!     fuse_floor DIRECTORY MOUNTPOINT [direct-io]

use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::{Duration, SystemTime};

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData,
    ReplyDirectory, ReplyEntry, ReplyOpen, Request,
};

/// As long as the bench runs.
const TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// More than a request asks for.
const MOST: usize = 4 << 20;

/// How much of a file is as it is: headers, for those who look at tensors.
const HEAD: usize = 1 << 20;

const PAGE: usize = 4096;

/// What is not as it is in the files.
const FILLER: u8 = 1;

struct Floor {
    files: Vec<FloorFile>,
    directory: FileAttr,
    buffer: Vec<u8>,
    direct_io: bool,
}

struct FloorFile {
    name: OsString,
    attributes: FileAttr,
    /// Its first bytes and as many others as a request that begins among them may want.
    head: Vec<u8>,
}

impl Floor {
    fn file(&self, inode: INodeNo) -> &FloorFile {
        &self.files[inode.0 as usize - 2]
    }
}

fn attributes(inode: usize, kind: FileType, of: &Metadata) -> FileAttr {
    FileAttr {
        ino: INodeNo(inode as u64),
        size: of.len(),
        blocks: of.blocks(),
        atime: SystemTime::UNIX_EPOCH,
        mtime: SystemTime::UNIX_EPOCH,
        ctime: SystemTime::UNIX_EPOCH,
        crtime: SystemTime::UNIX_EPOCH,
        kind,
        perm: 0o555,
        nlink: 1,
        uid: of.uid(),
        gid: of.gid(),
        rdev: 0,
        blksize: PAGE as u32,
        flags: 0,
    }
}

impl Filesystem for Floor {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let refused = |what| io::Error::other(format!("the kernel lacks {what:?}"));
        let mut wanted = InitFlags::FUSE_ASYNC_DIO;
        if self.direct_io {
            wanted |= InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP;
        }
        config.add_capabilities(wanted).map_err(refused)?;
        let _ = config.set_max_background(64);
        Ok(())
    }

    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.files.iter().find(|file| file.name == name) {
            Some(file) => reply.entry(&TTL, &file.attributes, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let attributes = match inode {
            INodeNo::ROOT => &self.directory,
            _ => &self.file(inode).attributes,
        };
        reply.attr(&TTL, attributes);
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let mut flags = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH;
        flags.set(FopenFlags::FOPEN_DIRECT_IO, self.direct_io);
        reply.opened(FileHandle(0), flags);
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
        let file = self.file(inode);
        let left = file.attributes.size.saturating_sub(offset);
        let bytes = if offset < HEAD as u64 {
            &file.head[offset as usize..]
        } else {
            &self.buffer[self.buffer.as_ptr().addr().wrapping_neg() % PAGE..]
        };
        reply.data(&bytes[..left.min(size.into()) as usize]);
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        for (position, file) in (1..).zip(&self.files).skip(offset as usize) {
            let FileAttr { ino, kind, .. } = file.attributes;
            if reply.add(ino, position, kind, &file.name) {
                break;
            }
        }
        reply.ok();
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let (source, mountpoint, direct_io) = match &arguments[..] {
        [source, mountpoint] => (source, mountpoint, false),
        [source, mountpoint, how] if how == "direct-io" => (source, mountpoint, true),
        _ => return Err("usage: fuse_floor DIRECTORY MOUNTPOINT [direct-io]".into()),
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(source)? {
        let entry = entry?;
        let of = entry.metadata()?;
        if of.is_file() {
            let mut head = Vec::with_capacity(HEAD + MOST);
            File::open(entry.path())?
                .take(HEAD as u64)
                .read_to_end(&mut head)?;
            head.resize(HEAD + MOST, FILLER);
            files.push(FloorFile {
                name: entry.file_name(),
                attributes: attributes(files.len() + 2, FileType::RegularFile, &of),
                head,
            });
        }
    }
    let floor = Floor {
        files,
        directory: attributes(1, FileType::Directory, &fs::metadata(source)?),
        buffer: vec![FILLER; MOST + PAGE],
        direct_io,
    };
    let mut config = Config::default();
    config.mount_options = vec![MountOption::RO, MountOption::FSName("fuse-floor".into())];
    config.n_threads = Some(thread::available_parallelism()?.get().max(2));
    config.clone_fd = true;
    Ok(fuser::mount(floor, mountpoint, &config)?)
}
