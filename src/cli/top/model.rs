//! What `ckptfs top` knows: the last two snapshots of a mount, and what follows from them.

use std::time::Duration;

use ckptfs::fuse::Answer;
use ckptfs::stats::{FileStats, Latency, ServedStats, Snapshot};

/// The state of the screen.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) mountpoint: String,
    latest: Option<Snapshot>,
    before: Option<Snapshot>,
    /// Why the figures are not of now.
    pub(super) problem: Option<String>,
    pub(super) order: Order,
}

/// What the files are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Rate,
    Bytes,
    Path,
}

/// What is shown, of one moment.
#[derive(Debug)]
pub(super) struct Figures<'a> {
    pub(super) now: &'a Snapshot,
    /// Bytes a second, by kind.
    pub(super) rates: ServedStats,
    pub(super) reads_per_second: f64,
    pub(super) tiles_per_second: f64,
    /// Since the snapshot before; `None` if no tile was looked up, or computed.
    pub(super) hits_and_misses: Option<(u64, u64)>,
    pub(super) p50_and_p99_us: Option<(f64, f64)>,
    /// In the order that was asked for.
    pub(super) files: Vec<FileFigures<'a>>,
}

/// What is shown of a file.
#[derive(Debug)]
pub(super) struct FileFigures<'a> {
    pub(super) file: &'a FileStats,
    /// Bytes a second.
    pub(super) rate: u64,
}

impl Order {
    pub(super) fn next(self) -> Self {
        match self {
            Order::Rate => Order::Bytes,
            Order::Bytes => Order::Path,
            Order::Path => Order::Rate,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Order::Rate => "rate",
            Order::Bytes => "bytes read",
            Order::Path => "path",
        }
    }
}

impl Model {
    pub(super) fn new(mountpoint: String) -> Self {
        Model {
            mountpoint,
            latest: None,
            before: None,
            problem: None,
            order: Order::Rate,
        }
    }

    /// Takes in what the mount answered within `timeout`; `None` if it did not.
    pub(super) fn take(&mut self, answer: Option<Answer>, timeout: Duration) {
        self.problem = match answer {
            Some(Answer::Figures(snapshot)) => {
                let same_mount = |latest: &Snapshot| {
                    latest.pid == snapshot.pid && latest.uptime_seconds < snapshot.uptime_seconds
                };
                self.before = self.latest.take().filter(same_mount);
                self.latest = Some(*snapshot);
                None
            }
            Some(Answer::Dead) => Some(format!(
                "the process that served it is gone; clear it with: ckptfs unmount {}",
                self.mountpoint
            )),
            Some(Answer::Unreadable { why, .. }) => Some(why),
            None => Some(format!(
                "it has not answered for {} s or more",
                timeout.as_secs_f64()
            )),
        };
    }

    /// What to show; `None` before there was an answer.
    pub(super) fn figures(&self) -> Option<Figures<'_>> {
        let now = self.latest.as_ref()?;
        let before = self.before.as_ref();
        let seconds = before.map_or(f64::INFINITY, |before| {
            (now.uptime_seconds - before.uptime_seconds).max(1e-3)
        });
        let rate = |now: u64, before: Option<u64>| {
            (now.saturating_sub(before.unwrap_or(now)) as f64 / seconds) as u64
        };
        let served = before.map(|before| before.served);
        let files = now.files.iter().map(|file| FileFigures {
            file,
            // What was not among the files before was not read then, or long ago.
            rate: match before {
                None => 0,
                Some(before) => {
                    let same = before.files.iter().find(|other| other.path == file.path);
                    rate(
                        file.read_bytes,
                        Some(same.map_or(0, |same| same.read_bytes)),
                    )
                }
            },
        });
        let mut files: Vec<FileFigures> = files.collect();
        let (order, path) = (self.order, |f: &FileFigures| f.file.path.clone());
        files.sort_by(|a, b| match order {
            Order::Rate => b.rate.cmp(&a.rate),
            Order::Bytes => b.file.read_bytes.cmp(&a.file.read_bytes),
            Order::Path => path(a).cmp(&path(b)),
        });
        let (hits, misses) = before.map_or((0, 0), |before| {
            (
                now.cache.hits.saturating_sub(before.cache.hits),
                now.cache.misses.saturating_sub(before.cache.misses),
            )
        });
        let news = before.map(|before| now.tiles.latency.since(&before.tiles.latency));
        let news = news.unwrap_or_default();
        let quantile = |part| Latency::quantile(&news, part);
        Some(Figures {
            rates: ServedStats {
                computed_bytes: rate(now.served.computed_bytes, served.map(|s| s.computed_bytes)),
                spliced_bytes: rate(now.served.spliced_bytes, served.map(|s| s.spliced_bytes)),
                made_bytes: rate(now.served.made_bytes, served.map(|s| s.made_bytes)),
                persisted_bytes: rate(
                    now.served.persisted_bytes,
                    served.map(|s| s.persisted_bytes),
                ),
            },
            reads_per_second: before.map_or(0.0, |before| {
                let reads = now.requests.reads;
                reads.saturating_sub(before.requests.reads) as f64 / seconds
            }),
            tiles_per_second: news.iter().map(|bucket| bucket.count).sum::<u64>() as f64 / seconds,
            hits_and_misses: (hits + misses > 0).then_some((hits, misses)),
            p50_and_p99_us: quantile(0.5).zip(quantile(0.99)),
            files,
            now,
        })
    }
}
