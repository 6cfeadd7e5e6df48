//! Bytes that were made of another blob when the view was planned: they are good for as long as that is.

use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::error::Result;
use crate::manifest::to_hex;
use crate::source::{Attributes, Blob, Identity};

/// A file in memory that follows from `of`.
#[derive(Debug)]
pub(crate) struct Derived {
    of: Arc<dyn Blob>,
    location: Arc<Path>,
    bytes: Vec<u8>,
}

impl Derived {
    /// The file `name` with these `bytes`, which depend on nothing but `of`.
    pub(crate) fn new(of: Arc<dyn Blob>, name: &str, bytes: Vec<u8>) -> Self {
        let location = of.location().join(name).into();
        Derived {
            of,
            location,
            bytes,
        }
    }
}

impl Blob for Derived {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn identity(&self) -> Identity {
        // What they were made of does not decide on them alone: so does the request.
        let sum = to_hex(&Sha256::digest(&self.bytes));
        Identity::new(format!("{sum} made of {}", self.of.identity()))
    }

    fn location(&self) -> &Arc<Path> {
        &self.location
    }

    fn attributes(&self) -> Attributes {
        self.of.attributes()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let start = offset as usize;
        buffer.copy_from_slice(&self.bytes[start..start + buffer.len()]);
        Ok(())
    }

    /// What it was made of is read as long as it is as it was planned; the rest is in memory.
    fn check(&self) -> Result<()> {
        self.of.check()
    }
}
