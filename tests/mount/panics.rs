//! A bug in what computes a tile: EIO for who asks for it, and everybody else is served.

use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Barrier};
use std::thread;

use ckptfs::catalog::{Band, Kernel, Node, NonFinite, RowBands, Step};
use ckptfs::fuse::{MountOptions, Mounted, mount};
use ckptfs::read::Reader;
use ckptfs::source::Attributes;
use ckptfs::view::{FileContent, SegmentData, TopFile, View};
use memmap2::{Advice, Mmap};

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

    fn outputs(&self) -> usize {
        1
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
    let bug = FileContent::new([(
        LEN,
        SegmentData::Computed {
            node,
            output: 0,
            offset: 0,
        },
    )]);
    let file = |name: &str, content| TopFile {
        name: name.into(),
        attributes,
        content,
    };
    let good = FileContent::bytes(b"good".to_vec());
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
    // EFAULT stands for SIGBUS.
    let error = mapping.advise(Advice::PopulateRead).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EFAULT));
    let good = fs::read(fixture.mountpoint.join("good")).unwrap();
    assert_eq!(good, b"good");
    drop((mapping, bug));
    mounted.unmount().unwrap();
}
