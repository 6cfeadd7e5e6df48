//! A file beyond this machine.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use crate::error::Result;
use crate::source::remote::source::Source;
use crate::source::{Attributes, Blob, Identity};

/// What a file beyond this machine is shown with.
pub(super) fn attributes(modified: SystemTime, mode: u32) -> Attributes {
    Attributes {
        mode,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        mtime: modified,
    }
}

/// An object, as a view takes bytes from it.
#[derive(Debug)]
pub(super) struct RemoteBlob(Arc<Source>);

impl RemoteBlob {
    pub(super) fn new(source: Source) -> Self {
        RemoteBlob(Arc::new(source))
    }
}

impl Blob for RemoteBlob {
    fn len(&self) -> u64 {
        self.0.object.len
    }

    /// The same on every machine.
    fn identity(&self) -> Identity {
        let object = &self.0.object;
        Identity::new(format!("{}, {} bytes", object.pin, object.len))
    }

    fn location(&self) -> &Arc<Path> {
        &self.0.object.location
    }

    fn attributes(&self) -> Attributes {
        attributes(self.0.object.modified, 0o644)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.0.read(buffer, offset)
    }

    /// Every reply is checked before its bytes are used, and what is kept of one stays right: nothing
    /// is asked for.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn is_remote(&self) -> bool {
        true
    }

    fn is_near(&self, range: &Range<u64>) -> bool {
        self.0.is_near(range)
    }
}
