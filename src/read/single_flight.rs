//! Values that are computed by the first who asks for them, while all others who ask wait.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use crate::error::Result;
use crate::read::sync::{Mutex, OnceLock};

/// What keeps values once they are computed, by key.
pub(super) trait Keep<K, V> {
    /// Takes a value that was just computed.
    fn keep(&mut self, key: K, value: &V);
}

/// A [`Keep`], and the computations under way for it. Nothing is computed while it is locked.
#[derive(Debug)]
pub(super) struct SingleFlight<K, V, S> {
    state: Mutex<State<K, V, S>>,
}

#[derive(Debug)]
struct State<K, V, S> {
    kept: S,
    flights: HashMap<K, Flight<V>>,
}

type Landing<V> = Arc<OnceLock<Result<V>>>;

/// A computation under way.
#[derive(Debug)]
struct Flight<V> {
    landing: Landing<V>,
    /// Those who compute it or wait for it: one of them will finish it.
    passengers: usize,
}

impl<K: Copy + Eq + Hash, V: Clone, S: Keep<K, V>> SingleFlight<K, V, S> {
    /// Nothing under way, with what is kept already.
    pub(super) fn new(kept: S) -> Self {
        let flights = HashMap::new();
        SingleFlight {
            state: Mutex::new(State { kept, flights }),
        }
    }

    /// Calls `look` with what is kept.
    pub(super) fn kept<T>(&self, look: impl FnOnce(&mut S) -> T) -> T {
        look(&mut self.state.lock().kept)
    }

    /// Whether `key` is being computed, or kept as `is_kept` finds.
    pub(super) fn knows(&self, key: &K, is_kept: impl FnOnce(&S) -> bool) -> bool {
        let state = self.state.lock();
        state.flights.contains_key(key) || is_kept(&state.kept)
    }

    /// What `find` finds in what is kept; else what `give` makes of the value of `key`, computed by
    /// `compute` unless somebody does already.
    ///
    /// # Errors
    /// That of the computation. It is given to everyone who waits for it and then forgotten, so
    /// that a later caller tries anew. If a computation panics, the next of those who wait computes.
    pub(super) fn get<T>(
        &self,
        key: K,
        find: impl FnOnce(&mut S) -> Option<T>,
        compute: impl FnOnce() -> Result<V>,
        give: impl FnOnce(&V) -> T,
    ) -> Result<T> {
        let landing = {
            let mut state = self.state.lock();
            if let Some(found) = find(&mut state.kept) {
                return Ok(found);
            }
            state.board(key)
        };
        let mut computed_here = false;
        let outcome = landing.get_or_init(|| {
            computed_here = true;
            let leave = LeaveOnPanic { of: self, key };
            let outcome = compute();
            std::mem::forget(leave);
            outcome
        });
        if computed_here {
            self.land(key, outcome);
        }
        outcome.as_ref().map(give).map_err(Clone::clone)
    }

    fn land(&self, key: K, outcome: &Result<V>) {
        let mut state = self.state.lock();
        state.flights.remove(&key);
        if let Ok(value) = outcome {
            state.kept.keep(key, value);
        }
    }
}

impl<K: Copy + Eq + Hash, V, S> State<K, V, S> {
    fn board(&mut self, key: K) -> Landing<V> {
        let flight = self.flights.entry(key).or_insert_with(|| Flight {
            landing: Landing::default(),
            passengers: 0,
        });
        flight.passengers += 1;
        flight.landing.clone()
    }

    fn leave(&mut self, key: K) {
        if let Some(flight) = self.flights.get_mut(&key) {
            flight.passengers -= 1;
            if flight.passengers == 0 {
                self.flights.remove(&key);
            }
        }
    }
}

/// Leaves the flight of `key`, which is forgotten if nobody waits for it, unless this is forgotten
/// itself.
struct LeaveOnPanic<'a, K: Copy + Eq + Hash, V, S> {
    of: &'a SingleFlight<K, V, S>,
    key: K,
}

impl<K: Copy + Eq + Hash, V, S> Drop for LeaveOnPanic<'_, K, V, S> {
    fn drop(&mut self) {
        self.of.state.lock().leave(self.key);
    }
}
