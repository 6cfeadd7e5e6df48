//! Sends files as objects: threads compute parts, and others send them.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender as Channel};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::error::{Code, Error, Result};
use crate::jobs::{self, Progress, check_going_on};
use crate::manifest::Sha256Sum;
use crate::materialize::options::Options;
use crate::materialize::upload::parts;
use crate::materialize::upload::room::{Room, Taken};
use crate::materialize::upload::state::{Record, Sent, State};
use crate::materialize::upload::store_file::StoreFile;
use crate::memory;
use crate::read::{FactsCache, Reader};
use crate::recipe::Plan;
use crate::source::remote::{Bucket, Part, Upload};

/// Parts that are sent at once.
const AT_ONCE: usize = 32;

/// Bytes of parts that are computed, or on their way.
const ROOM: u64 = 256 << 20;

/// Bytes that are read at once.
const CHUNK: usize = 1 << 20;

/// Sends files of a view.
pub(super) struct Sender<'a> {
    reader: Reader,
    bucket: &'a Bucket,
    options: &'a Options,
    progress: &'a dyn Progress,
    room: Room,
}

impl<'a> Sender<'a> {
    /// Tiles are read once and in order; only scales may be wanted after their tiles are gone.
    const CACHE_BYTES: usize = 64 << 20;

    pub(super) fn new(
        plan: &Plan,
        bucket: &'a Bucket,
        options: &'a Options,
        progress: &'a dyn Progress,
    ) -> Result<Self> {
        let mut reader = Reader::new(plan.view.clone(), Self::CACHE_BYTES);
        if options.direct_sources {
            reader = reader.with_direct_sources();
        }
        if let Some(directory) = &options.facts_cache {
            reader = reader.with_facts_cache(FactsCache::new(directory)?);
        }
        Ok(Sender {
            reader,
            bucket,
            options,
            progress,
            room: Room::new(ROOM),
        })
    }

    /// Makes objects of `files`, and records those that are worth it. `state` is what there was.
    pub(super) fn send(
        &self,
        files: &[&StoreFile],
        state: &State,
    ) -> Result<BTreeMap<String, Sent>> {
        let mut files = files.to_vec();
        files.sort_by_key(|file| Reverse(file.len()));
        let objects = files
            .iter()
            .map(|file| Object::new(file, state.has(&file.name)));
        let job = Job {
            sender: self,
            objects: objects.collect(),
            failed: AtomicBool::new(false),
            error: Mutex::default(),
        };
        job.run();
        if let Some(error) = job.error.lock().take() {
            // What a store keeps of them costs money.
            let begun = job
                .objects
                .iter()
                .filter(|object| object.sent.get().is_none());
            let begun: Vec<Arc<Upload>> = begun
                .filter_map(|object| object.upload.lock().clone())
                .collect();
            jobs::for_each(&begun, AT_ONCE, |upload| {
                upload.abort();
                Ok(())
            })?;
            return Err(error);
        }
        let sent = job.objects.into_iter().map(|object| {
            let sent = object.sent.into_inner().expect("all objects are complete");
            (object.file.name.clone(), sent)
        });
        Ok(sent.collect())
    }

    /// The checksum of a small file.
    pub(super) fn sum(&self, file: &StoreFile) -> Result<Sha256Sum> {
        let mut bytes = memory::zeros(file.len())?;
        self.reader.read_at(file.file.entry, 0, &mut bytes)?;
        Ok(Sha256::digest(&bytes).into())
    }
}

/// An object that is being made of a file.
struct Object<'a> {
    file: &'a StoreFile<'a>,
    /// Whether there is one of this name, which is deleted before parts are sent.
    exists: bool,
    upload: Mutex<Option<Arc<Upload>>>,
    parts: Mutex<Vec<Option<Part>>>,
    sha256: OnceLock<Sha256Sum>,
    sent: OnceLock<Sent>,
}

impl<'a> Object<'a> {
    fn new(file: &'a StoreFile<'a>, exists: bool) -> Self {
        Object {
            parts: Mutex::new(vec![None; parts::count(file.len())]),
            file,
            exists,
            upload: Mutex::default(),
            sha256: OnceLock::new(),
            sent: OnceLock::new(),
        }
    }

    /// The upload of its parts, begun by the first that asks for it.
    fn upload(&self, bucket: &Bucket) -> Result<Arc<Upload>> {
        let mut upload = self.upload.lock();
        if let Some(upload) = &*upload {
            return Ok(upload.clone());
        }
        if self.exists {
            bucket.delete(vec![self.file.name.clone()])?;
        }
        let begun = Arc::new(bucket.begin(&self.file.name)?);
        *upload = Some(begun.clone());
        Ok(begun)
    }

    /// Notes a part that the store has; returns all of them once it has all.
    fn add(&self, index: usize, part: Part) -> Option<Vec<Part>> {
        let mut parts = self.parts.lock();
        parts[index] = Some(part);
        parts.iter().cloned().collect()
    }
}

/// A part that is to be sent.
struct Computed<'a> {
    object: &'a Object<'a>,
    index: usize,
    bytes: Bytes,
    _room: Taken<'a>,
}

/// Objects that are sent together.
struct Job<'a> {
    sender: &'a Sender<'a>,
    objects: Vec<Object<'a>>,
    failed: AtomicBool,
    /// The first.
    error: Mutex<Option<Error>>,
}

impl Job<'_> {
    fn run(&self) {
        let parts = self
            .objects
            .iter()
            .map(|object| object.parts.lock().len())
            .sum::<usize>();
        let (channel, computed) = crossbeam_channel::bounded(0);
        thread::scope(|scope| {
            let threads = (0..parts.min(AT_ONCE)).map_while(|_| {
                let computed: Receiver<Computed> = computed.clone();
                let send = move || computed.into_iter().for_each(|part| self.send(part));
                thread::Builder::new().spawn_scoped(scope, send).ok()
            });
            let threads = threads.count();
            drop(computed);
            if threads == 0 && parts > 0 {
                let problem = "no thread could be started to send the files";
                return self.fail(Error::new(Code::NoMemory, problem));
            }
            self.compute(channel);
        });
    }

    fn fail(&self, error: Error) {
        self.error.lock().get_or_insert(error);
        self.failed.store(true, Ordering::Relaxed);
    }

    /// # Errors
    /// If something failed, or the job is cancelled.
    fn check(&self) -> Result<()> {
        if self.failed.load(Ordering::Relaxed) {
            return Err(Error::interrupted());
        }
        check_going_on(self.sender.progress)
    }

    /// Computes all parts.
    fn compute<'s>(&'s self, channel: Channel<Computed<'s>>) {
        // Checksums take the bytes of a file in their order.
        let in_order = self.sender.options.sha256;
        let objects = self.objects.iter();
        let units = objects.flat_map(|object| {
            let parts = object.parts.lock().len();
            let step = if in_order { parts } else { 1 };
            let starts = (0..parts).step_by(step);
            starts.map(move |start| (object, start..start + step))
        });
        let units: Vec<_> = units.collect();
        let next = AtomicUsize::new(0);
        let take = |(): &mut ()| units.get(next.fetch_add(1, Ordering::Relaxed));
        let threads = self.sender.options.jobs.min(units.len());
        let computed = jobs::drain(threads, take, |(object, indices)| {
            let mut sha256 = in_order.then(Sha256::new);
            for index in indices.clone() {
                let part = self.part(object, index, sha256.as_mut())?;
                if index + 1 == indices.end
                    && let Some(sha256) = sha256.take()
                {
                    let _ = object.sha256.set(sha256.finalize().into());
                }
                // Nobody receives any more: that is reported by who failed.
                channel.send(part).map_err(|_| Error::interrupted())?;
            }
            Ok(())
        });
        if let Err(error) = computed {
            self.fail(error);
        }
    }

    fn part<'a>(
        &'a self,
        object: &'a Object<'a>,
        index: usize,
        mut sha256: Option<&mut Sha256>,
    ) -> Result<Computed<'a>> {
        let sender = self.sender;
        let range = parts::range(object.file.len(), index);
        let len = range.end - range.start;
        let room = sender.room.take(len, || self.check())?;
        sender.progress.file(&object.file.file.path);
        let mut bytes = memory::zeros(len)?;
        let mut at = range.start;
        for chunk in bytes.chunks_mut(CHUNK) {
            self.check()?;
            let read = sender.reader.read_at(object.file.file.entry, at, chunk)?;
            assert_eq!(
                read,
                chunk.len(),
                "{} is as long as planned",
                object.file.name
            );
            if let Some(sha256) = &mut sha256 {
                sha256.update(&*chunk);
            }
            at += chunk.len() as u64;
        }
        Ok(Computed {
            object,
            index,
            bytes: bytes.into(),
            _room: room,
        })
    }

    /// Sends a part, and completes its object if it was the last of it.
    fn send(&self, part: Computed) {
        if let Err(error) = self.check() {
            return self.fail(error);
        }
        let object = part.object;
        if let Err(error) = self.try_send(part) {
            let file = object.file.file.path.display();
            log::info!("{file}: not sent: {error}");
            self.fail(error);
        }
    }

    fn try_send(&self, part: Computed) -> Result<()> {
        let Computed {
            object,
            index,
            bytes,
            _room,
        } = part;
        let (file, bucket) = (object.file, self.sender.bucket);
        let len = bytes.len() as u64;
        let tag = if len == file.len() {
            bucket.put(&file.name, bytes)?
        } else {
            let upload = object.upload(bucket)?;
            let part = upload.put_part(index, bytes)?;
            let Some(parts) = object.add(index, part) else {
                self.sender.progress.advance(len);
                return Ok(());
            };
            upload.complete(parts, file.len())?
        };
        let sent = Sent {
            bytes: file.len(),
            tag,
            sha256: object.sha256.get().copied(),
        };
        if file.is_recorded() {
            Record::new(&file.name, &sent).write(bucket)?;
        }
        let _ = object.sent.set(sent);
        self.sender.progress.advance(len);
        Ok(())
    }
}
