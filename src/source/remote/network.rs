//! What all remote sources of a process share: connections, threads, memory, and a cache on disk.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::Client;
use tokio::runtime::Runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Code, Error, Result};
use crate::source::remote::blocks::{BLOCK, Blocks};
use crate::source::remote::cache::BlockCache;
use crate::source::remote::client;
use crate::source::remote::options::NetworkOptions;
use crate::source::remote::pins::Pins;
use crate::source::remote::recorder::Recorder;
use crate::source::remote::streams::Credit;
use crate::source::remote::transfer::Patience;

/// Requests in flight at once for bytes that somebody waits for.
pub(super) const AT_ONCE: usize = 64;

/// The same for bytes ahead of readers.
const AT_ONCE_AHEAD: usize = 32;

/// Blocks that wait to be written to disk.
const WAITING_TO_WRITE: usize = 48;

/// Most bytes ahead of a reader, where they go to disk.
const MOST_AHEAD: u64 = 128 << 20;

/// Reads sources beyond this machine. All that are opened by one share its connections and its memory.
pub struct Network {
    options: NetworkOptions,
    client: Client,
    blocks: Blocks,
    credit: Credit,
    cache: Option<BlockCache>,
    asked: Arc<Semaphore>,
    ahead: Arc<Semaphore>,
    writing: Arc<Semaphore>,
    ids: AtomicU64,
    recorder: Recorder,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// What [`Network::shared`] gives.
static SHARED: Mutex<Shared> = Mutex::new(Shared {
    options: None,
    network: None,
});

struct Shared {
    /// What was chosen.
    options: Option<NetworkOptions>,
    /// Made of that when it was first asked for.
    network: Option<Arc<Network>>,
}

impl Network {
    /// A network of these `options`.
    ///
    /// # Errors
    /// If this machine cannot make encrypted connections.
    pub fn new(options: NetworkOptions) -> Result<Arc<Self>> {
        let client = client::new(options.stall, Some(options.stall))?;
        let cache = options.block_cache.as_ref().map(BlockCache::new);
        Ok(Arc::new(Network {
            client,
            blocks: Blocks::new(options.memory),
            credit: Credit::default(),
            cache,
            asked: Arc::new(Semaphore::new(AT_ONCE)),
            ahead: Arc::new(Semaphore::new(AT_ONCE_AHEAD)),
            writing: Arc::new(Semaphore::new(WAITING_TO_WRITE)),
            ids: AtomicU64::new(0),
            recorder: Recorder::new(options.record_pins),
            options,
        }))
    }

    /// The one that URLs are opened by, made when it is first asked for.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn shared() -> Result<Arc<Self>> {
        let mut shared = SHARED.lock();
        if let Some(network) = &shared.network {
            return Ok(network.clone());
        }
        let options = shared.options.clone();
        let network = Network::new(options.unwrap_or_else(NetworkOptions::from_environment))?;
        shared.network = Some(network.clone());
        Ok(network)
    }

    /// Chooses how URLs are opened from now on; what is open stays as it is.
    pub fn choose(options: NetworkOptions) {
        *SHARED.lock() = Shared {
            options: Some(options),
            network: None,
        };
    }

    /// The one that URLs were opened by, if any were.
    pub fn used() -> Option<Arc<Self>> {
        SHARED.lock().network.clone()
    }

    /// Waits, for at most `time`, until all that was fetched to be kept on disk is written.
    pub fn finish_writing(&self, time: Duration) {
        if self.cache.is_none() {
            return;
        }
        let writing = self.writing.clone();
        self.wait_briefly(time, async move {
            drop(writing.acquire_many_owned(WAITING_TO_WRITE as u32).await);
        });
    }

    /// All that was learned of sources so far, where [`NetworkOptions::record_pins`] asks for it. No more is noted
    /// then.
    pub fn recorded(&self) -> Pins {
        self.recorder.take()
    }

    /// Has all who wait for the network be told that they are interrupted, now and later.
    pub fn stop(&self) {
        self.options.stop.store(true, Ordering::Relaxed);
    }

    /// What `future` gives; the thread waits for it.
    ///
    /// # Errors
    /// That of the future, or if all is to stop.
    pub(super) fn wait<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        const LOOK: Duration = Duration::from_millis(100);
        let (send, receive) = crossbeam_channel::bounded(1);
        let task = runtime().spawn(async move {
            let _ = send.send(future.await);
        });
        loop {
            match receive.recv_timeout(LOOK) {
                Ok(result) => return result,
                Err(crossbeam_channel::RecvTimeoutError::Disconnected) => {
                    return Err(Error::new(Code::Internal, "a request ended before its end"));
                }
                Err(_) if self.options.stop.load(Ordering::Relaxed) => {
                    task.abort();
                    return Err(Error::interrupted());
                }
                Err(_) => {}
            }
        }
    }

    /// What `future` gives within `time`, whether all is to stop or not.
    pub(super) fn wait_briefly<T: Send + 'static>(
        &self,
        time: Duration,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (send, receive) = crossbeam_channel::bounded(1);
        let task = runtime().spawn(async move {
            let _ = send.send(future.await);
        });
        let result = receive.recv_timeout(time).ok();
        task.abort();
        result
    }

    pub(super) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        drop(runtime().spawn(future));
    }

    pub(super) fn spawn_blocking(&self, work: impl FnOnce() + Send + 'static) {
        drop(runtime().spawn_blocking(work));
    }

    /// The leave to make a request.
    pub(super) async fn permit(&self, ahead: bool) -> Option<OwnedSemaphorePermit> {
        let requests = if ahead { &self.ahead } else { &self.asked };
        requests.clone().acquire_owned().await.ok()
    }

    /// The leave to have a block wait to be written to disk, unless too many do.
    pub(super) fn try_room_to_write(&self) -> Option<OwnedSemaphorePermit> {
        self.writing.clone().try_acquire_owned().ok()
    }

    /// The same, once no longer too many do.
    pub(super) async fn room_to_write(&self) -> Option<OwnedSemaphorePermit> {
        self.writing.clone().acquire_owned().await.ok()
    }

    pub(super) fn options(&self) -> &NetworkOptions {
        &self.options
    }

    /// What is known without asking.
    pub(super) fn pins(&self) -> Option<&Pins> {
        self.options.pins.as_deref()
    }

    pub(super) fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn patience(&self) -> Patience {
        Patience {
            stall: self.options.stall,
            give_up: self.options.give_up,
        }
    }

    /// Most bytes to fetch ahead of a reader: what is in memory alone must not push itself out.
    pub(super) fn most_ahead(&self, to_disk: bool) -> u64 {
        let in_memory = self.options.memory / 2 / BLOCK * BLOCK;
        if to_disk { MOST_AHEAD } else { in_memory }
    }

    pub(super) fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    pub(super) fn credit(&self) -> &Credit {
        &self.credit
    }

    pub(super) fn cache(&self) -> Option<&BlockCache> {
        self.cache.as_ref()
    }

    pub(super) fn stopped(&self) -> &AtomicBool {
        &self.options.stop
    }

    pub(super) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }
}

/// The threads of the network. They are started when they are first wanted, which a program that
/// forks does afterwards.
pub(super) fn runtime() -> &'static Runtime {
    /// Threads that connections are served by.
    const WORKERS: usize = 2;
    /// Threads that blocks are written to disk by.
    const WRITERS: usize = 4;
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .max_blocking_threads(WRITERS)
            .thread_name("network")
            .enable_io()
            .enable_time()
            .build()
            .expect("the threads of the network can be started")
    })
}
