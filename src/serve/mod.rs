//! A view over HTTP: as a repository of the Hugging Face Hub, read-only, and as plain files.
//!
//! [`routes`], [`ranges`] and [`etag`] are functions of what a client sends; `answer.rs` makes a response of
//! them, `body.rs` sends bytes, `connections.rs` has the limits. All of it runs on a runtime of its own.

mod answer;
mod body;
mod connections;
pub mod etag;
mod files;
mod form;
mod hub;
mod listing;
mod options;
pub mod ranges;
mod repo;
pub mod routes;
mod stalling;
mod token;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use crate::jobs;
use crate::read::{ReadAhead, Reader};

pub use options::Options;
pub use repo::RepoName;
pub use token::Token;

use answer::Answers;
use body::Source;
use connections::Stop;
use files::Files;

/// A view that is being served. Dropping it stops the server at once.
#[derive(Debug)]
#[must_use]
pub struct Serving {
    address: SocketAddr,
    commit: String,
    stopper: Stopper,
    thread: Option<JoinHandle<usize>>,
}

/// Stops a server from another thread.
#[derive(Debug, Clone)]
pub struct Stopper(Arc<watch::Sender<Stop>>);

/// Serves what `reader` reads to those who connect to `listener`, until it is stopped.
///
/// # Errors
/// If there are no threads for it, or the listener is of no use.
pub fn serve(reader: Arc<Reader>, listener: TcpListener, options: Options) -> io::Result<Serving> {
    /// Bytes of a file to be ahead of its reader.
    const WINDOW: u64 = 8 << 20;
    let address = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    let runtime = runtime()?;
    let listener = {
        let _inside = runtime.enter();
        tokio::net::TcpListener::from_std(listener)?
    };
    let files = Files::new(reader.view());
    let ahead = ReadAhead::start(reader.clone(), WINDOW, jobs::processors())?;
    let source = Source::new(reader, Some(ahead), options.spelling);
    let (name, token) = (options.name.clone(), options.token.clone());
    let answers = Arc::new(Answers::new(name, token, files, Arc::new(source)));
    let commit = answers.commit().to_owned();
    let (stop, stopped) = watch::channel(Stop::No);
    let thread = thread::Builder::new().name("serve".to_owned());
    let thread = thread.spawn(move || {
        let cut = runtime.block_on(connections::serve(listener, answers, &options, stopped));
        // What is still being read is read for nobody.
        runtime.shutdown_background();
        cut
    })?;
    Ok(Serving {
        address,
        commit,
        stopper: Stopper(Arc::new(stop)),
        thread: Some(thread),
    })
}

fn runtime() -> io::Result<Runtime> {
    /// What copies bytes to connections; what computes has threads of its own.
    const WORKERS: usize = 2;
    /// Readers may wait for slow sources, and while they do others compute.
    const READERS_PER_PROCESSOR: usize = 4;
    const MIN_READERS: usize = 16;
    Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(MIN_READERS.max(READERS_PER_PROCESSOR * jobs::processors()))
        .thread_name("serve")
        .enable_all()
        .build()
}

impl Serving {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The commit that clients see: another view, or other sources, have another one.
    pub fn commit(&self) -> &str {
        &self.commit
    }

    /// What stops it.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Waits until it has stopped. Returns how many connections were cut off.
    ///
    /// # Errors
    /// If the server panicked.
    pub fn wait(mut self) -> thread::Result<usize> {
        self.thread.take().map_or(Ok(0), JoinHandle::join)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stopper.stop_now();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so itself.
            let _ = thread.join();
        }
    }
}

impl Stopper {
    /// Takes no more requests, and lets transfers end within the time that they have for it; the second
    /// time, stops at once.
    pub fn stop(&self) {
        self.0.send_modify(|stop| {
            *stop = match stop {
                Stop::No => Stop::Soon,
                Stop::Soon | Stop::Now => Stop::Now,
            };
        });
    }

    /// Cuts transfers off.
    pub fn stop_now(&self) {
        self.0.send_replace(Stop::Now);
    }
}
