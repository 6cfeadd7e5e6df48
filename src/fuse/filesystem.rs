//! The answers to the kernel's requests.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileAttr, FileHandle, FileType,
    Filesystem, FopenFlags, INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenAccMode,
    OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen,
    ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use crate::error::Error;
use crate::fuse::attributes::{BLOCK, GENERATION, NO_ENTRY, TTL, attributes, id, inode, kind};
use crate::fuse::figures::Figures;
use crate::fuse::opening::{self, DIRECT, OWN, Opening};
use crate::fuse::options::MountOptions;
use crate::fuse::own_files::{Found, OwnFiles};
use crate::fuse::provenance::{PROVENANCE_ATTRIBUTE, Provenance};
use crate::read::{Ahead, ReadAhead};
use crate::shown::Show;
use crate::view::{EntryId, View};

/// Requests that the kernel keeps in flight for readahead.
const MAX_BACKGROUND: u16 = 64;

thread_local! {
    /// Where bytes are put together that do not lie in one piece.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A view as the kernel sees it.
pub(super) struct ViewFs {
    figures: Arc<Figures>,
    own: OwnFiles,
    /// Bytes of all files.
    bytes: u64,
    opening: Opening,
    /// `None` if it is not wanted.
    ahead: Option<ReadAhead>,
    /// What to do ahead of readers that come through the page cache.
    ahead_of_cache: Ahead,
    /// `None` if it is not told.
    provenance: Option<Provenance>,
}

impl ViewFs {
    pub(super) fn new(
        figures: Arc<Figures>,
        options: &MountOptions,
        ahead: Option<ReadAhead>,
        ahead_of_cache: Ahead,
    ) -> Self {
        let view = figures.reader.view();
        let bytes = (0..view.len()).filter_map(|id| Some(view.file(id)?.len()));
        ViewFs {
            bytes: bytes.sum(),
            own: OwnFiles::new(options.plan.clone(), view),
            opening: Opening::new(options),
            figures,
            ahead,
            ahead_of_cache,
            provenance: options.provenance.clone().map(Provenance::new),
        }
    }

    fn view(&self) -> &View {
        self.figures.reader.view()
    }

    /// What `stat` shows of `inode`.
    fn attributes(&self, inode: INodeNo) -> Option<FileAttr> {
        match OwnFiles::has(inode) {
            true => self.own.attributes(inode),
            false => attributes(self.view(), id(inode)),
        }
    }

    /// What is called `name` in `parent`.
    fn find(&self, parent: INodeNo, name: &OsStr) -> Option<Found> {
        let own = self.own.lookup(parent, name, &self.figures);
        own.or_else(|| {
            let id = self.view().lookup(id(parent), name)?;
            let attributes = attributes(self.view(), id)?;
            Some(Found {
                attributes,
                ttl: TTL,
            })
        })
    }

    /// Calls `visit` with the entries of directory `id` from position `from`, each with the
    /// position after it, until it returns true.
    fn list(
        &self,
        id: EntryId,
        from: u64,
        mut visit: impl FnMut(u64, EntryId, &OsStr) -> bool,
    ) -> Result<(), Errno> {
        let view = self.view();
        let directory = view.get(id).ok_or(Errno::ENOENT)?;
        let children = view.children(id).ok_or(Errno::ENOTDIR)?;
        let dots = [(id, OsStr::new(".")), (directory.parent, OsStr::new(".."))];
        let children = children
            .iter()
            .filter_map(|&child| Some((child, view.get(child)?.name.as_os_str())));
        let entries = dots.into_iter().chain(children);
        for (position, (entry, name)) in (1..).zip(entries).skip(from as usize) {
            if visit(position, entry, name) {
                break;
            }
        }
        Ok(())
    }

    /// Runs the answer to a request about `inode`. If it panics, its reply is dropped on the way,
    /// which answers EIO, and the thread lives on.
    fn guard(&self, inode: INodeNo, answer: impl FnOnce()) {
        if catch_unwind(AssertUnwindSafe(answer)).is_err() {
            self.figures.serving.error();
            log::error!("{}: panic in a request for it", self.shown(inode));
        }
    }

    /// The path of `inode` in the view, for the log.
    fn shown(&self, inode: INodeNo) -> String {
        match self.view().get(id(inode)) {
            Some(_) => format!("/{}", self.view().path(id(inode)).shown()),
            None => format!("inode {inode}"),
        }
    }
}

/// What a reader is told. The log has the rest.
fn errno(error: &Error) -> Errno {
    match error {
        Error::Request(_) => Errno::EINVAL,
        Error::Io { .. }
        | Error::Checkpoint { .. }
        | Error::Tensor { .. }
        | Error::SourceChanged { .. }
        | Error::NonFinite { .. } => Errno::EIO,
        // Told ENOMEM for a page that is read through a mapping, the kernel would ask for ever.
        Error::OutOfMemory { .. } => Errno::EIO,
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
        self.opening.negotiate(self.figures.reader.view(), config)
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.guard(parent, || {
            match self.find(parent, name) {
                Some(Found { attributes, ttl }) => reply.entry(&ttl, &attributes, GENERATION),
                // An ENOENT would be asked for again.
                None => reply.entry(&TTL, &NO_ENTRY, GENERATION),
            }
        });
    }

    fn forget(&self, _request: &Request, inode: INodeNo, _lookups: u64) {
        self.own.forget(inode);
    }

    fn getattr(
        &self,
        _request: &Request,
        inode: INodeNo,
        _handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        self.guard(inode, || match self.attributes(inode) {
            Some(attributes) => reply.attr(&OwnFiles::ttl(inode), &attributes),
            None => reply.error(Errno::ENOENT),
        });
    }

    fn open(&self, _request: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.guard(inode, || {
            if flags.acc_mode() != OpenAccMode::O_RDONLY || flags.0 & libc::O_TRUNC != 0 {
                return reply.error(Errno::EROFS);
            }
            if self.own.has_file(inode) {
                return reply.opened(OWN, FopenFlags::FOPEN_NOFLUSH);
            }
            let serving = &self.figures.serving;
            serving.open_requested();
            let id = id(inode);
            let Some(content) = self.view().file(id) else {
                return reply.error(Errno::EISDIR);
            };
            match self.opening.way(id, content, flags, &reply) {
                Ok(way) => way.answer(id, content.len(), serving, reply),
                Err(error) => {
                    serving.error();
                    log::error!("{}: cannot open it: {error}", self.shown(inode));
                    reply.error(errno(&error));
                }
            }
        });
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
        self.opening
            .closed(id(inode), handle, &self.figures.serving);
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
        self.guard(inode, || {
            if OwnFiles::has(inode) {
                return self.own.read(inode, offset, size, reply);
            }
            if let Some(ahead) = &self.ahead {
                // The kernel reads nothing ahead of who reads past its page cache.
                let what = match (handle, flags.0 & libc::O_DIRECT) {
                    (DIRECT, 0) => Ahead::Everything,
                    (_, 0) => self.ahead_of_cache,
                    _ => Ahead::Tiles,
                };
                ahead.note(id(inode), offset..offset.saturating_add(size.into()), what);
            }
            let (serving, reader) = (&self.figures.serving, &self.figures.reader);
            let mut reply = Some(reply);
            let result = SCRATCH.with_borrow_mut(|scratch| {
                let send = |bytes: &[u8]| {
                    serving.read(id(inode), bytes.len() as u64);
                    if let Some(reply) = reply.take() {
                        reply.data(bytes);
                    }
                };
                reader.read_with(id(inode), offset, size as usize, scratch, send)
            });
            if let Err(error) = result {
                serving.error();
                log::error!(
                    "{}: cannot read {size} bytes at offset {offset}: {error}",
                    self.shown(inode)
                );
                if let Some(reply) = reply {
                    reply.error(errno(&error));
                }
            }
        });
    }

    fn getxattr(
        &self,
        _request: &Request,
        inode: INodeNo,
        name: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        // ENOSYS would be an answer to all that is ever asked. Of EOPNOTSUPP programs like ls know
        // that it holds for the whole filesystem.
        let Some(provenance) = &self.provenance else {
            return reply.error(Errno::ENOSYS);
        };
        if name != PROVENANCE_ATTRIBUTE {
            return reply.error(Errno::EOPNOTSUPP);
        }
        self.guard(inode, || match provenance.of(id(inode)) {
            None => reply.error(Errno::ENODATA),
            Some(value) if size == 0 => reply.size(value.len() as u32),
            Some(value) if value.len() > size as usize => reply.error(Errno::ERANGE),
            Some(value) => reply.data(&value),
        });
    }

    fn opendir(&self, _request: &Request, inode: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.attributes(inode).map(|attributes| attributes.kind) {
            Some(FileType::Directory) if self.opening.directories_are_unseen() => {
                reply.error(Errno::ENOSYS)
            }
            Some(FileType::Directory) => opening::opened_directory(reply),
            _ => reply.error(Errno::ENOTDIR),
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
        self.guard(directory, || {
            if OwnFiles::has(directory) {
                return self.own.readdir(directory, offset, reply);
            }
            let listed = self.list(id(directory), offset, |position, id, name| {
                let entry = self.view().get(id);
                entry.is_some_and(|entry| reply.add(inode(id), position, kind(entry), name))
            });
            match listed {
                Ok(()) => reply.ok(),
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn readdirplus(
        &self,
        _request: &Request,
        directory: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        self.guard(directory, || {
            if OwnFiles::has(directory) {
                return self
                    .own
                    .readdirplus(directory, offset, &self.figures, reply);
            }
            let listed = self.list(id(directory), offset, |position, id, name| {
                attributes(self.view(), id).is_some_and(|attributes| {
                    reply.add(inode(id), position, name, &TTL, &attributes, GENERATION)
                })
            });
            match listed {
                Ok(()) => reply.ok(),
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn statfs(&self, _request: &Request, _inode: INodeNo, reply: ReplyStatfs) {
        const NAME_MAX: u32 = 255;
        let blocks = self.bytes.div_ceil(u64::from(BLOCK));
        let files = self.view().len() as u64;
        reply.statfs(blocks, 0, 0, files, 0, BLOCK, NAME_MAX, BLOCK);
    }

    fn access(&self, _request: &Request, inode: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        const ANY_EXECUTE: u16 = 0o111;
        match self.attributes(inode).map(|attributes| attributes.perm) {
            None => reply.error(Errno::ENOENT),
            Some(_) if mask.contains(AccessFlags::W_OK) => reply.error(Errno::EROFS),
            Some(mode) if mask.contains(AccessFlags::X_OK) && mode & ANY_EXECUTE == 0 => {
                reply.error(Errno::EACCES)
            }
            Some(_) => reply.ok(),
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
