//! A reader that is killed in the midst of a read leaves nothing behind.

use std::fs;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use crate::common::connection::Connection;
use crate::fixture::{Fixture, Kind, assert_same, eventually, read_tree, stderr};

/// Commands that read `$0` to its end: through the page cache, and past it.
const READERS: [&str; 2] = [
    "exec cat \"$0\"",
    "exec dd if=\"$0\" bs=1M iflag=direct status=none",
];

fn start(script: &str, fixture: &Fixture) -> Child {
    let mut reader = Command::new("sh");
    reader.args(["-c", script]).arg(fixture.shard());
    reader.stdout(Stdio::null()).spawn().unwrap()
}

#[test]
fn a_reader_that_is_killed_while_it_waits_ends_and_leaves_no_request() {
    for script in READERS {
        let fixture = Fixture::new();
        let log = fixture.path("log");
        let mut server = fixture.serve_logging_to(Kind::PatchedFp8, &log);
        let connection = Connection::of(&fixture.mountpoint).unwrap();
        eventually("nothing is asked", || connection.waiting() == 0);
        server.signal(Signal::STOP);
        let mut readers: Vec<Child> = (0..4).map(|_| start(script, &fixture)).collect();
        eventually("a reader waits", || connection.waiting() > 0);
        for reader in &mut readers {
            reader.kill().unwrap();
        }
        server.signal(Signal::CONT);
        for reader in &mut readers {
            eventually("a killed reader is gone", || {
                reader.try_wait().unwrap().is_some()
            });
        }
        eventually("nothing is left to answer", || connection.waiting() == 0);
        assert_same(
            &read_tree(&fixture.mountpoint),
            &fixture.expected(Kind::PatchedFp8),
        );
        let output = fixture.unmount(&[]);
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(server.status().code(), Some(0));
        // Nor a line that looks as if something was wrong.
        let log = fs::read_to_string(log).unwrap();
        assert!(!log.contains(" ERROR "), "{log}");
    }
}
