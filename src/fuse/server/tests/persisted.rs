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

    /// Opens the shard; the kernel remembers what it is to read from by its descriptor.
    fn open_shard(&self) -> Opened<PathBuf> {
        let register = |file: &File| {
            use std::os::fd::AsRawFd;
            fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
        };
        let inode = self.at(SHARD).inode;
        self.open(inode, OFlags::RDONLY, register).unwrap()
    }
}

#[test]
fn a_file_is_read_from_the_directory_from_its_next_opening_on() {
    let (_fixture, server, path) = server(PersistOpen::Pass);
    let shard = server.at(SHARD).inode;
    let before = server.open_shard();
    assert_eq!(before.handle(), Handle::CACHED);
    server.complete(&path);
    // The kernel does not take one file both ways at once.
    assert_eq!(server.open_shard().handle(), Handle::CACHED);
    server.release(shard, Handle::CACHED);
    assert_eq!(server.open_shard().handle(), Handle::CACHED);
    server.release(shard, Handle::CACHED);
    server.release(shard, Handle::CACHED);
    match server.open_shard() {
        Opened::Passthrough(source) => assert_eq!(*source, path),
        opened => panic!("{opened:?}"),
    }
    server.release(shard, Handle::PASSTHROUGH);
}

#[test]
fn a_file_that_is_open_already_has_its_requests_answered_from_the_directory() {
    let (_fixture, server, path) = server(PersistOpen::Pass);
    let (shard, expected) = (server.at(SHARD), fs::read(&path).unwrap());
    server.complete(&path);
    let computed = || server.figures.snapshot().served.computed_bytes;
    let before = computed();
    for (offset, size) in [
        (0, 10),
        (77, 40_000),
        (shard.size - 5, 100),
        (shard.size, 10),
    ] {
        let found = server.read_bytes(shard.inode, offset, size).unwrap();
        let end = (offset as usize + size as usize).min(expected.len());
        assert!(found == expected[offset as usize..end]);
    }
    assert_eq!(computed(), before);
}

#[test]
fn a_file_that_was_changed_in_the_directory_is_computed_again() {
    let (_fixture, server, path) = server(PersistOpen::Pass);
    let (shard, expected) = (server.at(SHARD), fs::read(&path).unwrap());
    server.complete(&path);
    fs::write(&path, "something else").unwrap();
    assert_eq!(server.open_shard().handle(), Handle::CACHED);
    let found = server.read_bytes(shard.inode, 0, shard.size as u32);
    assert!(found.unwrap() == expected);
}

#[test]
fn a_file_that_the_kernel_reads_cannot_be_opened_once_it_was_changed() {
    let (_fixture, server, path) = server(PersistOpen::Pass);
    server.complete(&path);
    assert_eq!(server.open_shard().handle(), Handle::PASSTHROUGH);
    fs::write(&path, "something else").unwrap();
    let inode = server.at(SHARD).inode;
    let opened = server.open(inode, OFlags::RDONLY, |_| panic!("it is registered"));
    assert_eq!(opened.unwrap_err(), Errno::IO);
}

#[test]
fn files_that_were_moved_to_their_place_are_found_there() {
    let (_fixture, server, path) = server(PersistOpen::Pass);
    server.complete(&path);
    let place = path.parent().unwrap().with_extension("place");
    let persisted = server.persisted.as_ref().unwrap();
    let moved = persisted.placed(&place, &mut || {
        fs::rename(path.parent().unwrap(), &place).unwrap();
        Ok(())
    });
    moved.unwrap();
    match server.open_shard() {
        Opened::Passthrough(source) => assert_eq!(*source, place.join(SHARD)),
        opened => panic!("{opened:?}"),
    }
    let failed = persisted.placed(Path::new("/nowhere"), &mut || {
        Err(Error::new(Code::NoSpace, "full"))
    });
    assert!(failed.is_err());
    assert_eq!(server.open_shard().handle(), Handle::PASSTHROUGH);
    fs::remove_dir_all(&place).unwrap();
}
