//! The counters. All are raised with relaxed atomics: what is counted at the same time may be seen
//! in any order, and nothing is lost.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::stats::histogram::Histogram;
use crate::stats::snapshot::{
    FactStats, FileStats, PassthroughStats, RequestStats, ServedStats, TileStats,
};

/// Where bytes that a reader was given came from.
#[derive(Debug, Clone, Copy)]
pub enum Origin {
    /// Made when the view was planned.
    Made,
    /// Copied from a source.
    Spliced,
    Computed,
    /// Read from the directory that the view is written to.
    Persisted,
}

/// Bytes of one answer, by origin.
#[derive(Debug, Clone, Copy, Default)]
pub struct Served([u64; 4]);

impl Served {
    pub fn add(&mut self, origin: Origin, bytes: u64) {
        self.0[origin as usize] += bytes;
    }

    /// An answer of `bytes` bytes of one origin.
    pub fn new(origin: Origin, bytes: u64) -> Self {
        let mut served = Served::default();
        served.add(origin, bytes);
        served
    }
}

/// What a reader of a view counts.
#[derive(Debug, Default)]
pub struct Reading {
    served: [AtomicU64; 4],
    hits: AtomicU64,
    misses: AtomicU64,
    tiles_ahead: AtomicU64,
    tiles: Histogram,
    surveys: AtomicU64,
    survey_nanos: AtomicU64,
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Reading {
    /// An answer was complete.
    pub fn served(&self, served: Served) {
        for (counter, bytes) in self.served.iter().zip(served.0) {
            if bytes > 0 {
                add(counter, bytes);
            }
        }
    }

    /// A tile was looked up and was there, or being computed by another.
    pub fn hit(&self) {
        add(&self.hits, 1);
    }

    /// A tile was looked up and had to be computed.
    pub fn miss(&self) {
        add(&self.misses, 1);
    }

    /// A tile was computed in `time`.
    pub fn tile(&self, time: Duration) {
        self.tiles.note(time);
    }

    /// A tile was computed before anybody asked for it.
    pub fn tile_ahead(&self) {
        add(&self.tiles_ahead, 1);
    }

    /// Sources were streamed for facts about a tensor.
    pub fn survey(&self, time: Duration) {
        add(&self.surveys, 1);
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        add(&self.survey_nanos, nanos);
    }

    pub fn served_stats(&self) -> ServedStats {
        let [made, spliced, computed, persisted] = &self.served;
        ServedStats {
            computed_bytes: get(computed),
            spliced_bytes: get(spliced),
            made_bytes: get(made),
            persisted_bytes: get(persisted),
        }
    }

    /// How often tiles were found, and how often not.
    pub fn hits_and_misses(&self) -> (u64, u64) {
        (get(&self.hits), get(&self.misses))
    }

    pub fn tile_stats(&self) -> TileStats {
        let latency = self.tiles.latency();
        TileStats {
            computed: latency.count,
            computed_ahead: get(&self.tiles_ahead),
            latency,
        }
    }

    pub fn fact_stats(&self) -> FactStats {
        FactStats {
            surveys: get(&self.surveys),
            seconds: get(&self.survey_nanos) as f64 / 1e9,
        }
    }
}

/// What is counted of one file of a view.
#[derive(Debug, Default)]
struct OfFile {
    bytes: AtomicU64,
    reads: AtomicU64,
    passthrough_openings: AtomicU64,
    /// The number of the last request that read it or opened it for passthrough, from 1.
    last: AtomicU64,
}

/// What an outlet that answers requests counts.
#[derive(Debug)]
pub struct Serving {
    opens: AtomicU64,
    errors: AtomicU64,
    /// Openings less closings, of files that are not passed through.
    handles: AtomicU64,
    /// Whether files are opened without a request now.
    opens_unseen: AtomicBool,
    passthrough_openings: AtomicU64,
    passthrough_bytes: AtomicU64,
    passthrough_handles: AtomicU64,
    /// Of files, to read or to open for passthrough.
    requests: AtomicU64,
    files: Box<[OfFile]>,
}

impl Serving {
    /// Counters for files that are numbered below `files`.
    pub fn new(files: usize) -> Self {
        Serving {
            opens: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            handles: AtomicU64::new(0),
            opens_unseen: AtomicBool::new(false),
            passthrough_openings: AtomicU64::new(0),
            passthrough_bytes: AtomicU64::new(0),
            passthrough_handles: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            files: (0..files).map(|_| OfFile::default()).collect(),
        }
    }

    /// A request to read file `id` was answered with `bytes` bytes.
    pub fn read(&self, id: usize, bytes: u64) {
        if let Some(file) = self.files.get(id) {
            add(&file.reads, 1);
            add(&file.bytes, bytes);
            self.touch(file);
        }
    }

    /// A request was answered with an error that is not the asker's own.
    pub fn error(&self) {
        add(&self.errors, 1);
    }

    /// There was a request to open a file.
    pub fn open_requested(&self) {
        add(&self.opens, 1);
    }

    /// A file was opened, to be read by requests.
    pub fn opened(&self) {
        add(&self.handles, 1);
    }

    pub fn closed(&self) {
        self.handles.fetch_sub(1, Ordering::Relaxed);
    }

    /// From now on files are opened without a request.
    pub fn opens_are_unseen(&self) {
        self.opens_unseen.store(true, Ordering::Relaxed);
    }

    /// File `id` of `len` bytes was opened, to be read without requests.
    pub fn opened_passthrough(&self, id: usize, len: u64) {
        add(&self.passthrough_openings, 1);
        add(&self.passthrough_bytes, len);
        add(&self.passthrough_handles, 1);
        if let Some(file) = self.files.get(id) {
            add(&file.passthrough_openings, 1);
            self.touch(file);
        }
    }

    pub fn closed_passthrough(&self) {
        self.passthrough_handles.fetch_sub(1, Ordering::Relaxed);
    }

    fn touch(&self, file: &OfFile) {
        let number = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        // Of two at once either may stay: they are as good as the same.
        file.last.store(number, Ordering::Relaxed);
    }

    pub fn request_stats(&self) -> RequestStats {
        RequestStats {
            reads: self.files.iter().map(|file| get(&file.reads)).sum(),
            opens: get(&self.opens),
            errors: get(&self.errors),
            open_handles: if self.opens_unseen.load(Ordering::Relaxed) {
                None
            } else {
                Some(get(&self.handles))
            },
        }
    }

    pub fn passthrough_stats(&self) -> PassthroughStats {
        PassthroughStats {
            openings: get(&self.passthrough_openings),
            openings_file_bytes: get(&self.passthrough_bytes),
            open_handles: get(&self.passthrough_handles),
        }
    }

    /// The `most` files that were used last, the latest first, and how many were used at all;
    /// `describe` gives the path and length of a file.
    pub fn file_stats(
        &self,
        most: usize,
        describe: impl Fn(usize) -> (String, u64),
    ) -> (Vec<FileStats>, u64) {
        let files = self.files.iter().enumerate();
        let used = files.filter_map(|(id, file)| {
            let last = get(&file.last);
            (last > 0).then_some((last, id))
        });
        let mut used: Vec<(u64, usize)> = used.collect();
        let count = used.len() as u64;
        used.sort_unstable_by(|a, b| b.cmp(a));
        used.truncate(most);
        let stats = used.into_iter().map(|(_, id)| {
            let (path, len) = describe(id);
            let file = &self.files[id];
            FileStats {
                path,
                file_bytes: len,
                read_bytes: get(&file.bytes),
                reads: get(&file.reads),
                passthrough_openings: get(&file.passthrough_openings),
            }
        });
        (stats.collect(), count)
    }
}
