//! The primitives of `src/source/sync.rs`.

pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

pub(crate) use crate::read::sync::Mutex;
