//! Mounts: what readers see through the kernel, what nobody can change, and how a mount begins
//! and ends. These tests mount, so they need `/dev/fuse` and root.

#[path = "../common/mod.rs"]
mod common;

mod changes;
mod descriptors;
mod direct;
mod errors;
mod exhaustion;
mod faulty_directory;
mod fixture;
mod grafted;
mod helper;
mod io_errors;
mod killed_readers;
mod life_cycle;
mod links;
mod metadata;
mod mountpoints;
mod outputs;
mod panics;
mod persist;
mod prefetch;
mod propagation;
mod provenance;
mod read_only;
mod reads;
mod requests;
mod service;
mod silent;
mod stats;
mod status;
mod top;
mod unmounting;
#[cfg(feature = "remote")]
mod urls;
mod users;
mod verified;
