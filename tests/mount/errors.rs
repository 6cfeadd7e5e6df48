//! What a reader gets when the bytes cannot be had: EIO, and only for what is concerned.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use ckptfs::catalog::{Band, Kernel, Node, NonFinite, RowBands};
use ckptfs::fast_paths::FastPath;
use ckptfs::fuse::{MountOptions, mount};
use ckptfs::read::Reader;
use ckptfs::source::Attributes;
use ckptfs::view::{FileContent, SegmentData, TopFile, View};
use safetensors::SafeTensors;

use crate::fixture::{Fixture, Kind, eventually};

fn errno<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

#[test]
fn a_source_that_changed_gives_eio_for_its_own_tensors_and_the_log_says_what_changed() {
    let fixture = Fixture::new();
    let log = fixture.path("log");
    let expected = fixture.expected(Kind::PatchedFp8);
    fixture.mount(Kind::PatchedFp8, &["--log-file", log.to_str().unwrap()]);
    let source = fixture.base.join("model-00002-of-00002.safetensors");
    let len = source.metadata().unwrap().len();
    File::options()
        .write(true)
        .open(&source)
        .unwrap()
        .set_len(len - 1)
        .unwrap();

    let concerned = "model-00002-of-00003.safetensors";
    let result = fs::read(fixture.mountpoint.join(concerned));
    assert_eq!(errno(result), Some(libc::EIO));
    let others = expected
        .iter()
        .filter(|(path, _)| path.to_str() != Some(concerned));
    for (path, bytes) in others {
        let read = fs::read(fixture.mountpoint.join(path)).unwrap();
        assert!(read == *bytes, "{}", path.display());
    }
    eventually("the log names both files", || {
        let text = fs::read_to_string(&log).unwrap();
        let change = format!("it had {len} bytes and now has {}", len - 1);
        let names = [concerned, source.to_str().unwrap(), change.as_str()];
        names.iter().all(|name| text.contains(name))
    });
}

#[test]
fn a_source_that_changed_never_gives_its_new_bytes_at_the_next_open_of_a_whole_file() {
    let fixture = Fixture::new();
    fixture.mount(Kind::Patched, &[]);
    let shard = fixture.shard();
    let planned = fs::read(&shard).unwrap();
    let source = fixture.base.join("model-00001-of-00002.safetensors");
    let file = File::options().write(true).open(&source).unwrap();
    file.write_at(b"?", source.metadata().unwrap().len() - 1)
        .unwrap();
    match fs::read(&shard) {
        // The kernel had these bytes from the first read, where it does not read the source.
        Ok(bytes) => assert!(bytes == planned && !FastPath::Passthrough.is_enabled()),
        Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EIO)),
    }
}

#[test]
fn a_source_that_changes_while_a_whole_file_is_open_gives_eio_without_passthrough() {
    let fixture = Fixture::new();
    fixture.mount(Kind::Patched, &["--no-passthrough"]);
    let open = File::open(fixture.shard()).unwrap();
    let source = fixture.base.join("model-00001-of-00002.safetensors");
    let file = File::options().write(true).open(&source).unwrap();
    file.write_at(b"?", source.metadata().unwrap().len() - 1)
        .unwrap();
    assert_eq!(errno(open.read_at(&mut [0; 10], 0)), Some(libc::EIO));
}

/// Puts a NaN into a BF16 tensor of a shard of the base.
fn plant_nan(fixture: &Fixture, shard: &str, tensor: &str, element: usize) {
    let path = fixture.base.join(shard);
    let mut bytes = fs::read(&path).unwrap();
    let (header, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let start = 8 + header + metadata.info(tensor).unwrap().data_offsets.0;
    let at = start + 2 * element;
    bytes[at..at + 2].copy_from_slice(&0x7fc0u16.to_le_bytes());
    fs::write(&path, bytes).unwrap();
}

#[test]
fn a_nan_gives_eio_for_its_rows_and_the_log_names_tensor_row_and_column() {
    const PAGE: u64 = 4096;
    let tensor = "model.layers.0.self_attn.q_proj.weight";
    let columns = 1024;
    let (row, column) = (700, 1023);
    let fixture = Fixture::new();
    let shard = "model-00001-of-00002.safetensors";
    plant_nan(&fixture, shard, tensor, row * columns + column);
    let log = fixture.path("log");
    fixture.mount(Kind::PatchedFp8, &["--log-file", log.to_str().unwrap()]);

    let plan = fixture.plan(Kind::PatchedFp8);
    let planned = &plan.shards[0];
    let codes = planned.tensors.iter().find(|t| *t.name == *tensor).unwrap();
    let file = File::open(fixture.mountpoint.join(&planned.name)).unwrap();
    let concerned = codes.offset + (row * columns) as u64;
    assert_eq!(
        errno(file.read_at(&mut [0; 100], concerned)),
        Some(libc::EIO)
    );

    // All that does not share a page with this tensor or its scales is there.
    let reader = Reader::new(plan.view.clone(), 1 << 20);
    for other in planned
        .tensors
        .iter()
        .filter(|t| !t.name.starts_with(tensor))
    {
        let from = other.offset.next_multiple_of(PAGE);
        let to = (other.offset + other.len) / PAGE * PAGE;
        if from < to {
            let mut found = vec![0; (to - from) as usize];
            file.read_exact_at(&mut found, from).unwrap();
            let mut expected = vec![0; found.len()];
            reader.read_at(planned.entry, from, &mut expected).unwrap();
            assert!(found == expected, "{}", other.name);
        }
    }
    let mut first_rows = vec![0; 100 * columns];
    file.read_exact_at(&mut first_rows, codes.offset).unwrap();

    eventually("the log names tensor, row and column", || {
        let text = fs::read_to_string(&log).unwrap();
        let place = format!("NaN at row {row}, column {column}");
        [tensor, &place].iter().all(|part| text.contains(part))
    });
}

/// One row of one output, in whose computation there is a bug.
#[derive(Debug)]
struct Panics;

const LEN: u64 = 10_000;

impl Kernel for Panics {
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

#[test]
fn a_panic_while_answering_a_read_gives_eio_and_the_mount_lives_on() {
    let fixture = Fixture::new();
    let attributes = Attributes::read(&fixture.base).unwrap();
    let node = Arc::new(Node::new("tensor", Vec::new(), Box::new(Panics)));
    let bug = FileContent::new([(LEN, SegmentData::Computed { node, output: 0 })]);
    let file = |name: &str, content| TopFile {
        name: name.into(),
        attributes,
        content,
    };
    let good = FileContent::bytes(b"good".to_vec());
    let files = vec![file("bug", bug), file("good", good)];
    let view = Arc::new(View::new(attributes, files, &[]));
    let options = MountOptions {
        threads: Some(1),
        ..MountOptions::default()
    };
    let reader = Arc::new(Reader::new(view, 1 << 20));
    let mounted = mount(reader, &fixture.mountpoint, &options).unwrap();

    let bug = File::open(fixture.mountpoint.join("bug")).unwrap();
    for _ in 0..3 {
        assert_eq!(errno(bug.read_at(&mut [0; 10], 5)), Some(libc::EIO));
        let good = fs::read(fixture.mountpoint.join("good")).unwrap();
        assert_eq!(good, b"good");
        // Not from the page cache: the one thread must have survived.
        assert!(fixture.mountpoint.join("neither").metadata().is_err());
        rustix::fs::statvfs(&fixture.mountpoint).unwrap();
    }
    drop(bug);
    mounted.unmount().unwrap();
}
