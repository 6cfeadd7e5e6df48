//! The figures of a mount, put together from what its reader and its requests counted.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use crate::fuse::options::MountOptions;
use crate::fuse::persist::Job;
use crate::fuse::prefetch::Prefetch;
use crate::fuse::server::Persisted;
use crate::read::Reader;
use crate::source::Location;
use crate::stats::{SCHEMA, Serving, Snapshot, ViewStats};

/// What a mount can tell about itself, at any time and from any thread.
#[derive(Debug)]
pub struct Figures {
    pub(super) reader: Arc<Reader>,
    pub(super) serving: Serving,
    /// The job that writes the view to a directory, if there is one.
    pub(super) persist: Option<Arc<Job>>,
    /// What is brought into the page cache beforehand, if that is wanted.
    pub(super) prefetch: Option<Arc<Prefetch>>,
    about: About,
    began: Instant,
}

/// What does not change while a view is mounted.
#[derive(Debug)]
pub(super) struct About {
    pub(super) mountpoint: PathBuf,
    pub(super) request: String,
    pub(super) sources: Vec<Location>,
}

impl Figures {
    pub(super) fn new(reader: Arc<Reader>, about: About) -> Self {
        Figures {
            serving: Serving::new(reader.view().len()),
            persist: None,
            prefetch: None,
            reader,
            about,
            began: Instant::now(),
        }
    }

    /// The same of a view that is written to a directory, if `options` say so.
    pub(super) fn persisting(self, options: &MountOptions) -> Self {
        let persist = options.persist.as_ref().map(|persist| {
            let persisted = Persisted::new(persist.clone(), self.reader.view().clone());
            Arc::new(Job::new(Arc::new(persisted), options.spelling))
        });
        Figures { persist, ..self }
    }

    /// The same of a view that is brought into the page cache, if `options` say so.
    pub(super) fn prefetching(self, options: &MountOptions) -> Self {
        let prefetch = options
            .prefetch
            .map(|_| Arc::new(Prefetch::new(self.reader.clone(), options.spelling)));
        Figures { prefetch, ..self }
    }

    /// What is complete of the view in a directory.
    pub(super) fn persisted(&self) -> Option<Arc<Persisted>> {
        Some(self.persist.as_ref()?.persisted.clone())
    }

    /// The figures now. Those that change at the same time may be of different moments.
    pub fn snapshot(&self) -> Snapshot {
        /// Files that are told of one by one.
        const FILES: usize = 1000;
        let view = self.reader.view();
        let (files, files_used) = self.serving.file_stats(FILES, |id| {
            let len = view.file(id).map_or(0, |file| file.len());
            (view.path(id).to_string_lossy().into_owned(), len)
        });
        let lens = (0..view.len()).filter_map(|id| Some(view.file(id)?.len()));
        let sources = self.about.sources.iter();
        let reading = self.reader.stats();
        let (count, bytes) = (lens.clone().count() as u64, lens.sum());
        Snapshot {
            schema: SCHEMA,
            ckptfs: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            mountpoint: self.about.mountpoint.to_string_lossy().into_owned(),
            uptime_seconds: self.began.elapsed().as_secs_f64(),
            view: ViewStats {
                request: self.about.request.clone(),
                sources: sources
                    .map(|source| source.as_path().to_string_lossy().into_owned())
                    .collect(),
                files: count,
                bytes,
            },
            requests: self.serving.request_stats(),
            served: reading.served_stats(),
            passthrough: self.serving.passthrough_stats(),
            cache: self.reader.cache_stats(),
            tiles: reading.tile_stats(),
            facts: reading.fact_stats(),
            persist: self.persist.as_ref().map(|job| job.stats(count, bytes)),
            prefetch: self.prefetch.as_ref().map(|prefetch| prefetch.stats()),
            files_used,
            files,
        }
    }
}
