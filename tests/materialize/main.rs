//! `materialize`: what it writes, where, and what is left when it does not come to its end.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/directory.rs"]
mod directory;
#[path = "../common/failing_disk.rs"]
mod failing_disk;

mod command;
mod destination;
mod every_failure;
mod files;
mod full_disk;
mod kill;
mod parts;
mod resume;
mod single_file;
mod weights_only;
