//! All figures of a mount at one moment, as they are shown and as JSON.

use serde::{Deserialize, Serialize};

use crate::stats::histogram::Latency;

/// The version of the names below. Fields may be added to a version, but not taken away.
pub const SCHEMA: u32 = 1;

/// The figures of a mount. Everything is counted since it was mounted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    pub schema: u32,
    /// The version of ckptfs that serves the mount.
    pub ckptfs: String,
    /// The process that serves the mount, as it is numbered where it runs.
    pub pid: u32,
    /// Where the mount was made; it may have been moved since.
    pub mountpoint: String,
    pub uptime_seconds: f64,
    pub view: ViewStats,
    pub requests: RequestStats,
    pub served: ServedStats,
    pub passthrough: PassthroughStats,
    pub cache: CacheStats,
    pub tiles: TileStats,
    pub facts: FactStats,
    /// The job that writes the view to a directory, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persist: Option<PersistStats>,
    /// What is brought into the page cache beforehand, if that is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefetch: Option<PrefetchStats>,
    /// Files that were read, or opened for passthrough, at all.
    pub files_used: u64,
    /// Of these, the 1,000 that were used last, the latest first.
    pub files: Vec<FileStats>,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ViewStats {
    /// How it was asked for.
    pub request: String,
    /// Directories that it is made from, the base first.
    pub sources: Vec<String>,
    pub files: u64,
    /// Of all its files.
    pub bytes: u64,
}

/// What the kernel asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RequestStats {
    pub reads: u64,
    /// Openings that were asked for; kernels do without most of them.
    pub opens: u64,
    /// Requests that were answered with EIO or the like.
    pub errors: u64,
    /// Openings of files that are open now; null where the kernel opens files without asking.
    pub open_handles: Option<u64>,
}

/// Bytes that requests were answered with, and those that were brought into the page cache before
/// anybody asked. What is read again from the kernel's page cache asks for nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct ServedStats {
    pub computed_bytes: u64,
    /// Copied from a source.
    pub spliced_bytes: u64,
    /// Headers, the index, an edited config.
    pub made_bytes: u64,
    /// Read from the directory that the view is written to.
    #[serde(default)]
    pub persisted_bytes: u64,
}

impl ServedStats {
    pub fn bytes(&self) -> u64 {
        self.computed_bytes + self.spliced_bytes + self.made_bytes + self.persisted_bytes
    }
}

/// Files that the kernel reads straight from a source; it does not tell how much of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct PassthroughStats {
    pub openings: u64,
    /// The sum of the files' lengths over all openings. Less may have been read, or more.
    pub openings_file_bytes: u64,
    pub open_handles: u64,
}

/// The cache of computed tiles.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct CacheStats {
    pub capacity_bytes: u64,
    pub bytes: u64,
    /// Whole inputs that many tiles share, beside the cache.
    pub kept_bytes: u64,
    /// Lookups, by requests and by tiles that are made of others, of a tile that was there or being
    /// computed.
    pub hits: u64,
    /// Lookups that computed the tile.
    pub misses: u64,
}

/// Tiles that were computed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TileStats {
    pub computed: u64,
    /// Of these, before anybody asked.
    pub computed_ahead: u64,
    /// Of one tile: reading its inputs and computing it, without finding facts.
    pub latency: Latency,
}

/// Facts about whole tensors that had to be found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct FactStats {
    /// Tensors whose inputs were streamed.
    pub surveys: u64,
    /// Time that took, all of them added up.
    pub seconds: f64,
}

/// How far the job is that writes the view to a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersistStats {
    pub directory: String,
    pub state: PersistState,
    /// Of the view, and those of them that are complete.
    pub files: u64,
    pub files_complete: u64,
    /// The same in bytes, those of files included that are being written.
    pub bytes: u64,
    pub bytes_written: u64,
    /// Why it failed.
    pub error: Option<String>,
}

/// What the job that writes the view to a directory does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PersistState {
    Writing,
    /// All is written and in its place.
    Complete,
    /// It was told to stop.
    Stopped,
    Failed,
}

/// How much of the view was brought into the page cache before anybody asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrefetchStats {
    pub state: PrefetchState,
    /// Of all files.
    pub bytes: u64,
    /// Those that were brought, or passed over since somebody read them before.
    pub bytes_done: u64,
}

/// What prefetching does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrefetchState {
    Reading,
    Complete,
    /// More would have pushed others out of memory.
    NoMemory,
    /// The mount ended.
    Stopped,
}

/// What is known of one file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileStats {
    /// In the view.
    pub path: String,
    pub file_bytes: u64,
    /// Bytes that requests for it were answered with.
    pub read_bytes: u64,
    pub reads: u64,
    pub passthrough_openings: u64,
}
