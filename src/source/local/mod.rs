//! Files of this machine.

mod descriptors;
mod direct;
mod file;
mod links;

pub(crate) use descriptors::with_room;
pub(crate) use direct::BLOCK;
pub use file::{Handle, LocalFile};
pub use links::Enclosure;
