//! Files that are complete in a directory, as they are opened and read.

use super::*;
use crate::error::Code;
use crate::fuse::options::{PersistOpen, PersistOptions};
use crate::fuse::server::opening::Handle;
use crate::materialize::Watcher;

/// A kernel that passes files through.
struct PassingKernel;

impl Kernel for PassingKernel {
    fn offers(&self, _: Capability) -> bool {
        true
    }

    fn enable(&mut self, _: Capability) -> bool {
        true
    }

    fn set_stack_depth(&mut self, _: u32) -> bool {
        true
    }
}

/// A server of an FP8 view, and a file that holds what its shard is to hold.
fn server(open: PersistOpen) -> (Fixture, Server<PathBuf>, PathBuf) {
    let mut fixture = Fixture::fp8();
    let out = fixture.base.path().with_extension("out");
    fs::create_dir(&out).unwrap();
    fixture.options.persist = Some(PersistOptions {
        directory: out.clone(),
        open,
        rate: None,
    });
    fixture.options.read_ahead = 0;
    let mut server = fixture.server();
    server.negotiate(&mut PassingKernel).unwrap();
    let shard = server.at(SHARD);
    let bytes = server
        .read_bytes(shard.inode, 0, shard.size as u32)
        .unwrap();
    let path = out.join(SHARD);
    fs::write(&path, bytes).unwrap();
    (fixture, server, path)
}

impl Server<PathBuf> {
    fn complete(&self, path: &Path) {
        let entry = id(self.at(SHARD).inode);
        self.persisted.as_ref().unwrap().complete(entry, path);
    }

    /// Opens the shard by its inode; the kernel remembers what it is to read by its path.
    fn open_inode(&self, inode: Inode) -> Answer<Opened<PathBuf>> {
        let register = |file: &File| {
            use std::os::fd::AsRawFd;
            fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
        };
        self.open(inode, OFlags::RDONLY, register)
    }

    /// Opens the shard by its name; gives the inode that was opened, too.
    fn open_shard(&self) -> (Inode, Opened<PathBuf>) {
        let inode = self.at(SHARD).inode;
        (inode, self.open_inode(inode).unwrap())
    }
}

#[test]
fn a_file_is_read_from_the_directory_from_its_next_opening_on() {
    if obstacle().is_some() {
        return; // Then this process reads all files, as another test has it.
    }
    let (_fixture, server, path) = server(PersistOpen::Pass);
    let (before, opened) = server.open_shard();
    assert_eq!(opened.handle(), Handle::CACHED);
    let shown = server.getattr(before).unwrap().stat;
    server.complete(&path);
    // The kernel reads no file in two ways at once, so that name stands for another now.
    assert_eq!(server.open_inode(before).unwrap_err(), Errno::STALE);
    let (native, opened) = server.open_shard();
    assert_ne!(native, before);
    match opened {
        Opened::Passthrough(source) => assert_eq!(*source, path),
        opened => panic!("{opened:?}"),
    }
    // To people it is the same.
    assert_eq!(server.getattr(native).unwrap().stat, shown);
    server.release(native, Handle::PASSTHROUGH);
    server.release(before, Handle::CACHED);
    assert_eq!(server.figures.snapshot().requests.open_handles, Some(0));
    assert_eq!(server.figures.snapshot().passthrough.open_handles, 0);
}

#[test]
fn a_file_that_is_open_already_has_its_requests_answered_from_the_directory() {
    let (_fixture, server, path) = server(PersistOpen::Pass);
    let (shard, expected) = (server.at(SHARD), fs::read(&path).unwrap());
    server.complete(&path);
    let computed = || server.figures.snapshot().served.computed_bytes;
    let before = computed();
    let size = shard.size;
    for (offset, count) in [(0, 10), (77, 40_000), (size - 5, 100), (size, 10)] {
        let found = server.read_bytes(shard.inode, offset, count).unwrap();
        let end = (offset as usize + count as usize).min(expected.len());
        assert!(found == expected[offset as usize..end]);
    }
    assert_eq!(computed(), before);
}

#[test]
fn a_file_that_was_changed_in_the_directory_is_computed_again() {
    if obstacle().is_some() {
        return; // Then this process reads all files, as another test has it.
    }
    let (_fixture, server, path) = server(PersistOpen::Pass);
    let (shard, expected) = (server.at(SHARD), fs::read(&path).unwrap());
    server.complete(&path);
    let (native, _) = server.open_shard();
    fs::write(&path, "something else").unwrap();
    assert_eq!(server.open_inode(native).unwrap_err(), Errno::STALE);
    let (inode, opened) = server.open_shard();
    assert_eq!((inode, opened.handle()), (shard.inode, Handle::CACHED));
    let found = server.read_bytes(inode, 0, shard.size as u32);
    assert!(found.unwrap() == expected);
}

#[test]
fn files_that_were_moved_to_their_place_are_found_there() {
    if obstacle().is_some() {
        return; // Then this process reads all files, as another test has it.
    }
    let (_fixture, server, path) = server(PersistOpen::Pass);
    server.complete(&path);
    let place = path.parent().unwrap().with_extension("place");
    let persisted = server.persisted.as_ref().unwrap();
    let moved = persisted.placed(&place, &mut || {
        fs::rename(path.parent().unwrap(), &place).unwrap();
        Ok(())
    });
    moved.unwrap();
    match server.open_shard().1 {
        Opened::Passthrough(source) => assert_eq!(*source, place.join(SHARD)),
        opened => panic!("{opened:?}"),
    }
    let fail = &mut || Err(Error::new(Code::NoSpace, "full"));
    assert!(persisted.placed(Path::new("/nowhere"), fail).is_err());
    assert_eq!(server.open_shard().1.handle(), Handle::PASSTHROUGH);
    fs::remove_dir_all(&place).unwrap();
}

#[test]
fn a_kernel_that_takes_no_file_has_them_read_by_this_process() {
    if obstacle().is_some() {
        return; // Then this process reads all files, as another test has it.
    }
    let (_fixture, server, path) = server(PersistOpen::Pass);
    server.complete(&path);
    let native = server.at(SHARD).inode;
    let refused = server.open(native, OFlags::RDONLY, |_| Err(Errno::PERM.into()));
    assert_eq!(refused.unwrap_err(), Errno::STALE);
    let (inode, opened) = server.open_shard();
    assert_ne!(inode, native);
    assert_eq!(opened.handle(), Handle::CACHED);
    let read = server.read_bytes(inode, 0, 1 << 20).unwrap();
    assert!(read == fs::read(&path).unwrap());
    assert!(server.figures.snapshot().served.persisted_bytes >= read.len() as u64);
}
