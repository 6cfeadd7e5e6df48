//! A view that is brought into the page cache before anybody reads it.

use std::fs;

use ckptfs::fast_paths::FastPath;
use ckptfs::stats::{PrefetchState, PrefetchStats, Snapshot};

use crate::common::assert_names;
use crate::faulty_directory::FaultyDirectory;
use crate::fixture::{Fixture, Kind, assert_same, ckptfs, eventually, read_tree, stderr};

fn stats(fixture: &Fixture) -> Snapshot {
    let text = fs::read(fixture.mountpoint.join(".ckptfs/stats.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn prefetch(fixture: &Fixture) -> PrefetchStats {
    stats(fixture).prefetch.unwrap()
}

fn mount_and_wait(kind: Kind, more: &[&str]) -> Fixture {
    let fixture = Fixture::new();
    fixture.mount(kind, &[&["--prefetch"], more].concat());
    eventually("all is read", || {
        prefetch(&fixture).state != PrefetchState::Reading
    });
    fixture
}

#[test]
fn what_is_prefetched_is_right_and_asks_for_nothing() {
    for kind in [Kind::Patched, Kind::PatchedFp8] {
        let fixture = mount_and_wait(kind, &["--no-passthrough"]);
        let expected = fixture.expected(kind);
        let all: u64 = expected.values().map(|bytes| bytes.len() as u64).sum();
        let now = stats(&fixture);
        let done = now.prefetch.unwrap();
        assert_eq!(done.state, PrefetchState::Complete);
        assert_eq!((done.bytes, done.bytes_done), (all, all));
        assert_eq!(now.served.bytes(), all);
        assert_eq!(now.requests.reads, 0);
        assert_same(&read_tree(&fixture.mountpoint), &expected);
        // The kernel may have dropped a page meanwhile, but hardly more.
        let again = stats(&fixture).served.bytes() - all;
        assert!(again <= all / 10, "{again} of {all} bytes were asked for");
    }
}

#[test]
fn whole_files_of_sources_are_left_to_the_kernel_where_it_reads_them_itself() {
    let fixture = mount_and_wait(Kind::Patched, &[]);
    let expected = fixture.expected(Kind::Patched);
    let all: u64 = expected.values().map(|bytes| bytes.len() as u64).sum();
    let now = stats(&fixture);
    assert_eq!(now.prefetch.unwrap().bytes_done, all);
    if rustix::process::geteuid().is_root() && FastPath::Passthrough.is_enabled() {
        assert!(now.served.bytes() < all);
    }
    assert_same(&read_tree(&fixture.mountpoint), &expected);
}

#[test]
fn a_mount_that_prefetches_is_not_busy() {
    let fixture = Fixture::new();
    for _ in 0..20 {
        fixture.mount(Kind::PatchedFp8, &["--prefetch=3", "--no-passthrough"]);
        let output = fixture.unmount(&[]);
        assert!(output.status.success(), "{}", stderr(&output));
        eventually("the mount is gone", || !fixture.is_mounted());
    }
}

#[test]
fn a_file_that_cannot_be_read_is_left_out_and_the_others_are_there() {
    const SOURCE: &str = "model-00001-of-00002.safetensors";
    let fixture = Fixture::new();
    let kind = Kind::PatchedFp8;
    let expected = fixture.expected(kind);
    let faulty = FaultyDirectory::in_place_of(&fixture.base, &fixture.path("real"));
    // Behind the header, which is read to plan.
    let end = fixture.path("real").join(SOURCE).metadata().unwrap().len();
    faulty.fail(SOURCE, end - 1..end);
    let log = fixture.path("log");
    fixture.mount(kind, &["--prefetch", "--log-file", log.to_str().unwrap()]);
    eventually("all is read", || {
        prefetch(&fixture).state == PrefetchState::Complete
    });
    let log = fs::read_to_string(log).unwrap();
    let mut left_out = log.lines().filter(|line| line.contains("is left out"));
    assert!(
        left_out.next().is_some_and(|line| line.contains(SOURCE)),
        "{log}"
    );
    assert_eq!(left_out.next(), None);
    faulty.heal();
    assert_same(&read_tree(&fixture.mountpoint), &expected);
}

#[test]
fn it_is_refused_where_it_can_be_of_no_use() {
    let fixture = Fixture::new();
    let out = fixture.path("out");
    for more in [&["--direct-io"][..], &["--persist", out.to_str().unwrap()]] {
        let flags = [&["--prefetch"], more].concat();
        let output = fixture.try_mount(Kind::PatchedFp8, &fixture.mountpoint, &flags);
        assert_eq!(output.status.code(), Some(2));
        assert_names(&stderr(&output), &["--prefetch", more[0]]);
    }
}

#[test]
fn status_tells_how_far_it_is() {
    let fixture = mount_and_wait(Kind::PatchedFp8, &[]);
    let status = ckptfs("status").arg(&fixture.mountpoint).output().unwrap();
    let text = String::from_utf8(status.stdout).unwrap();
    let line = text
        .lines()
        .find(|line| line.trim().starts_with("prefetch"));
    assert!(
        line.is_some_and(|line| line.ends_with("; complete")),
        "{text}"
    );
}
