//! Bytes in memory as a file of a source.

use std::path::Path;
use std::sync::Arc;

use ckptfs::Result;
use ckptfs::source::{Attributes, Blob, Identity};

use crate::any_file;

/// A file with these bytes.
#[derive(Debug)]
pub struct Bytes {
    location: Arc<Path>,
    bytes: Vec<u8>,
}

impl Bytes {
    pub fn new(name: &str, bytes: &[u8]) -> Self {
        Bytes {
            location: Path::new(name).into(),
            bytes: bytes.to_vec(),
        }
    }
}

impl Blob for Bytes {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn identity(&self) -> Identity {
        Identity::new("bytes")
    }

    fn location(&self) -> &Arc<Path> {
        &self.location
    }

    fn attributes(&self) -> Attributes {
        any_file().attributes()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let from = offset as usize;
        buffer.copy_from_slice(&self.bytes[from..from + buffer.len()]);
        Ok(())
    }

    fn check(&self) -> Result<()> {
        Ok(())
    }
}
