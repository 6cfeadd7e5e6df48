//! Load on a mount: many processes read a view in every way there is while some of them are
//! killed, every byte is held against an independent oracle, and the process that serves the
//! mount is watched. Run by `scripts/soak`.

#[path = "../common/mod.rs"]
mod common;

mod daemon;
mod fixture;
mod fleet;
mod reads;
mod tally;
mod worker;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::daemon::Daemon;
use crate::fixture::Fixture;
use crate::fleet::Fleet;

/// How long to go on: for this time, and until this many reads were made.
struct Wanted {
    time: Duration,
    reads: u64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["worker", mount, oracle, seed] => {
            let seed = seed.parse().expect("a number");
            worker::run(mount.as_ref(), oracle.as_ref(), seed);
        }
        [program, seconds, reads] => {
            let wanted = Wanted {
                time: Duration::from_secs(seconds.parse().expect("a number of seconds")),
                reads: reads.parse().expect("a number of reads"),
            };
            soak(program.into(), &wanted);
        }
        _ => panic!("usage: soak PROGRAM SECONDS READS"),
    }
}

fn soak(program: PathBuf, wanted: &Wanted) {
    /// What the sizes of tables and queues settle in.
    const WARM_UP: Duration = Duration::from_secs(10);
    const REPORT: Duration = Duration::from_secs(10);
    let fixture = Fixture::new();
    println!(
        "a view of {} MiB in {} files, {} MiB of it computed; the cache holds {} MiB",
        fixture.bytes >> 20,
        fixture.files,
        fixture.computed_bytes >> 20,
        fixture::CACHE_BYTES >> 20,
    );
    let mut daemon = Daemon::mount(&program, &fixture);
    let mut fleet = Fleet::start(fixture.mountpoint(), fixture.oracle());
    let start = Instant::now();
    let mut reported = start;
    while start.elapsed() < wanted.time || fleet.tally().reads() < wanted.reads {
        fleet.attend();
        daemon.sample(start.elapsed() >= WARM_UP);
        if reported.elapsed() >= REPORT {
            reported = Instant::now();
            println!("{:5} s: {}", start.elapsed().as_secs(), fleet.tally());
        }
    }
    let kills = fleet.kills();
    let tally = fleet.stop();
    let figures = daemon.unmount();
    println!("{} s, {kills} readers killed", start.elapsed().as_secs());
    print!("{}", tally.table());
    println!("{figures}");
}
