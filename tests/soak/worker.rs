//! One process of readers: it reads and checks until its standard input ends, and tells how far it
//! is on standard output.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use memmap2::Mmap;

use crate::common::values::Random;
use crate::reads::{Opened, WAYS};
use crate::tally::Tally;

/// Threads that read.
pub(crate) const THREADS: usize = 8;

/// Files are read in blocks that this many bytes apart can begin.
const PAGE: u64 = 4096;

/// A file of the mount, and what it must hold.
struct Subject {
    path: PathBuf,
    expected: Mmap,
}

/// What all threads share.
struct Shared {
    subjects: Vec<Subject>,
    stop: AtomicBool,
    /// Of each thread.
    tallies: [Mutex<Tally>; THREADS],
}

/// Reads the files in `mount` that are in `oracle` too, and ends the process if any differs.
pub(crate) fn run(mount: &Path, oracle: &Path, seed: u64) {
    const REPORT: Duration = Duration::from_millis(100);
    let shared = Arc::new(Shared {
        subjects: subjects(mount, oracle),
        stop: AtomicBool::new(false),
        tallies: Default::default(),
    });
    let (input, input_ended) = mpsc::channel::<()>();
    thread::spawn(move || {
        // Also the end of the process that started this one ends it.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        drop(input);
    });
    let threads: Vec<_> = (0..THREADS)
        .map(|number| {
            let shared = shared.clone();
            let random = Random::new(seed * THREADS as u64 + number as u64);
            thread::spawn(move || read(&shared, number, random))
        })
        .collect();
    while input_ended.recv_timeout(REPORT) == Err(RecvTimeoutError::Timeout) {
        report(&shared);
        // One that ends now has found something wrong, and said so.
        if threads.iter().any(|thread| thread.is_finished()) {
            std::process::exit(1);
        }
    }
    shared.stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().expect("every byte is right");
    }
    report(&shared);
}

/// Prints the tally of each thread.
fn report(shared: &Shared) {
    let lines = shared
        .tallies
        .iter()
        .map(|tally| tally.lock().unwrap().to_line());
    let line: Vec<String> = lines.collect();
    // The other end may be gone, and with it the reason to go on.
    let _ = writeln!(std::io::stdout(), "{}", line.join(","));
}

fn subjects(mount: &Path, oracle: &Path) -> Vec<Subject> {
    let mut subjects = Vec::new();
    let mut pending = vec![oracle.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
                continue;
            }
            // SAFETY: nothing writes to what was written for this.
            let expected = unsafe { Mmap::map(&File::open(&path).unwrap()) }.unwrap();
            let path = mount.join(path.strip_prefix(oracle).unwrap());
            subjects.push(Subject { path, expected });
        }
    }
    subjects.sort_by(|a, b| a.path.cmp(&b.path));
    subjects
}

/// Opens one file after the other, and reads some of each: here and there, or on and on.
fn read(shared: &Shared, number: usize, mut random: Random) {
    while !shared.stop.load(Ordering::Relaxed) {
        let subject = &shared.subjects[random.below(shared.subjects.len())];
        let mut opened = Opened::new(&subject.path)
            .unwrap_or_else(|e| panic!("{}: cannot be opened: {e}", subject.path.display()));
        for _ in 0..1 + random.below(8) {
            if random.one_in(4) {
                on_and_on(shared, number, subject, &mut opened, &mut random)
            } else {
                here_and_there(shared, number, subject, &mut opened, &mut random)
            }
        }
    }
}

fn here_and_there(
    shared: &Shared,
    number: usize,
    subject: &Subject,
    opened: &mut Opened,
    random: &mut Random,
) {
    let way = random.below(WAYS.len());
    for _ in 0..16 {
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        // Also past the end.
        let offset = random.below(subject.expected.len() + PAGE as usize) as u64;
        let magnitude = random.below(15);
        let len = 1 + random.below(1 << magnitude);
        check(shared, number, subject, opened, way, offset, len);
        opened.forget(offset, len as u64).unwrap();
    }
}

fn on_and_on(
    shared: &Shared,
    number: usize,
    subject: &Subject,
    opened: &mut Opened,
    random: &mut Random,
) {
    let way = random.below(WAYS.len());
    let step = 1 << (9 + random.below(8));
    let start = random.below(subject.expected.len()) as u64;
    let mut offset = start;
    for _ in 0..32 {
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        check(shared, number, subject, opened, way, offset, step);
        offset += step as u64;
    }
    opened.forget(start, offset - start).unwrap();
}

/// Reads a range by a way, and panics if it is not what is expected.
fn check(
    shared: &Shared,
    number: usize,
    subject: &Subject,
    opened: &mut Opened,
    way: usize,
    offset: u64,
    len: usize,
) {
    let size = subject.expected.len();
    let start = size.min(offset as usize);
    let expected = &subject.expected[start..size.min(start + len)];
    let mut count = None;
    let result = opened.read(way, offset, len, &mut |bytes| {
        assert_eq!(count.replace(bytes.len()), None);
        let differs = || bytes.iter().zip(expected).position(|(a, b)| a != b);
        assert!(
            bytes == expected,
            "{}: {len} bytes at {offset} by {}: {} bytes instead of {}, {:?} is the first to differ",
            subject.path.display(),
            WAYS[way].name,
            bytes.len(),
            expected.len(),
            differs(),
        );
    });
    if let Err(error) = result {
        let (path, way) = (subject.path.display(), WAYS[way].name);
        panic!("{path}: {len} bytes at {offset} by {way}: {error}");
    }
    let count = count.expect("something was checked");
    shared.tallies[number]
        .lock()
        .unwrap()
        .count(way, count as u64);
}
