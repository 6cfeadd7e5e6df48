//! Blocks of objects on disk, shared by the processes of a user.
//!
//! An object has a sparse file of its bytes and an index with an entry for each block: a word that says
//! whether it is there, when it was last used, and checksums of its pieces. A block is written, and taken away, under a
//! lock of its entry, which ends with the process that holds it. Who reads looks at the word before and
//! after; the first use of a piece in a process is checked against its checksum. So what another process
//! does, or a crash leaves, is a miss and never a wrong byte.

mod file;
mod index;
mod locks;
mod opened;
mod room;
mod scratch;

pub(super) use file::{BlockCache, File};
