//! What the state that readers share is made of. `tests/interleavings` puts a model checker's
//! primitives of the same names in its place.

pub(super) use std::sync::OnceLock;
pub(super) use std::sync::atomic::{AtomicUsize, Ordering};

pub(super) use parking_lot::Mutex;
