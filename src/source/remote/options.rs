//! How sources beyond this machine are read.

use std::env;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::source::remote::hub::HubOptions;
use crate::source::remote::pins::Pins;

/// How sources beyond this machine are read.
#[derive(Debug, Clone)]
pub struct NetworkOptions {
    /// Read sources whose server says nothing by which another content of the same length could be
    /// noticed.
    pub allow_unpinned: bool,
    /// Use unencrypted connections to other machines too.
    pub allow_http: bool,
    /// Time without any progress after which a read fails.
    pub give_up: Duration,
    /// Time without a byte after which a transfer is started again.
    pub stall: Duration,
    /// Bytes of sources that are kept in memory.
    pub memory: u64,
    /// Where blocks that were read are kept on disk.
    pub block_cache: Option<BlockCacheOptions>,
    /// Once it is set, all who wait for the network are told that they are interrupted.
    pub stop: Arc<AtomicBool>,
    /// The Hub.
    pub hub: HubOptions,
    /// Names and values of settings of object stores, as the environment has them: `AWS_…`,
    /// `GOOGLE_…`, `AZURE_…`.
    pub stores: Vec<(String, String)>,
    /// What is known of sources without asking for it.
    pub pins: Option<Arc<Pins>>,
    /// Note what is learned of sources, for [`Network::recorded`](crate::source::remote::Network::recorded).
    pub record_pins: bool,
}

/// Where blocks are kept on disk.
#[derive(Debug, Clone)]
pub struct BlockCacheOptions {
    pub directory: PathBuf,
    /// Maximum bytes on disk; by default a tenth of the free space and what is cached.
    pub max_bytes: Option<u64>,
}

impl Default for NetworkOptions {
    /// Nothing of the environment, and no cache on disk.
    fn default() -> Self {
        NetworkOptions {
            allow_unpinned: false,
            allow_http: false,
            give_up: Duration::from_secs(60),
            stall: Duration::from_secs(10),
            memory: 96 << 20,
            block_cache: None,
            stop: Arc::default(),
            hub: HubOptions::default(),
            stores: Vec::new(),
            pins: None,
            record_pins: false,
        }
    }
}

impl NetworkOptions {
    /// Fails reads after `timeout` without any progress.
    pub fn give_up_after(mut self, timeout: Duration) -> Self {
        /// A transfer is started again this many times before a read fails.
        const STALLS: u32 = 6;
        self.give_up = timeout;
        self.stall = (timeout / STALLS).max(Duration::from_secs(1));
        self
    }

    /// What the environment says.
    pub fn from_environment() -> Self {
        let is_of_store = |name: &str| {
            let mut prefixes = ["AWS_", "GOOGLE_", "AZURE_"].into_iter();
            prefixes.any(|prefix| name.starts_with(prefix))
        };
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        NetworkOptions {
            hub: HubOptions::from_environment(),
            stores: env::vars_os()
                .filter_map(text)
                .filter(|(name, _)| is_of_store(name))
                .collect(),
            ..NetworkOptions::default()
        }
    }
}
