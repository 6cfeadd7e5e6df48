//! How sources beyond this machine are read, as flags.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use clap::Args;

use ckptfs::error::setting::PINNED;
use ckptfs::recipe::parse_size;
use ckptfs::source::Location;
use ckptfs::source::remote::{BlockCacheOptions, Network, NetworkOptions, Pins};

use crate::cli::purpose::Purpose;

/// The heading of these flags.
const REMOTE: &str = "Sources at URLs";

/// Whether a signal has come that stops the job.
pub(crate) static STOP: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// The flags.
#[derive(Debug, Args)]
pub(crate) struct NetworkArgs {
    /// Read sources whose server reports neither an entity tag nor a time of modification. A change
    /// of such a source is not noticed
    #[arg(long, help_heading = REMOTE)]
    allow_unpinned: bool,

    /// Allow unencrypted connections to other machines
    #[arg(long, help_heading = REMOTE)]
    allow_http: bool,

    /// Seconds without any progress after which a read from a server fails
    #[arg(long, help_heading = REMOTE, value_name = "SECONDS", default_value = "60", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    network_timeout: u64,

    /// Keep data that was read from servers in DIR [default for mounts: ckptfs in the user's cache
    /// directory; other commands keep none]
    #[arg(long, help_heading = REMOTE, value_name = "DIR")]
    block_cache: Option<PathBuf>,

    /// Maximum size of the block cache; 0 for none [default: a tenth of the free space]
    #[arg(long, help_heading = REMOTE, value_name = "SIZE", value_parser = parse_size)]
    block_cache_size: Option<u64>,

    /// Take listings, pins and headers from FILE, which plan --pin made, and ask servers for none of them
    #[arg(long, help_heading = REMOTE, value_name = "FILE")]
    pinned: Option<PathBuf>,
}

impl NetworkArgs {
    /// Makes this how URLs are opened. A cache in a place that nobody named is for mounts.
    ///
    /// # Errors
    /// If the pin file cannot be read.
    pub(crate) fn choose(&self, purpose: Purpose) -> ckptfs::Result<()> {
        let pins = self.pinned.as_deref().map(|path| {
            Location::from(path).check_local("a pin file")?;
            Pins::read(path)
        });
        let pins = pins.transpose().map_err(|error| error.about(PINNED))?;
        let usual = || usual_directory().filter(|_| purpose == Purpose::Mount);
        let directory = self.block_cache.clone().or_else(usual);
        // A mount leaves the directory that it was started in.
        let directory = directory.map(|path| std::path::absolute(&path).unwrap_or(path));
        let directory = directory.filter(|_| self.block_cache_size != Some(0));
        let options = NetworkOptions {
            allow_unpinned: self.allow_unpinned,
            allow_http: self.allow_http,
            block_cache: directory.map(|directory| BlockCacheOptions {
                directory,
                max_bytes: self.block_cache_size,
            }),
            stop: STOP.clone(),
            pins: pins.map(Arc::new),
            record_pins: purpose == Purpose::Pin,
            ..NetworkOptions::from_environment()
        };
        Network::choose(options.give_up_after(Duration::from_secs(self.network_timeout)));
        Ok(())
    }
}

/// Has what was fetched be in the block cache before the program ends, as far as that takes no longer than a disk
/// that works needs.
pub(crate) fn finish() {
    const LONGEST: Duration = Duration::from_secs(2);
    if let Some(network) = Network::used() {
        network.finish_writing(LONGEST);
    }
}

/// The directory for caches of this user.
fn usual_directory() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let caches = variable("XDG_CACHE_HOME").map(PathBuf::from);
    let caches = caches.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".cache")));
    Some(caches?.join("ckptfs"))
}
