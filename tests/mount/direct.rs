//! Reads past the page cache of a mount, by `--direct-io` or `O_DIRECT`: the same bytes, asked for
//! anew each time.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use ckptfs::fast_paths::FastPath;
use memmap2::{MmapOptions, UncheckedAdvice};
use serde_json::json;

use crate::changes::InMemory;
use crate::common::checkpoint::CONFIG;
use crate::common::safetensors_file::with_length;
use crate::common::values::Random;
use crate::fixture::{Fixture, Kind, Server, assert_same, eventually, read_tree};

const MIB: usize = 1 << 20;
const KINDS: [Kind; 2] = [Kind::Patched, Kind::PatchedFp8];
const DIRECT: [&str; 2] = ["--direct-io", "--no-passthrough"];

/// How a mount and an opening of a file in it say that reads go past the page cache.
const WAYS: [(&[&str], i32); 3] = [
    (&["--no-passthrough"], libc::O_DIRECT),
    (&DIRECT, 0),
    (&DIRECT, libc::O_DIRECT),
];

fn open(path: impl AsRef<Path>, flags: i32) -> File {
    let mut options = File::options();
    options.read(true).custom_flags(flags).open(path).unwrap()
}

/// Reads all of `file` in order, `chunk` bytes at a time.
fn read_in_order(file: &File, chunk: usize) -> io::Result<Vec<u8>> {
    let (mut bytes, mut buffer) = (Vec::new(), vec![0xAA; chunk]);
    loop {
        match file.read_at(&mut buffer, bytes.len() as u64)? {
            0 => return Ok(bytes),
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}

/// Asserts that a read of `len` bytes at `offset` gives what `expected` has there, at once.
fn assert_range(file: &File, expected: &[u8], offset: usize, len: usize) {
    let mut bytes = vec![0xAA; len];
    let count = file.read_at(&mut bytes, offset as u64).unwrap();
    let from = offset.min(expected.len());
    let wanted = &expected[from..expected.len().min(from + len)];
    assert!(bytes[..count] == *wanted, "{len} bytes at {offset}");
    assert!(bytes[count..].iter().all(|&byte| byte == 0xAA));
}

#[test]
fn reads_in_order_give_the_bytes_of_the_view_whatever_their_size() {
    for kind in KINDS {
        for (flags, opening) in WAYS {
            let fixture = Fixture::new();
            fixture.mount(kind, flags);
            for (path, bytes) in fixture.expected(kind) {
                let file = open(fixture.mountpoint.join(&path), opening);
                for chunk in [10_007, 1 << 16, MIB + 4096, 3 * MIB + 1] {
                    let read = read_in_order(&file, chunk).unwrap();
                    assert!(read == bytes, "{} by {chunk}", path.display());
                }
            }
        }
    }
}

#[test]
fn sources_read_past_the_page_cache_give_the_bytes_of_the_view() {
    for kind in KINDS {
        for ways in [&["--no-passthrough"][..], &DIRECT, &["--threads", "1"]] {
            let fixture = Fixture::new();
            let flags = [ways, &["--direct-sources"]].concat();
            fixture.mount(kind, &flags);
            let expected = fixture.expected(kind);
            forget(&fixture.base);
            forget(&fixture.extra);
            for (path, bytes) in expected {
                let file = open(fixture.mountpoint.join(&path), 0);
                let read = read_in_order(&file, 100_003).unwrap();
                assert!(read == bytes, "{} with {flags:?}", path.display());
            }
        }
    }
}

/// Has the page cache forget all files in `directory`, if they are on a disk.
fn forget(directory: &Path) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let file = File::open(path).unwrap();
            file.sync_all().unwrap();
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        }
    }
}

#[test]
fn sources_on_a_filesystem_without_such_reads_are_read_all_the_same_and_the_log_says_so_once() {
    for kind in KINDS {
        let fixture = Fixture::new();
        let _ramfs = InMemory::below(&fixture, "ramfs");
        let log = fixture.path("log");
        let log_file = ["--log-file", log.to_str().unwrap()];
        let flags = [&log_file[..], &["--no-passthrough", "--direct-sources"]].concat();
        fixture.mount(kind, &flags);
        for _ in 0..2 {
            assert_same(&read_tree(&fixture.mountpoint), &fixture.expected(kind));
        }
        let log = fs::read_to_string(log).unwrap();
        let told = log.matches("cannot be read past the page cache").count();
        let wanted = usize::from(FastPath::DirectSources.is_enabled());
        assert_eq!(told, wanted, "{log}");
    }
}

#[test]
fn reads_around_every_boundary_and_past_the_end_give_the_bytes_of_the_view() {
    for kind in KINDS {
        for (flags, opening) in WAYS {
            let fixture = Fixture::new();
            fixture.mount(kind, flags);
            let expected = fixture.expected(kind);
            for (_, path, content) in fixture.plan(kind).view.files() {
                let file = open(fixture.mountpoint.join(&path), opening);
                let starts = content.segments().iter().map(|segment| segment.start);
                for boundary in starts.chain([content.len(), content.len() + (1 << 40)]) {
                    let boundary = boundary as usize;
                    for offset in [boundary.saturating_sub(3), boundary, boundary + 1] {
                        assert_range(&file, &expected[&path], offset, 7);
                    }
                }
            }
        }
    }
}

#[test]
fn many_threads_that_read_here_and_there_and_on_and_on_get_the_bytes_of_the_view() {
    for (flags, opening) in WAYS {
        let fixture = Fixture::new();
        fixture.mount(Kind::PatchedFp8, flags);
        let expected = fixture.expected(Kind::PatchedFp8);
        let paths: Vec<&PathBuf> = expected.keys().collect();
        thread::scope(|scope| {
            for seed in 0..12 {
                let (fixture, expected, paths) = (&fixture, &expected, &paths);
                scope.spawn(move || {
                    let mut random = Random::new(seed);
                    for _ in 0..20 {
                        let path = paths[random.below(paths.len())];
                        let bytes = &expected[path];
                        let file = open(fixture.mountpoint.join(path), opening);
                        let mut offset = random.below(bytes.len() + 1);
                        let len = 1 + random.below(300_000);
                        for _ in 0..random.below(10) {
                            assert_range(&file, bytes, offset, len);
                            offset += len;
                        }
                    }
                });
            }
        });
    }
}

#[test]
fn mappings_and_reads_of_one_file_in_one_process_give_the_same_bytes() {
    let fixture = Fixture::new();
    fixture.mount(Kind::PatchedFp8, &DIRECT);
    let expected = fixture.expected(Kind::PatchedFp8);
    let bytes = &expected[Path::new(fixture.shard().file_name().unwrap())];
    let file = open(fixture.shard(), 0);
    let map = MmapOptions::new();
    // SAFETY: nothing writes to a view.
    let [shared, again] = [(); 2].map(|()| unsafe { map.map(&file) }.unwrap());
    // SAFETY: as above.
    let private = unsafe { map.map_copy_read_only(&file) }.unwrap();
    for offset in (0..bytes.len()).step_by(4096).rev() {
        let end = bytes.len().min(offset + 4096);
        for mapping in [&shared, &again, &private] {
            assert!(mapping[offset..end] == bytes[offset..end], "at {offset}");
        }
        assert_range(&file, bytes, offset, 5000);
    }
    // SAFETY: what is dropped is read from the file again.
    unsafe { shared.unchecked_advise(UncheckedAdvice::DontNeed) }.unwrap();
    assert!(shared[..] == bytes[..]);
}

#[test]
fn copies_inside_the_kernel_give_the_bytes_of_the_view() {
    for kind in KINDS {
        let fixture = Fixture::new();
        fixture.mount(kind, &["--direct-io"]);
        let expected = fixture.expected(kind);
        assert_same(&read_tree(&fixture.mountpoint), &expected);
        let copy = fixture.path("copy");
        let mut cp = Command::new("cp");
        let status = cp.arg("-a").arg(&fixture.mountpoint).arg(&copy).status();
        assert!(status.unwrap().success());
        assert_same(&read_tree(&copy), &expected);
        for (path, bytes) in &expected {
            let source = open(fixture.mountpoint.join(path), 0);
            let target = File::create(fixture.path("sent")).unwrap();
            while rustix::fs::sendfile(&target, &source, None, bytes.len().max(1)).unwrap() > 0 {}
            assert!(fs::read(fixture.path("sent")).unwrap() == *bytes);
        }
    }
}

#[test]
fn a_source_that_changes_while_a_file_is_read_gives_eio_from_the_next_read_on() {
    for (flags, opening) in WAYS {
        let fixture = Fixture::new();
        fixture.mount(Kind::Patched, flags);
        let name = fixture.shard().file_name().unwrap().to_owned();
        let expected = fixture.expected(Kind::Patched);
        let bytes = &expected[Path::new(&name)];
        let file = open(fixture.shard(), opening);
        // What follows is read ahead; what was read is not kept.
        for offset in (0..MIB).step_by(1 << 16) {
            assert_range(&file, bytes, offset, 1 << 16);
        }
        for shard in fs::read_dir(&fixture.base).unwrap() {
            let shard = shard.unwrap().path();
            if shard.extension().is_some_and(|e| e == "safetensors") {
                let same = fs::read(&shard).unwrap();
                fs::write(&shard, same).unwrap();
            }
        }
        for offset in [0, MIB - 10, MIB, MIB + (1 << 16), 2 * MIB] {
            let error = file.read_at(&mut [0; 5000], offset as u64).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EIO), "at {offset}");
        }
    }
}

#[test]
fn whole_files_are_still_read_by_the_kernel_alone_where_it_can() {
    let fixture = Fixture::new();
    let log = fixture.path("log");
    let log_file = ["--direct-io", "--log-file", log.to_str().unwrap()];
    let server = fixture.serve_with(Kind::Patched, &log_file);
    let file = open(fixture.shard(), 0);
    if fs::read_to_string(log)
        .unwrap()
        .contains("passthrough is off")
    {
        return;
    }
    let name = fixture.shard().file_name().unwrap().to_owned();
    let mut expected = fixture.expected(Kind::Patched);
    let bytes = expected.remove(Path::new(&name)).unwrap();
    server.signal(rustix::process::Signal::STOP);
    let reader = thread::spawn(move || read_in_order(&file, MIB).unwrap() == bytes);
    eventually("the file is read without the process", || {
        reader.is_finished()
    });
    server.signal(rustix::process::Signal::CONT);
    assert!(reader.join().unwrap());
}

/// A checkpoint of zeros: 64 MiB that FP8 views compute, of twice as many, and 256 MiB that they
/// store.
fn write_large(directory: &Path) {
    let tensors = BTreeMap::from([
        ("model.embed_tokens.weight", [32_768_u64, 4096]),
        ("model.layers.0.self_attn.q_proj.weight", [8192, 8192]),
    ]);
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    for (name, shape) in tensors {
        let start = end;
        end += 2 * shape[0] * shape[1];
        let entry = json!({"dtype": "BF16", "shape": shape, "data_offsets": [start, end]});
        header.insert(name.to_owned(), entry);
    }
    let header = with_length(&serde_json::Value::from(header).to_string());
    fs::create_dir(directory).unwrap();
    fs::write(directory.join("config.json"), CONFIG).unwrap();
    let shard = directory.join("model.safetensors");
    fs::write(&shard, &header).unwrap();
    let shard = File::options().write(true).open(shard).unwrap();
    shard.set_len(header.len() as u64 + end).unwrap();
}

/// The most memory that the process `id` ever had, in MB.
fn peak_memory(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.unwrap().trim().strip_suffix(" kB").unwrap();
    kib.parse::<u64>().unwrap() / 1000
}

#[test]
fn many_readers_in_order_take_no_more_memory_than_the_cache_and_100_mb() {
    const READERS: u64 = 16;
    const CACHE_MB: u64 = 64;
    for more in [&[][..], &["--direct-sources"]] {
        let mut fixture = Fixture::new();
        fixture.base = fixture.path("large");
        write_large(&fixture.base);
        forget(&fixture.base);
        let cache = format!("{CACHE_MB}MB");
        let flags = ["--direct-io", "--cache-size", &cache, "--threads", "4"];
        let flags = [&flags[..], more].concat();
        let server = fixture.serve_with(Kind::PatchedFp8, &flags);
        let shards = fs::read_dir(&fixture.mountpoint).unwrap();
        let shards = shards.map(|entry| entry.unwrap().path());
        let largest = shards.max_by_key(|path| path.metadata().unwrap().len());
        let file = open(largest.unwrap(), 0);
        let len = file.metadata().unwrap().len();
        assert!(len > 300 << 20);
        let share = len.div_ceil(READERS);
        thread::scope(|scope| {
            for reader in 0..READERS {
                let file = &file;
                scope.spawn(move || {
                    let mut buffer = vec![0; 4 * MIB];
                    let (mut at, end) = (reader * share, len.min((reader + 1) * share));
                    while at < end {
                        at += file.read_at(&mut buffer, at).unwrap() as u64;
                    }
                });
            }
        });
        let peak = peak_memory(&server);
        assert!(peak <= CACHE_MB + 100, "{peak} MB {more:?}");
    }
}
