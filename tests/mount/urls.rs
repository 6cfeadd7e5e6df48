//! Mounts of sources at URLs: who reads what is here already never waits for the network.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use crate::common::checkpoint::{Checkpoint, bf16};
use crate::common::connection::Connection;
use crate::common::store_server::Kind;
use crate::common::web_server::{Trouble, WebServer};
use crate::fixture::{Fixture, ckptfs, eventually, stderr};

const SHARD: &str = "model.safetensors";
const PAGE: usize = 4096;
/// Further apart than the kernel reads ahead.
const STEP: u64 = 5 << 20;
const READERS: u64 = 8;
/// Fewer than there are readers.
const THREADS: &str = "2";

#[test]
fn while_all_readers_wait_for_a_server_the_rest_of_the_mount_answers() {
    let fixture = Fixture::new();
    let rows = (READERS * STEP / 2048) as usize;
    let checkpoint = Checkpoint::single([bf16("model.norm.weight", &[rows, 1024])]);
    let directory = fixture.path("remote");
    checkpoint.write(&directory);
    let expected = fs::read(directory.join(SHARD)).unwrap();
    let server = WebServer::start();
    server.put_directory("bucket/m", &directory);
    let output = ckptfs("mount")
        .args(["--base", "s3://bucket/m", "--network-timeout", "3600"])
        .args(["--block-cache-size", "0", "--threads", THREADS])
        .arg(&fixture.mountpoint)
        .envs(Kind::S3.settings(&server.url()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    server.trouble(SHARD, Trouble::Stall(0), READERS as usize);
    let connection = Connection::of(&fixture.mountpoint).unwrap();
    let path = fixture.mountpoint.join(SHARD);
    thread::scope(|scope| {
        let readers = (0..READERS).map(|reader| {
            let path = &path;
            scope.spawn(move || {
                let mut page = vec![0; PAGE];
                let from = (reader + 1) * STEP - PAGE as u64;
                File::open(path)
                    .unwrap()
                    .read_exact_at(&mut page, from)
                    .unwrap();
                (from as usize, page)
            })
        });
        let readers: Vec<_> = readers.collect();
        eventually("more readers wait than there are threads", || {
            connection.waiting() > 4
        });
        // In a thread of its own: it should not keep the test waiting either.
        let (send, answered) = channel();
        let mountpoint = fixture.mountpoint.clone();
        thread::spawn(move || {
            let names = fs::read_dir(&mountpoint).unwrap().count();
            let len = mountpoint.join(SHARD).metadata().unwrap().len();
            let config = fs::read(mountpoint.join("config.json")).unwrap();
            let mut header = vec![0; PAGE];
            let shard = File::open(mountpoint.join(SHARD)).unwrap();
            rustix::fs::fadvise(&shard, 0, None, rustix::fs::Advice::Random).unwrap();
            shard.read_exact_at(&mut header, 0).unwrap();
            rustix::fs::statvfs(&mountpoint).unwrap();
            send.send((names, len, config, header)).unwrap();
        });
        let answer = answered.recv_timeout(Duration::from_secs(60));
        let still = connection.waiting();
        let waited = readers.iter().all(|reader| !reader.is_finished());
        while readers.iter().any(|reader| !reader.is_finished()) {
            server.end_stalls();
            thread::yield_now();
        }
        for reader in readers {
            let (from, page) = reader.join().unwrap();
            assert!(page == expected[from..from + PAGE]);
        }
        let (names, len, config, header) = answer.expect("it answers");
        assert!(waited && still > 4, "{still} waited all along");
        assert_eq!(len, expected.len() as u64);
        assert!(names >= 2 && header == expected[..PAGE]);
        assert_eq!(config, fs::read(directory.join("config.json")).unwrap());
    });
    let output = fixture.unmount(&[]);
    assert!(output.status.success(), "{}", stderr(&output));
}
