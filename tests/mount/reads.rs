//! Every way of reading gives the bytes of the view.

use std::fs::{self, File};
use std::io::Seek;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;

use ckptfs::fuse::{MountOptions, mount};
use ckptfs::read::Reader;
use rustix::fs::Advice;
use rustix::process::Signal;

use crate::common::values::Random;
use crate::fixture::{Fixture, Kind, assert_same, eventually, read_tree};

const KINDS: [Kind; 2] = [Kind::Patched, Kind::PatchedFp8];

/// Reads `len` bytes at `offset`, not from the page cache.
fn pread(file: &File, offset: u64, len: usize) -> Vec<u8> {
    rustix::fs::fadvise(file, 0, None, Advice::DontNeed).unwrap();
    let mut bytes = vec![0xAA; len];
    let mut done = 0;
    while done < len {
        match file.read_at(&mut bytes[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(e) => panic!("{len} bytes at {offset}: {e}"),
        }
    }
    bytes.truncate(done);
    bytes
}

/// What `expected` holds in that range.
fn range(expected: &[u8], offset: u64, len: usize) -> &[u8] {
    let end = expected.len();
    let offset = end.min(offset as usize);
    &expected[offset..end.min(offset + len)]
}

fn assert_range(file: &File, expected: &[u8], offset: u64, len: usize) {
    assert!(
        pread(file, offset, len) == range(expected, offset, len),
        "{len} bytes at {offset}"
    );
}

#[test]
fn every_file_of_a_mount_holds_the_bytes_of_the_view() {
    for kind in KINDS {
        let fixture = Fixture::new();
        fixture.mount(kind, &[]);
        assert_same(&read_tree(&fixture.mountpoint), &fixture.expected(kind));
    }
}

#[test]
fn reads_around_every_boundary_and_past_the_end_give_the_bytes_of_the_view() {
    for kind in KINDS {
        let fixture = Fixture::new();
        fixture.mount(kind, &[]);
        let expected = fixture.expected(kind);
        for (_, path, content) in fixture.plan(kind).view.files() {
            let file = File::open(fixture.mountpoint.join(&path)).unwrap();
            let starts = content.segments().iter().map(|segment| segment.start);
            for boundary in starts.chain([content.len()]) {
                for offset in [boundary.saturating_sub(3), boundary, boundary + 1] {
                    assert_range(&file, &expected[&path], offset, 7);
                }
            }
            let beyond = content.len() + (1 << 40);
            assert_range(&file, &expected[&path], beyond, 100);
        }
    }
}

#[test]
fn reads_at_random_ranges_give_the_bytes_of_the_view() {
    for kind in KINDS {
        let fixture = Fixture::new();
        fixture.mount(kind, &[]);
        let expected = fixture.expected(kind);
        let mut random = Random::new(1);
        for (path, bytes) in &expected {
            let file = File::open(fixture.mountpoint.join(path)).unwrap();
            for _ in 0..60 {
                let offset = random.below(bytes.len() + 1) as u64;
                let magnitude = random.below(22);
                let len = random.below(1 << magnitude);
                assert_range(&file, bytes, offset, len);
            }
        }
    }
}

#[test]
fn many_threads_read_right_while_the_cache_is_too_small_for_any_of_them() {
    let fixture = Fixture::new();
    fixture.mount(
        Kind::PatchedFp8,
        &["--cache-size", "1KiB", "--threads", "5"],
    );
    let expected = Arc::new(fixture.expected(Kind::PatchedFp8));
    let readers = (0..16).map(|seed| {
        let expected = expected.clone();
        let mountpoint = fixture.mountpoint.clone();
        thread::spawn(move || {
            let mut random = Random::new(seed);
            let paths: Vec<&PathBuf> = expected.keys().collect();
            for _ in 0..100 {
                let path = paths[random.below(paths.len())];
                let file = File::open(mountpoint.join(path)).unwrap();
                let offset = random.below(expected[path].len() + 1) as u64;
                assert_range(&file, &expected[path], offset, random.below(300_000));
            }
        })
    });
    for reader in readers.collect::<Vec<_>>() {
        reader.join().unwrap();
    }
}

/// The file of a patched view that is a whole source file, and what it must hold.
fn whole_file(fixture: &Fixture) -> (PathBuf, Vec<u8>) {
    let path = fixture.shard();
    let name = Path::new(path.file_name().unwrap());
    let bytes = fixture.expected(Kind::Patched).remove(name).unwrap();
    (path, bytes)
}

#[test]
fn whole_files_are_read_by_the_kernel_alone_where_it_can() {
    let fixture = Fixture::new();
    let log = fixture.path("log");
    let server = fixture.serve_logging_to(Kind::Patched, &log);
    let (path, expected) = whole_file(&fixture);
    let file = File::open(path).unwrap();
    if fs::read_to_string(&log)
        .unwrap()
        .contains("passthrough is off")
    {
        assert_range(&file, &expected, 0, expected.len());
        return;
    }
    server.signal(Signal::STOP);
    let reader = thread::spawn(move || assert_range(&file, &expected, 0, expected.len()));
    eventually("the file is read without the process", || {
        reader.is_finished()
    });
    server.signal(Signal::CONT);
    reader.join().unwrap();
}

#[test]
fn renumbered_files_are_those_of_the_base_and_read_by_the_kernel_alone_where_it_can() {
    let fixture = Fixture::new();
    // As an engine names them, without an index.
    let at = |name: &str| fixture.base.join(name);
    fs::remove_file(at("model.safetensors.index.json")).unwrap();
    let of_two = |i: usize| format!("model-0000{i}-of-00002.safetensors");
    for i in [1, 2] {
        fs::rename(at(&of_two(i)), at(&format!("rank_{i}.safetensors"))).unwrap();
    }
    let log = fixture.path("log");
    let server = fixture.serve_logging_to(Kind::Renumbered, &log);
    let open = [1, 2].map(|i| {
        let file = File::open(fixture.mountpoint.join(of_two(i))).unwrap();
        (
            file,
            fs::read(at(&format!("rank_{i}.safetensors"))).unwrap(),
        )
    });
    let passed = !fs::read_to_string(&log)
        .unwrap()
        .contains("passthrough is off");
    if passed {
        server.signal(Signal::STOP);
    }
    let reader = thread::spawn(move || {
        for (file, expected) in &open {
            assert_range(file, expected, 0, expected.len());
        }
    });
    eventually("the files are read without the process", || {
        reader.is_finished()
    });
    server.signal(Signal::CONT);
    reader.join().unwrap();
    assert_same(
        &read_tree(&fixture.mountpoint),
        &fixture.expected(Kind::Renumbered),
    );
}

#[test]
fn whole_files_hold_the_same_bytes_without_passthrough() {
    let fixture = Fixture::new();
    fixture.mount(Kind::Patched, &["--no-passthrough"]);
    assert_same(
        &read_tree(&fixture.mountpoint),
        &fixture.expected(Kind::Patched),
    );
}

#[test]
fn a_whole_file_can_be_opened_and_closed_by_many_threads_at_once() {
    let fixture = Fixture::new();
    fixture.mount(Kind::Patched, &[]);
    let (path, expected) = whole_file(&fixture);
    thread::scope(|scope| {
        for seed in 0..8 {
            let (path, expected) = (&path, &expected);
            scope.spawn(move || {
                let mut random = Random::new(seed);
                for _ in 0..200 {
                    let file = File::open(path).unwrap();
                    let offset = random.below(expected.len()) as u64;
                    assert_range(&file, expected, offset, 100);
                }
            });
        }
    });
}

#[test]
fn a_mapping_holds_the_bytes_of_the_view() {
    for kind in KINDS {
        let fixture = Fixture::new();
        fixture.mount(kind, &[]);
        for (path, bytes) in fixture.expected(kind) {
            if bytes.is_empty() {
                continue;
            }
            let file = File::open(fixture.mountpoint.join(&path)).unwrap();
            // SAFETY: nothing writes to a view.
            let mapping = unsafe { memmap2::Mmap::map(&file) }.unwrap();
            // Backwards, so that readahead cannot hide a page that is read wrong alone.
            for offset in (0..bytes.len()).step_by(4096).rev() {
                let end = bytes.len().min(offset + 4096);
                assert!(
                    mapping[offset..end] == bytes[offset..end],
                    "{} at {offset}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn direct_io_gives_the_bytes_of_the_view() {
    let fixture = Fixture::new();
    fixture.mount(Kind::PatchedFp8, &[]);
    let expected =
        &fixture.expected(Kind::PatchedFp8)[Path::new("model-00001-of-00003.safetensors")];
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(fixture.shard())
        .unwrap();
    // FUSE demands no alignment of direct reads.
    for (offset, len) in [(0, 4096), (8192, 1 << 20), (4096, 3 << 20), (5, 1000)] {
        assert_range(&file, expected, offset, len);
    }
    let end = expected.len() as u64;
    assert_range(&file, expected, end - 100, 8192);
}

#[test]
fn cp_copies_the_whole_view_with_its_times_and_modes() {
    for kind in KINDS {
        let fixture = Fixture::new();
        fixture.mount(kind, &[]);
        let copy = fixture.path("copy");
        let mut cp = Command::new("cp");
        let status = cp.arg("-a").arg(&fixture.mountpoint).arg(&copy).status();
        assert!(status.unwrap().success());
        assert_same(&read_tree(&copy), &fixture.expected(kind));
        let (there, here) = (
            fixture.shard(),
            copy.join(fixture.shard().file_name().unwrap()),
        );
        let [there, here] = [there, here].map(|path| path.metadata().unwrap());
        assert_eq!(there.modified().unwrap(), here.modified().unwrap());
        assert_eq!(there.permissions(), here.permissions());
    }
}

#[test]
fn copies_inside_the_kernel_give_the_bytes_of_the_view() {
    for kind in KINDS {
        let fixture = Fixture::new();
        fixture.mount(kind, &[]);
        for (path, bytes) in fixture.expected(kind) {
            let source = fixture.mountpoint.join(&path);
            let copy = fixture.path("copy");
            // copy_file_range where the kernel does it between filesystems, else what is next best.
            fs::copy(&source, &copy).unwrap();
            assert!(fs::read(&copy).unwrap() == bytes, "{}", path.display());
            fs::remove_file(&copy).unwrap();

            let mut target = File::options()
                .write(true)
                .create_new(true)
                .open(&copy)
                .unwrap();
            let source = File::open(&source).unwrap();
            while rustix::fs::sendfile(&target, &source, None, bytes.len().max(1)).unwrap() > 0 {}
            assert_eq!(target.stream_position().unwrap(), bytes.len() as u64);
            assert!(fs::read(&copy).unwrap() == bytes, "{}", path.display());
            fs::remove_file(&copy).unwrap();
        }
    }
}

#[test]
fn the_library_mounts_in_process_and_takes_its_mount_away() {
    let fixture = Fixture::new();
    let plan = fixture.plan(Kind::PatchedFp8);
    let reader = Arc::new(Reader::new(plan.view.clone(), 1 << 20));
    let mounted = mount(reader, &fixture.mountpoint, &MountOptions::default()).unwrap();
    assert_eq!(
        mounted.mountpoint(),
        fixture.mountpoint.canonicalize().unwrap()
    );
    assert_same(
        &read_tree(mounted.mountpoint()),
        &fixture.expected(Kind::PatchedFp8),
    );
    mounted.unmount().unwrap();
    assert!(!fixture.is_mounted());
    assert_eq!(fs::read_dir(&fixture.mountpoint).unwrap().count(), 0);
}

#[test]
fn a_dropped_mount_is_taken_away() {
    let fixture = Fixture::new();
    let plan = fixture.plan(Kind::Patched);
    let reader = Arc::new(Reader::new(plan.view.clone(), 1 << 20));
    drop(mount(reader, &fixture.mountpoint, &MountOptions::default()).unwrap());
    assert!(!fixture.is_mounted());
}
