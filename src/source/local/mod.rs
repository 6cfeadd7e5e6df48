//! Files and directories of this machine.

mod descriptors;
mod direct;
mod directory;
mod file;
mod links;

pub(crate) use descriptors::with_room;
pub(crate) use direct::BLOCK;
pub(super) use directory::LocalDirectory;
pub use file::{Handle, LocalFile};
pub use links::Enclosure;
