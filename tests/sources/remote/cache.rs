//! The block cache on disk: its bound, processes that share it or are killed, and disks that are full.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ckptfs::recipe::ViewRequest;
use ckptfs::source::remote::{BlockCacheOptions, Network, NetworkOptions};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::{SECOND, options, plan, served};
use crate::common::Workspace;
use crate::common::checkpoint::{Checkpoint, bf16};
use crate::common::readback::{read_all, reader};
use crate::common::web_server::WebServer;

const MIB: u64 = 1 << 20;

/// What the documentation says that a cache takes besides blocks, for so few objects.
const INDEXES: u64 = 64 << 10;

/// Two shards of 12 MiB.
fn large() -> Checkpoint {
    Checkpoint::new()
        .shard(super::FIRST, [bf16("a.weight", &[6 << 10, 1 << 10])])
        .shard(SECOND, [bf16("b.weight", &[6 << 10, 1 << 10])])
}

fn with_cache(server: &WebServer, directory: &Path, max_bytes: u64) -> Arc<Network> {
    let options = NetworkOptions {
        // Blocks are not in memory for long.
        memory: 2 * MIB,
        block_cache: Some(BlockCacheOptions {
            directory: directory.to_owned(),
            max_bytes: Some(max_bytes),
        }),
        ..options(server)
    };
    Network::new(options).unwrap()
}

/// What `directory`, with all below it, takes on disk.
fn on_disk(directory: &Path) -> u64 {
    const SECTOR: u64 = 512;
    let Ok(entries) = fs::read_dir(directory) else {
        return 0;
    };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => on_disk(&entry.path()),
        Ok(metadata) => metadata.blocks() * SECTOR,
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

/// Whether `directory` takes at most `max` bytes. A block that moves from one file to another while they are
/// counted is counted twice, so what is too much must be so each time.
fn is_within(directory: &Path, max: u64) -> bool {
    (0..100).any(|_| on_disk(directory) <= max + INDEXES)
}

/// Requests for bytes of weights.
fn fetched(server: &WebServer) -> usize {
    let requests = server.requests().into_iter();
    requests
        .filter(|it| it.method == "GET" && it.path.ends_with(".safetensors"))
        .count()
}

#[test]
fn the_bound_holds_while_more_than_it_is_read_by_several() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &large());
    let (server, urls) = served(&directory, "base");
    let expected = read_all(&ViewRequest::new(&directory).plan().unwrap());
    let cache = workspace.path().join("cache");
    let max = 6 * MIB;
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let (server, cache, expected, url) = (&server, &cache, &expected, &urls[1]);
                scope.spawn(move || {
                    let network = with_cache(server, cache, max);
                    assert!(read_all(&plan(&network, url).unwrap()) == *expected);
                })
            })
            .collect();
        while readers.iter().any(|reader| !reader.is_finished()) {
            assert!(is_within(&cache, max), "{} of {max}", on_disk(&cache));
            std::thread::yield_now();
        }
    });
    assert!(on_disk(&cache) >= MIB, "it is used");
}

#[test]
fn reads_anywhere_through_a_small_cache_give_the_bytes_of_the_source() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &large());
    let (server, urls) = served(&directory, "base");
    let content = fs::read(directory.join(SECOND)).unwrap();
    let reads = vec((0..12 * MIB, 1_usize..2 << 20), 1..20);
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(8)
    };
    let run = |(max, reads): (u64, Vec<(u64, usize)>)| {
        let cache = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let network = with_cache(&server, cache.path(), max * MIB);
            let plan = plan(&network, &urls[0]).unwrap();
            let reader = reader(&plan);
            for (offset, len) in &reads {
                let mut bytes = vec![0; *len];
                let entry = plan.shards[1].entry;
                let count = reader.read_at(entry, *offset, &mut bytes).unwrap();
                let from = *offset as usize;
                prop_assert!(bytes[..count] == content[from..from + count]);
                prop_assert!(is_within(cache.path(), max * MIB));
            }
        }
        Ok(())
    };
    let outcome = TestRunner::new(config).run(&(1_u64..8, reads), run);
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn a_full_disk_is_read_past() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not run: only root may mount a small filesystem");
        return;
    }
    let workspace = Workspace::new();
    let directory = workspace.write("base", &large());
    let (server, urls) = served(&directory, "base");
    let expected = read_all(&ViewRequest::new(&directory).plan().unwrap());
    let small = workspace.path().join("small");
    fs::create_dir(&small).unwrap();
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("none", &small, "tmpfs", flags, c"size=3m").unwrap();
    let network = with_cache(&server, &small, 1 << 30);
    let found = read_all(&plan(&network, &urls[1]).unwrap());
    let taken = on_disk(&small);
    let again = read_all(&plan(&with_cache(&server, &small, 1 << 30), &urls[1]).unwrap());
    rustix::mount::unmount(&small, rustix::mount::UnmountFlags::DETACH).unwrap();
    assert!(found == expected && again == expected);
    assert!(taken > 0, "it was tried");
}

#[test]
fn what_one_process_fetched_another_reads_from_the_cache() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &large());
    let (server, urls) = served(&directory, "base");
    let expected = read_all(&ViewRequest::new(&directory).plan().unwrap());
    let cache = workspace.path().join("cache");
    for url in &urls {
        for is_first in [true, false] {
            let network = with_cache(&server, &cache, 1 << 30);
            let plan = plan(&network, url).unwrap();
            // Headers are read at planning.
            server.requests();
            assert!(read_all(&plan) == expected);
            assert_eq!(fetched(&server) > 0, is_first, "{url}");
            // Blocks are written in the background.
            network.finish_writing(Duration::from_secs(60));
        }
    }
}

#[cfg(feature = "cli")]
mod processes {
    use std::path::PathBuf;
    use std::process::{Child, Command, Stdio};

    use super::*;
    use crate::common::web_server::Trouble;

    /// The program, writing the view of `url` to `out`.
    fn materialize(server: &WebServer, cache: &Path, url: &str, out: &Path, max: &str) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ckptfs"));
        command
            .args([
                "materialize",
                "--quiet",
                "--base",
                url,
                "--block-cache-size",
                max,
            ])
            .arg("--block-cache")
            .arg(cache)
            .arg("--out")
            .arg(out)
            .env("HF_ENDPOINT", server.url())
            .env("HF_HUB_CACHE", cache.join("no-hub"))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command.spawn().unwrap()
    }

    fn assert_same(directory: &Path, out: &Path) {
        for name in [super::super::FIRST, SECOND] {
            let content = fs::read(out.join(name)).unwrap();
            assert!(content == fs::read(directory.join(name)).unwrap(), "{name}");
        }
    }

    #[test]
    fn a_cache_whose_process_was_killed_is_right_and_bounded() {
        let workspace = Workspace::new();
        let directory = workspace.write("base", &large());
        let (server, urls) = served(&directory, "base");
        let cache = workspace.path().join("cache");
        let out = |name: &str| -> PathBuf { workspace.path().join(name) };
        for stalled_after in [100_000, 600_000, 1_000_000] {
            server.trouble(SECOND, Trouble::Stall(stalled_after), 1);
            let mut child = materialize(&server, &cache, &urls[0], &out("killed"), "8MiB");
            // It has written blocks, and waits for more.
            while !server.is_stalled() {
                let ended = child.try_wait().unwrap();
                assert!(ended.is_none(), "{ended:?} before {stalled_after} bytes");
                std::thread::yield_now();
            }
            child.kill().unwrap();
            child.wait().unwrap();
            assert!(on_disk(&cache) <= 8 * MIB + INDEXES);
            server.end_stalls();
            let _ = fs::remove_dir_all(out("killed"));
        }
        let status = materialize(&server, &cache, &urls[0], &out("whole"), "8MiB").wait();
        assert!(status.unwrap().success());
        assert_same(&directory, &out("whole"));
        assert!(on_disk(&cache) <= 8 * MIB + INDEXES);
    }

    #[test]
    fn what_a_program_fetched_the_next_one_has() {
        let workspace = Workspace::new();
        let directory = workspace.write("base", &large());
        let (server, urls) = served(&directory, "base");
        let cache = workspace.path().join("cache");
        for (url, out) in [(&urls[0], "web"), (&urls[2], "hub")] {
            for is_first in [true, false] {
                let out = workspace.path().join(format!("{out}-{is_first}"));
                server.requests();
                let status = materialize(&server, &cache, url, &out, "1GiB").wait();
                assert!(status.unwrap().success());
                assert_eq!(fetched(&server) > 0, is_first, "{url}");
                assert_same(&directory, &out);
            }
        }
    }

    #[test]
    fn processes_at_the_same_time_share_a_cache_and_its_bound() {
        let workspace = Workspace::new();
        let directory = workspace.write("base", &large());
        let (server, urls) = served(&directory, "base");
        let cache = workspace.path().join("cache");
        let outs = ["a", "b", "c"].map(|name| workspace.path().join(name));
        // Two of them read the same objects.
        let mut children = [(0, 0), (0, 1), (2, 2)]
            .map(|(url, out)| materialize(&server, &cache, &urls[url], &outs[out], "5MiB"));
        while children
            .iter_mut()
            .any(|child| child.try_wait().unwrap().is_none())
        {
            assert!(is_within(&cache, 5 * MIB), "{}", on_disk(&cache));
            std::thread::yield_now();
        }
        for (mut child, out) in children.into_iter().zip(&outs) {
            assert!(child.wait().unwrap().success());
            assert_same(&directory, out);
        }
    }
}
