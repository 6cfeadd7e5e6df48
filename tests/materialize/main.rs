//! `materialize`: what it writes, where, and what is left when it does not come to its end.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/directory.rs"]
mod directory;
#[cfg(feature = "fuse")]
#[path = "../common/failing_disk.rs"]
mod failing_disk;

#[cfg(feature = "cli")]
mod command;
mod destination;
#[cfg(feature = "fuse")]
mod every_failure;
#[cfg(all(feature = "cli", feature = "fuse"))]
mod failing_source;
mod files;
#[cfg(feature = "cli")]
mod full_disk;
#[cfg(feature = "cli")]
mod kill;
#[cfg(feature = "cli")]
mod parts;
mod persist;
mod resume;
mod single_file;
#[cfg(all(feature = "cli", feature = "remote"))]
mod upload;
mod weights_only;
