//! The kernel's requests, as fuser brings them, put to the server of a view. Nothing is decided here.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::SystemTime;

use fuser::{
    AccessFlags, BackingId, BsdFileFlags, CopyFileRangeFlags, Errno, FileAttr, FileHandle,
    FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, IoctlFlags, KernelConfig,
    LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek,
    ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use parking_lot::Mutex;
use rustix::fs::{Access, OFlags};

use crate::fuse::server::{
    Capability, Found, Handle, Kernel, Kind, Named, Opened, Server, Stat, TTL, Xattr,
};
use crate::fuse::waiting::Waiting;

/// Requests that the kernel keeps in flight for readahead.
const MAX_BACKGROUND: u16 = 64;

/// The unit in which the size of the filesystem is told, and preferred for I/O.
const BLOCK: u32 = 4096;

/// The unit of `st_blocks`.
const SECTOR: u64 = 512;

/// Inodes never come to stand for another entry.
const GENERATION: Generation = Generation(0);

/// The attributes of no entry: inode 0 says that there is none of the name, and lets the kernel
/// remember that. It does not look at the rest.
const NO_ENTRY: FileAttr = FileAttr {
    ino: INodeNo(0),
    size: 0,
    blocks: 0,
    atime: SystemTime::UNIX_EPOCH,
    mtime: SystemTime::UNIX_EPOCH,
    ctime: SystemTime::UNIX_EPOCH,
    crtime: SystemTime::UNIX_EPOCH,
    kind: FileType::RegularFile,
    perm: 0,
    nlink: 0,
    uid: 0,
    gid: 0,
    rdev: 0,
    blksize: 0,
    flags: 0,
};

/// A view as the kernel sees it.
pub(super) struct ViewFs(pub(super) Arc<Server<BackingId>>, pub(super) Waiting);

fn attributes(stat: &Stat) -> FileAttr {
    FileAttr {
        ino: INodeNo(stat.inode),
        size: stat.size,
        blocks: stat.size.div_ceil(SECTOR),
        atime: stat.time,
        mtime: stat.time,
        ctime: stat.time,
        crtime: stat.time,
        kind: file_type(stat.kind),
        perm: stat.mode,
        nlink: stat.links,
        uid: stat.uid,
        gid: stat.gid,
        rdev: 0,
        blksize: BLOCK,
        flags: 0,
    }
}

fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
    }
}

fn errno(errno: rustix::io::Errno) -> Errno {
    Errno::from_i32(errno.raw_os_error())
}

fn open_flags(flags: OpenFlags) -> OFlags {
    OFlags::from_bits_retain(flags.0.cast_unsigned())
}

impl Kernel for KernelConfig {
    fn offers(&self, capability: Capability) -> bool {
        self.capabilities().contains(init_flag(capability))
    }

    fn enable(&mut self, capability: Capability) -> bool {
        self.add_capabilities(init_flag(capability)).is_ok()
    }

    fn set_stack_depth(&mut self, depth: u32) -> bool {
        self.set_max_stack_depth(depth).is_ok()
    }
}

fn init_flag(capability: Capability) -> InitFlags {
    match capability {
        Capability::DirectMappings => InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
        Capability::Passthrough => InitFlags::FUSE_PASSTHROUGH,
        Capability::SilentOpen => InitFlags::FUSE_NO_OPEN_SUPPORT,
        Capability::SilentOpendir => InitFlags::FUSE_NO_OPENDIR_SUPPORT,
    }
}

/// Opens a file for `thread`.
fn open(
    server: &Server<BackingId>,
    thread: u32,
    inode: INodeNo,
    flags: OpenFlags,
    reply: ReplyOpen,
) {
    let register = |source: &std::fs::File| reply.open_backing(source);
    let opened = match server.open(inode.0, open_flags(flags), register) {
        Ok(opened) => opened,
        Err(e) => return reply.error(errno(e)),
    };
    let handle = FileHandle(opened.handle().by(server.process_of(thread)).0);
    let keep = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH;
    match opened {
        // No KEEP_CACHE, which the kernel refuses here: it keeps no pages of ours.
        Opened::Passthrough(backing) => {
            reply.opened_passthrough(handle, FopenFlags::FOPEN_NOFLUSH, &backing)
        }
        Opened::Direct { forced: true } => reply.opened(handle, keep | FopenFlags::FOPEN_DIRECT_IO),
        Opened::Direct { forced: false } | Opened::Cached => reply.opened(handle, keep),
        Opened::Own => reply.opened(handle, FopenFlags::FOPEN_NOFLUSH),
    }
}

/// Reads `size` bytes from `offset`.
fn read(
    server: &Server<BackingId>,
    inode: u64,
    handle: Handle,
    (offset, size): (u64, u32),
    flags: OFlags,
    reply: ReplyData,
) {
    let mut reply = Some(reply);
    let send = |bytes: &[u8]| {
        if let Some(reply) = reply.take() {
            reply.data(bytes);
        }
    };
    let result = server.read(inode, handle, offset, size, flags, send);
    if let (Err(e), Some(reply)) = (result, reply) {
        reply.error(errno(e));
    }
}

/// Requests that are all answered with one errno, whatever they ask.
macro_rules! answer_all {
    ($errno:ident: $($request:ident($($argument:ty),*) -> $reply:ty;)*) => {
        $(
            fn $request(&self, _: &Request, $(_: $argument,)* reply: $reply) {
                reply.error(Errno::$errno);
            }
        )*
    };
}

impl Filesystem for ViewFs {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // One by one: asked together, one that an older kernel lacks would lose all.
        for capability in [
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_ASYNC_DIO,
        ] {
            if config.add_capabilities(capability).is_err() {
                log::info!("the kernel lacks {capability:?}");
            }
        }
        // The largest readahead that the kernel offers is what it gets without being asked.
        config
            .set_max_background(MAX_BACKGROUND)
            .map_err(|nearest| io::Error::other(format!("max_background must be {nearest}")))?;
        let server = Arc::get_mut(&mut self.0).expect("nobody else has it yet");
        server.negotiate(config)
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.0.lookup(parent.0, name) {
            Ok(Some(found)) => reply.entry(&found.ttl, &attributes(&found.stat), GENERATION),
            // An ENOENT would be asked for again.
            Ok(None) => reply.entry(&TTL, &NO_ENTRY, GENERATION),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn forget(&self, _request: &Request, inode: INodeNo, _lookups: u64) {
        self.0.forget(inode.0);
    }

    fn getattr(
        &self,
        _request: &Request,
        inode: INodeNo,
        _handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        match self.0.getattr(inode.0) {
            Ok(found) => reply.attr(&found.ttl, &attributes(&found.stat)),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn open(&self, request: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (server, thread) = (self.0.clone(), request.pid());
        let Some(wait) = server.wait_to_open(inode.0, thread) else {
            return open(&server, thread, inode, flags, reply);
        };
        // In a thread of its own: what else is asked meanwhile is answered.
        let reply = Arc::new(Mutex::new(Some(reply)));
        let later = reply.clone();
        let waiting = move || {
            wait.wait();
            if let Some(reply) = later.lock().take() {
                open(&server, thread, inode, flags, reply);
            }
        };
        let spawned = thread::Builder::new()
            .name("waiting".to_owned())
            .spawn(waiting);
        if spawned.is_err()
            && let Some(reply) = reply.lock().take()
        {
            open(&self.0, thread, inode, flags, reply);
        }
    }

    fn release(
        &self,
        _request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.0.release(inode.0, Handle(handle.0));
        reply.ok();
    }

    fn read(
        &self,
        _request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let (handle, flags) = (Handle(handle.0), open_flags(flags));
        if !self.0.waits_to_read(inode.0, offset, size) {
            return read(&self.0, inode.0, handle, (offset, size), flags, reply);
        }
        // In another thread: what else is asked meanwhile is answered.
        let server = self.0.clone();
        self.1
            .spawn(move || read(&server, inode.0, handle, (offset, size), flags, reply));
    }

    fn getxattr(
        &self,
        _request: &Request,
        inode: INodeNo,
        name: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        match self.0.getxattr(inode.0, name, size) {
            Ok(Xattr::Size(size)) => reply.size(size),
            Ok(Xattr::Value(value)) => reply.data(&value),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn opendir(&self, _request: &Request, inode: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        // Its list may be kept.
        let keep = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR;
        match self.0.opendir(inode.0) {
            Ok(handle) => reply.opened(FileHandle(handle.0), keep),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn readdir(
        &self,
        _request: &Request,
        directory: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let add = |next: u64, named: Named<'_>| {
            reply.add(
                INodeNo(named.inode),
                next,
                file_type(named.kind),
                named.name,
            )
        };
        match self.0.readdir(directory.0, offset, add) {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn readdirplus(
        &self,
        _request: &Request,
        directory: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let add = |next: u64, name: &OsStr, found: &Found| {
            let attributes = attributes(&found.stat);
            reply.add(
                attributes.ino,
                next,
                name,
                &found.ttl,
                &attributes,
                GENERATION,
            )
        };
        match self.0.readdirplus(directory.0, offset, add) {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn statfs(&self, _request: &Request, _inode: INodeNo, reply: ReplyStatfs) {
        const NAME_MAX: u32 = 255;
        let blocks = self.0.bytes().div_ceil(u64::from(BLOCK));
        let files = self.0.entries();
        reply.statfs(blocks, 0, 0, files, 0, BLOCK, NAME_MAX, BLOCK);
    }

    fn access(&self, _request: &Request, inode: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        let mask = Access::from_bits_retain(mask.bits().cast_unsigned());
        match self.0.access(inode.0, mask) {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(errno(e)),
        }
    }

    // A view cannot be changed.
    answer_all! { EROFS:
        setattr(
            INodeNo, Option<u32>, Option<u32>, Option<u32>, Option<u64>, Option<TimeOrNow>,
            Option<TimeOrNow>, Option<SystemTime>, Option<FileHandle>, Option<SystemTime>,
            Option<SystemTime>, Option<SystemTime>, Option<BsdFileFlags>
        ) -> ReplyAttr;
        mknod(INodeNo, &OsStr, u32, u32, u32) -> ReplyEntry;
        mkdir(INodeNo, &OsStr, u32, u32) -> ReplyEntry;
        unlink(INodeNo, &OsStr) -> ReplyEmpty;
        rmdir(INodeNo, &OsStr) -> ReplyEmpty;
        symlink(INodeNo, &OsStr, &Path) -> ReplyEntry;
        rename(INodeNo, &OsStr, INodeNo, &OsStr, RenameFlags) -> ReplyEmpty;
        link(INodeNo, INodeNo, &OsStr) -> ReplyEntry;
        write(
            INodeNo, FileHandle, u64, &[u8], WriteFlags, OpenFlags, Option<LockOwner>
        ) -> ReplyWrite;
        setxattr(INodeNo, &OsStr, &[u8], i32, u32) -> ReplyEmpty;
        removexattr(INodeNo, &OsStr) -> ReplyEmpty;
        create(INodeNo, &OsStr, u32, u32, i32) -> ReplyCreate;
        fallocate(INodeNo, FileHandle, u64, u64, i32) -> ReplyEmpty;
        copy_file_range(
            INodeNo, FileHandle, u64, INodeNo, FileHandle, u64, u64, CopyFileRangeFlags
        ) -> ReplyWrite;
    }

    // ENOSYS leaves these to the kernel, for good. Extended attributes are not listed: whoever copies
    // files with all that are listed gets the files alone, and nothing is asked for each file.
    answer_all! { ENOSYS:
        listxattr(INodeNo, u32) -> ReplyXattr;
        flush(INodeNo, FileHandle, LockOwner) -> ReplyEmpty;
        fsync(INodeNo, FileHandle, bool) -> ReplyEmpty;
        fsyncdir(INodeNo, FileHandle, bool) -> ReplyEmpty;
        lseek(INodeNo, FileHandle, i64, i32) -> ReplyLseek;
        ioctl(INodeNo, FileHandle, IoctlFlags, u32, &[u8], u32) -> ReplyIoctl;
        poll(INodeNo, FileHandle, PollNotifier, PollEvents, PollFlags) -> ReplyPoll;
    }
}
