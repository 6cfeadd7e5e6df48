//! Sources that cannot be read, or change in the very moment in which they are.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use ckptfs::error::Code;
use ckptfs::read::Reader;
use memmap2::{Advice, MmapOptions};
use rustix::process::{Pid, Signal};
use safetensors::SafeTensors;

use crate::common::{assert_names, message};
use crate::faulty_directory::FaultyDirectory;
use crate::fixture::{
    Fixture, Kind, assert_refused, assert_refused_for_now, assert_same, ckptfs, eventually,
    read_tree,
};

const PAGE: u64 = 4096;
const SOURCE: &str = "model-00001-of-00002.safetensors";
/// One tensor that FP8 views compute, and one that all views splice.
const TENSORS: [&str; 2] = [
    "model.layers.0.self_attn.q_proj.weight",
    "model.embed_tokens.weight",
];

/// A fixture whose base lies on a filesystem that can be told to fail.
fn on_faulty_directory() -> (FaultyDirectory, Fixture) {
    let fixture = Fixture::new();
    let faulty = FaultyDirectory::in_place_of(&fixture.base, &fixture.path("real"));
    (faulty, fixture)
}

fn errno<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

/// Reads a page of `file`, not from the page cache.
fn read(file: &File, page: u64) -> io::Result<Vec<u8>> {
    rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed)?;
    let mut bytes = vec![0xAA; PAGE as usize];
    file.read_exact_at(&mut bytes, page).map(|()| bytes)
}

/// Has the kernel do what a read through a mapping would have it do: EFAULT stands for SIGBUS.
fn populate(file: &File, page: u64) -> io::Result<()> {
    rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed)?;
    // SAFETY: nothing writes to a view. Private, for what the kernel reads straight from the
    // faulty directory, which offers no shared mappings.
    let mapping = unsafe { MmapOptions::new().map_copy_read_only(file) }?;
    mapping.advise_range(Advice::PopulateRead, page as usize, PAGE as usize)
}

/// Where the bytes of `tensor` are in the source.
fn in_source(fixture: &Fixture, tensor: &str) -> Range<u64> {
    let bytes = fs::read(fixture.base.join(SOURCE)).unwrap();
    let (header, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let (start, end) = metadata.info(tensor).unwrap().data_offsets;
    (8 + header + start) as u64..(8 + header + end) as u64
}

#[test]
fn a_source_that_cannot_be_read_gives_eio_for_what_is_made_of_it_until_it_can() {
    for (kind, more) in [
        (Kind::Patched, &["--no-passthrough"][..]),
        (Kind::Patched, &[]),
        (Kind::PatchedFp8, &[]),
        (Kind::Patched, &["--no-passthrough", "--direct-sources"]),
        (Kind::PatchedFp8, &["--direct-sources"]),
    ] {
        let (faulty, fixture) = on_faulty_directory();
        let expected = fixture.expected(kind);
        let shard = &fixture.plan(kind).shards[0];
        let log = fixture.path("log");
        let flags = [&["--log-file", log.to_str().unwrap()], more].concat();
        fixture.mount(kind, &flags);
        let file = File::open(fixture.shard()).unwrap();
        let expected = &expected[Path::new(&shard.name)];
        for tensor in TENSORS {
            faulty.fail(SOURCE, in_source(&fixture, tensor));
            let at = |name: &str| {
                let tensor = shard.tensors.iter().find(|t| *t.name == *name);
                tensor.unwrap().offset.next_multiple_of(PAGE)
            };
            let (bad, good) = match TENSORS.map(at) {
                [first, second] if tensor == TENSORS[0] => (first, second),
                [first, second] => (second, first),
            };
            let right = |page: u64| {
                let expected = &expected[page as usize..][..PAGE as usize];
                read(&file, page).unwrap() == expected
            };
            assert_eq!(errno(read(&file, bad)), Some(libc::EIO), "{tensor}");
            assert_eq!(errno(populate(&file, bad)), Some(libc::EFAULT), "{tensor}");
            assert!(right(good), "{tensor}");
            faulty.heal();
            assert!(right(bad), "{tensor}");
        }
        let text = fs::read_to_string(&log).unwrap();
        if !text.contains("passthrough: ") {
            assert_names(
                &text,
                &[
                    &fixture.base.join(SOURCE).display().to_string(),
                    "os error 5",
                ],
            );
        }
        drop(file);
        assert_same(&read_tree(&fixture.mountpoint), &fixture.expected(kind));
    }
}

#[test]
fn bytes_that_come_with_a_change_are_neither_given_nor_kept() {
    let ways = [false, true].map(|direct| [Kind::Patched, Kind::PatchedFp8].map(|k| (k, direct)));
    for (kind, direct) in ways.concat() {
        for tensor in TENSORS {
            let (faulty, fixture) = on_faulty_directory();
            let plan = fixture.plan(kind);
            let mut reader = Reader::new(plan.view.clone(), 1 << 30);
            if direct {
                reader = reader.with_direct_sources();
            }
            let shard = &plan.shards[0];
            let planned = shard.tensors.iter().find(|t| *t.name == *tensor).unwrap();
            // The read itself gives what the change has brought.
            faulty.on_read(|_, path, _| {
                let len = path.metadata().unwrap().len();
                fs::write(path, vec![b'?'; len as usize]).unwrap();
                true
            });
            let mut buffer = vec![0; planned.len as usize];
            let result = reader.read_at(shard.entry, planned.offset, &mut buffer);
            assert!(
                result
                    .as_ref()
                    .is_err_and(|error| error.code() == Code::SourceChanged),
                "{result:?}"
            );
            assert_names(&message(result), &[SOURCE, "it was written to"]);
            assert_eq!(reader.cached_bytes(), 0);
        }
    }
}

#[test]
fn a_source_that_changes_while_it_is_written_to_disk_is_an_error_and_nothing_is_left() {
    let direct = "--direct-sources";
    for flags in [&[][..], &["--fp8"], &[direct], &["--fp8", direct]] {
        let (faulty, fixture) = on_faulty_directory();
        // Headers are shorter.
        faulty.on_read(|_, path, range| {
            if range.end - range.start > 10_000 && path.ends_with(SOURCE) {
                let len = path.metadata().unwrap().len();
                fs::write(path, vec![b'?'; len as usize]).unwrap();
            }
            true
        });
        let out = fixture.path("out");
        let mut command = ckptfs("materialize");
        command.args(fixture.flags(Kind::Patched)).args(flags);
        let output = command.arg("--out").arg(&out).output().unwrap();
        assert_refused(&output, &[SOURCE, "it was written to"]);
        assert!(!out.exists());
    }
}

#[test]
fn an_error_of_the_background_process_is_told_by_the_one_in_front() {
    let (faulty, fixture) = on_faulty_directory();
    faulty.fail(SOURCE, 0..8);
    let output = fixture.try_mount(Kind::Patched, &fixture.mountpoint, &[]);
    assert_refused_for_now(&output, &[SOURCE, "cannot read", "os error 5"]);
    assert!(!fixture.is_mounted());
}

#[test]
fn a_background_process_that_is_killed_while_it_plans_is_missed_by_the_one_in_front() {
    let (faulty, fixture) = on_faulty_directory();
    faulty.on_read(|reader, _, _| {
        let reader = Pid::from_raw(reader.cast_signed()).unwrap();
        // It may be dead already, of the first of several reads at once.
        let _ = rustix::process::kill_process(reader, Signal::KILL);
        true
    });
    let output = fixture.try_mount(Kind::Patched, &fixture.mountpoint, &[]);
    assert_refused(
        &output,
        &["the background process ended before it was ready, by signal 9"],
    );
    eventually("nothing is mounted", || !fixture.is_mounted());
}
