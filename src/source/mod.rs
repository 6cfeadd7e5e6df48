//! Where bytes come from: blobs, the directories they are in, and their first kind, local files.
//! Nothing here knows what is in a file.

mod attributes;
mod blob;
mod derived;
mod directory;
mod downloads;
mod local;
mod location;
mod naming;
mod pointer;
mod pool;
#[cfg(feature = "remote")]
pub mod remote;
mod sync;

pub use attributes::Attributes;
pub use blob::{Blob, Identity};
pub(crate) use derived::Derived;
pub(crate) use directory::never_shown;
pub use directory::{AuxEntry, AuxFiles, Class, Directory, MOUNT_DIRECTORY};
pub(crate) use downloads::{not_downloaded, pointer};
pub(crate) use local::{BLOCK, with_room};
pub use local::{Enclosure, Handle, LocalFile};
pub use location::Location;
pub(crate) use naming::not_json;
pub use naming::{check_directory, missing};
