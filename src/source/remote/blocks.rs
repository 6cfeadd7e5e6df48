//! Blocks of objects in memory: each is fetched once, however many wait for it, and kept for a while.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use lru::LruCache;
use parking_lot::{Condvar, Mutex};

use crate::error::{Code, Error, Result};
use crate::source::remote::memory::{Block, Memory};

/// Bytes of a block: what is kept, or fetched, is a whole one.
pub(super) const BLOCK: u64 = 1 << 20;

/// A block of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) object: u64,
    pub(super) block: u64,
}

/// What is kept, and what is under way.
#[derive(Debug)]
pub(super) struct Blocks {
    capacity: u64,
    state: Mutex<State>,
    memory: Arc<Memory>,
}

#[derive(Debug)]
struct State {
    /// Those that came first are dropped first. What was read has mostly served its purpose, and must not push out what
    /// was fetched ahead.
    kept: LruCache<Key, Bytes>,
    bytes: u64,
    flights: HashMap<Key, Arc<Flight>>,
}

/// What is known of a block.
#[derive(Debug)]
pub(super) enum Found {
    Kept(Bytes),
    Coming(Arc<Flight>),
    Unknown,
}

/// A block that is being fetched.
#[derive(Debug, Default)]
pub(super) struct Flight {
    landed: Mutex<Option<Result<Bytes>>>,
    arrival: Condvar,
}

impl Flight {
    /// The block, once it is there.
    ///
    /// # Errors
    /// That of the fetch, or if all is to stop.
    pub(super) fn wait(&self, stopped: &AtomicBool) -> Result<Bytes> {
        const LOOK: Duration = Duration::from_millis(100);
        let mut landed = self.landed.lock();
        loop {
            if let Some(landed) = &*landed {
                return landed.clone();
            }
            if stopped.load(Ordering::Relaxed) {
                return Err(Error::interrupted());
            }
            self.arrival.wait_for(&mut landed, LOOK);
        }
    }

    fn land(&self, result: Result<Bytes>) {
        *self.landed.lock() = Some(result);
        self.arrival.notify_all();
    }
}

impl Blocks {
    /// Room for `capacity` bytes.
    pub(super) fn new(capacity: u64) -> Self {
        Blocks {
            capacity,
            state: Mutex::new(State {
                kept: LruCache::unbounded(),
                bytes: 0,
                flights: HashMap::new(),
            }),
            memory: Memory::new(BLOCK as usize),
        }
    }

    /// What is known of `key`.
    pub(super) fn find(&self, key: Key) -> Found {
        let state = self.state.lock();
        if let Some(bytes) = state.kept.peek(&key) {
            return Found::Kept(bytes.clone());
        }
        match state.flights.get(&key) {
            Some(flight) => Found::Coming(flight.clone()),
            None => Found::Unknown,
        }
    }

    /// Whether nothing is known of `key`.
    pub(super) fn is_unknown(&self, key: Key) -> bool {
        let state = self.state.lock();
        !state.kept.contains(&key) && !state.flights.contains_key(&key)
    }

    /// What is known of `key`; if nothing is, a new flight for it, which the caller must see to.
    pub(super) fn find_or_board(&self, key: Key) -> (Found, Option<Arc<Flight>>) {
        let mut state = self.state.lock();
        if let Some(bytes) = state.kept.peek(&key) {
            return (Found::Kept(bytes.clone()), None);
        }
        if let Some(flight) = state.flights.get(&key) {
            return (Found::Coming(flight.clone()), None);
        }
        let flight = Arc::new(Flight::default());
        state.flights.insert(key, flight.clone());
        (Found::Coming(flight.clone()), Some(flight))
    }

    /// Ends the flight of `key`. What came is kept; a failure is for those who wait, and forgotten.
    fn land(&self, key: Key, flight: &Flight, result: Result<Bytes>) {
        let mut dropped = Vec::new();
        {
            let mut state = self.state.lock();
            state.flights.remove(&key);
            if let Ok(bytes) = &result {
                state.bytes += bytes.len() as u64;
                if let Some(old) = state.kept.put(key, bytes.clone()) {
                    state.bytes -= old.len() as u64;
                }
                while state.bytes > self.capacity
                    && let Some((_, old)) = state.kept.pop_lru()
                {
                    state.bytes -= old.len() as u64;
                    dropped.push(old);
                }
            }
        }
        flight.land(result);
    }

    /// Forgets all blocks of `object`.
    pub(super) fn forget(&self, object: u64) {
        let mut state = self.state.lock();
        let keys = state.kept.iter().map(|(key, _)| *key);
        let keys: Vec<Key> = keys.filter(|key| key.object == object).collect();
        for key in keys {
            if let Some(bytes) = state.kept.pop(&key) {
                state.bytes -= bytes.len() as u64;
            }
        }
    }
}

/// Blocks that follow each other, as their bytes come.
pub(super) struct Landing<'a> {
    blocks: &'a Blocks,
    /// Those that are not complete, with their lengths. A block without a key is for nobody else.
    waiting: VecDeque<(Option<Key>, Arc<Flight>, u64)>,
    /// What has come of the first of them.
    block: Option<Block>,
}

impl<'a> Landing<'a> {
    pub(super) fn new(
        blocks: &'a Blocks,
        waiting: impl IntoIterator<Item = (Option<Key>, Arc<Flight>, u64)>,
    ) -> Self {
        Landing {
            blocks,
            waiting: waiting.into_iter().collect(),
            block: None,
        }
    }

    /// Takes the next bytes; calls `complete` with each block that is there, before anybody has it.
    pub(super) fn take(&mut self, bytes: Bytes, mut complete: impl FnMut(Key, &Bytes)) {
        let mut rest = &bytes[..];
        while let Some((_, _, len)) = self.waiting.front()
            && !rest.is_empty()
        {
            let len = *len as usize;
            let block = self
                .block
                .get_or_insert_with(|| self.blocks.memory.block(len));
            let (now, later) = rest.split_at(rest.len().min(len - block.len()));
            block.add(now);
            rest = later;
            if block.len() == len {
                let block = self.block.take().expect("it is complete").freeze();
                let (key, flight, _) = self.waiting.pop_front().expect("it was there");
                match key {
                    Some(key) => {
                        complete(key, &block);
                        self.blocks.land(key, &flight, Ok(block));
                    }
                    None => flight.land(Ok(block)),
                }
            }
        }
    }

    /// Ends the flights of all that did not come.
    pub(super) fn fail(&mut self, error: &Error) {
        for (key, flight, _) in self.waiting.drain(..) {
            match key {
                Some(key) => self.blocks.land(key, &flight, Err(error.clone())),
                None => flight.land(Err(error.clone())),
            }
        }
    }
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        self.fail(&Error::new(
            Code::Internal,
            "a transfer ended before its end",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(block: u64) -> Key {
        Key { object: 1, block }
    }

    fn land(blocks: &Blocks, key: Key, bytes: &'static [u8]) {
        let (_, flight) = blocks.find_or_board(key);
        let waiting = [(Some(key), flight.unwrap(), bytes.len() as u64)];
        Landing::new(blocks, waiting).take(Bytes::from_static(bytes), |_, _| {});
    }

    #[test]
    fn one_fetch_serves_all_who_wait_and_a_failure_is_forgotten() {
        let blocks = Blocks::new(100);
        let go_on = AtomicBool::new(false);
        let (_, first) = blocks.find_or_board(key(0));
        let (found, second) = blocks.find_or_board(key(0));
        assert!(second.is_none());
        let Found::Coming(waiting) = found else {
            panic!()
        };
        let mut landing = Landing::new(&blocks, [(Some(key(0)), first.unwrap(), 4)]);
        landing.take(Bytes::from_static(b"ab"), |_, _| panic!("half of it"));
        landing.fail(&Error::new(Code::Unreachable, "broken"));
        assert_eq!(waiting.wait(&go_on).unwrap_err().code(), Code::Unreachable);
        land(&blocks, key(0), b"abcd");
        assert!(matches!(blocks.find(key(0)), Found::Kept(bytes) if &bytes[..] == b"abcd"));
        let (_, flight) = blocks.find_or_board(key(1));
        go_on.store(true, Ordering::Relaxed);
        let error = flight.unwrap().wait(&go_on).unwrap_err();
        assert_eq!(error.code(), Code::Interrupted);
    }

    #[test]
    fn memory_is_bounded_and_what_came_last_stays() {
        let blocks = Blocks::new(10);
        land(&blocks, key(0), b"aaaa");
        land(&blocks, key(1), b"bbbb");
        assert!(matches!(blocks.find(key(0)), Found::Kept(_)));
        land(&blocks, key(2), b"cccc");
        assert!(
            blocks.is_unknown(key(0)),
            "it was read: what is ahead of the reader is worth more"
        );
        assert!(!blocks.is_unknown(key(1)) && !blocks.is_unknown(key(2)));
        blocks.forget(1);
        assert_eq!(blocks.state.lock().bytes, 0);
    }
}
