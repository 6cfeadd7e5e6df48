//! What the pool of open files is made of. `tests/interleavings` puts a model checker's primitives
//! of the same names in its place.

pub(super) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

pub(super) use parking_lot::Mutex;
