//! Files of this machine.

mod descriptors;
mod direct;
pub(crate) mod directory;
mod file;
mod links;

pub(crate) use descriptors::with_room;
pub(crate) use direct::BLOCK;
pub use directory::{AuxEntry, MOUNT_DIRECTORY};
pub use file::{Handle, LocalFile};
pub use links::Enclosure;
