//! How sources at URLs are read.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Once};
use std::time::Duration;

use ckptfs::recipe::parse_size;
use ckptfs::source::Location;
use ckptfs::source::remote::{BlockCacheOptions, Network, NetworkOptions, Pins};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::errors::exception;

/// Whether all who wait for the network are to give up.
static STOP: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);
/// Done once it is known how URLs are read.
static CHOSEN: Once = Once::new();

/// Has all who wait for the network give up, or wait as ever.
pub(crate) fn interrupt(stop: bool) {
    STOP.store(stop, Ordering::Relaxed);
}

/// Reads URLs as the environment says, unless something else was chosen.
pub(crate) fn prepare() {
    CHOSEN.call_once(|| Network::choose(interruptible(NetworkOptions::from_environment())));
}

fn interruptible(options: NetworkOptions) -> NetworkOptions {
    NetworkOptions {
        stop: STOP.clone(),
        ..options
    }
}

/// Makes this how views that are made from now on read URLs.
#[pyfunction]
#[pyo3(signature = (*, allow_unpinned, allow_http, network_timeout, block_cache, block_cache_size, pinned))]
pub(crate) fn network(
    allow_unpinned: bool,
    allow_http: bool,
    network_timeout: u64,
    block_cache: Option<PathBuf>,
    block_cache_size: Option<String>,
    pinned: Option<PathBuf>,
) -> PyResult<()> {
    let size = block_cache_size.map(|text| parse_size(&text)).transpose();
    let max_bytes =
        size.map_err(|problem| PyValueError::new_err(format!("block_cache_size: {problem}")))?;
    let pins = pinned.as_deref().map(|path| {
        Location::from(path).check_local("a pin file")?;
        Pins::read(path)
    });
    let pins = pins.transpose();
    let pins = pins.map_err(|error| exception(&error))?;
    let options = NetworkOptions {
        allow_unpinned,
        allow_http,
        block_cache: block_cache
            .filter(|_| max_bytes != Some(0))
            .map(|directory| BlockCacheOptions {
                directory,
                max_bytes,
            }),
        pins: pins.map(Arc::new),
        ..NetworkOptions::from_environment()
    };
    let options = options.give_up_after(Duration::from_secs(network_timeout));
    CHOSEN.call_once(|| {});
    Network::choose(interruptible(options));
    Ok(())
}
