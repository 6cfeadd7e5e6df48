//! A bug in what computes a tile: EIO for who asks for it, and everybody else is served.

use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Barrier};
use std::thread;

use ckptfs::catalog::{Band, Extent, Extents, Kernel, Node, NonFinite, RowBands, Step};
use ckptfs::fuse::{MountOptions, Mounted, mount};
use ckptfs::read::Reader;
use ckptfs::runs::Runs;
use ckptfs::source::Attributes;
use ckptfs::view::{TopFile, View};
use memmap2::Mmap;
use rustix::process::{Pid, WaitOptions};

use crate::fixture::Fixture;

/// One row of one output, in whose computation there is a bug.
#[derive(Debug)]
struct Panics;

const LEN: u64 = 10_000;

impl Kernel for Panics {
    fn identity(&self) -> String {
        "Panics".to_owned()
    }

    fn step(&self, _output: usize) -> Option<Step> {
        None
    }

    fn bands(&self) -> RowBands {
        RowBands {
            groups: 1,
            rows_per_group: 1,
            band_rows: 1,
        }
    }

    fn input_bytes(&self, _input: usize, _band: &Band) -> Range<u64> {
        0..0
    }

    fn output_bytes(&self, _output: usize, _band: &Band) -> Range<u64> {
        0..LEN
    }

    fn compute(
        &self,
        _facts: &[f64],
        _band: &Band,
        _inputs: &[&[u8]],
        _outputs: &mut [&mut [u8]],
    ) -> Result<(), NonFinite> {
        panic!("a bug in a kernel, on purpose");
    }
}

/// Mounts the files "bug", one tile that cannot be computed, and "good".
fn mount_bug(fixture: &Fixture, threads: usize) -> Mounted {
    let attributes = Attributes::read(&fixture.base).unwrap();
    let node = Arc::new(Node::new("tensor", Vec::new(), Box::new(Panics)));
    let place = Extent::Computed {
        node,
        output: 0,
        offset: 0,
    };
    let bug = Runs::one(LEN, place);
    let file = |name: &str, content| TopFile {
        name: name.into(),
        attributes,
        content,
    };
    let good = Extents::made(b"good".to_vec());
    let files = vec![file("bug", bug), file("good", good)];
    let view = Arc::new(View::new(attributes, files, &[]));
    let options = MountOptions {
        threads: Some(threads),
        ..MountOptions::default()
    };
    let reader = Arc::new(Reader::new(view, 1 << 20));
    mount(reader, &fixture.mountpoint, &options).unwrap()
}

fn assert_eio(bug: &File) {
    let error = bug.read_at(&mut [0; 10], 5).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
}

#[test]
fn a_panic_while_answering_a_read_gives_eio_and_the_mount_lives_on() {
    let fixture = Fixture::new();
    let mounted = mount_bug(&fixture, 1);

    let bug = File::open(fixture.mountpoint.join("bug")).unwrap();
    for _ in 0..3 {
        assert_eio(&bug);
        let good = fs::read(fixture.mountpoint.join("good")).unwrap();
        assert_eq!(good, b"good");
        // Not from the page cache: the one thread must have survived.
        assert!(fixture.mountpoint.join("neither").metadata().is_err());
        rustix::fs::statvfs(&fixture.mountpoint).unwrap();
    }
    let figures = mounted.figures().snapshot();
    assert!(figures.requests.errors >= 3);
    assert_eq!(figures.served.bytes(), 4);
    drop(bug);
    mounted.unmount().unwrap();
}

#[test]
fn all_who_wait_for_a_tile_whose_computation_panics_get_eio() {
    const READERS: usize = 8;
    let fixture = Fixture::new();
    let mounted = mount_bug(&fixture, 4);
    let barrier = Barrier::new(READERS);
    thread::scope(|scope| {
        for _ in 0..READERS {
            scope.spawn(|| {
                let bug = File::open(fixture.mountpoint.join("bug")).unwrap();
                barrier.wait();
                for _ in 0..5 {
                    assert_eio(&bug);
                }
            });
        }
    });
    mounted.unmount().unwrap();
}

#[test]
fn who_reads_such_a_tile_through_a_mapping_gets_the_signal_of_an_io_error() {
    let fixture = Fixture::new();
    let mounted = mount_bug(&fixture, 2);
    let bug = File::open(fixture.mountpoint.join("bug")).unwrap();
    // SAFETY: nothing writes to a view.
    let mapping = unsafe { Mmap::map(&bug) }.unwrap();
    // In a process of its own: who waits for pages may hold a lock on the memory of its process, which
    // the threads that serve the mount, here of this process, may need to answer.
    // SAFETY: the child has a copy of the mapping, calls only what may be called after a fork of a
    // process with threads, and ends without running anything of the parent's.
    let child = unsafe {
        match libc::fork() {
            0 => {
                let populate = libc::MADV_POPULATE_READ;
                let start = mapping.as_ptr().cast_mut().cast();
                let result = libc::madvise(start, mapping.len(), populate);
                // EFAULT stands for SIGBUS.
                let as_expected = result == -1 && *libc::__errno_location() == libc::EFAULT;
                libc::_exit(i32::from(!as_expected))
            }
            child => Pid::from_raw(child).unwrap(),
        }
    };
    let ended = rustix::process::waitpid(Some(child), WaitOptions::empty());
    let (_, status) = ended.unwrap().unwrap();
    assert_eq!(status.exit_status(), Some(0));
    let good = fs::read(fixture.mountpoint.join("good")).unwrap();
    assert_eq!(good, b"good");
    drop((mapping, bug));
    mounted.unmount().unwrap();
}
