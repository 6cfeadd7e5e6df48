//! Facts kept on disk from one mount to the next.
//!
//! A file is named by the SHA-256 of everything that its facts depend on: the kernel with its
//! parameters, and of each input where its bytes lie and the identity of the file they lie in. So a
//! source that changed is never looked up again; what lies unused can be deleted at any time.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use crate::catalog::{Extent, Node, Tensor};
use crate::error::{Error, Result};
use crate::manifest::to_hex;
use crate::shown::Show;
use crate::source::with_room;

/// A directory of facts.
#[derive(Debug)]
pub struct FactsCache {
    directory: PathBuf,
}

/// What a file begins with. The version is that of the definitions of facts.
const MAGIC: &[u8; 8] = b"ckfacts1";

const DIGEST_BYTES: usize = 32;

impl FactsCache {
    /// The cache in `directory`, which is made if it is not there.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new(directory: impl Into<PathBuf>) -> Result<Self> {
        let directory = directory.into();
        fs::create_dir_all(&directory).map_err(|e| Error::io("create", &directory, e))?;
        Ok(FactsCache { directory })
    }

    /// The facts of `node`, found by `find` unless they are here. What cannot be read or written
    /// here is found anew, and logged.
    pub(super) fn get_or_find(
        &self,
        node: &Node,
        find: impl FnOnce() -> Result<Vec<f64>>,
    ) -> Result<Vec<f64>> {
        let path = self.directory.join(file_name(node));
        match read(&path) {
            Ok(facts) => return Ok(facts),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => log::warn!("{}: cannot use these facts: {error}", path.shown()),
        }
        let facts = find()?;
        if let Err(error) = self.write(&path, &facts) {
            log::warn!("{}: cannot keep facts: {error}", path.shown());
        }
        Ok(facts)
    }

    fn write(&self, path: &Path, facts: &[f64]) -> io::Result<()> {
        let mut content = MAGIC.to_vec();
        content.extend(facts.iter().flat_map(|fact| fact.to_le_bytes()));
        let digest = Sha256::digest(&content);
        let mut file = with_room(|| NamedTempFile::new_in(&self.directory))?;
        file.write_all(&content)?;
        file.write_all(&digest)?;
        file.persist(path)?;
        Ok(())
    }
}

fn read(path: &Path) -> io::Result<Vec<f64>> {
    let content = with_room(|| fs::read(path))?;
    let broken = || {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "the file is not what was written",
        )
    };
    let (content, digest) = content
        .split_last_chunk::<DIGEST_BYTES>()
        .ok_or_else(broken)?;
    if Sha256::digest(content)[..] != digest[..] {
        return Err(broken());
    }
    let facts = content.strip_prefix(MAGIC).ok_or_else(broken)?;
    let (facts, rest) = facts.as_chunks::<8>();
    match rest {
        [] => Ok(facts.iter().map(|fact| f64::from_le_bytes(*fact)).collect()),
        _ => Err(broken()),
    }
}

/// The name of the file of the facts of `node`.
fn file_name(node: &Node) -> String {
    let mut hash = Sha256::new();
    hash.update(env!("CARGO_PKG_VERSION"));
    add_node(&mut hash, node);
    to_hex(&hash.finalize()) + ".facts"
}

fn add_node(hash: &mut Sha256, node: &Node) {
    add(hash, node.kernel.identity().as_bytes());
    add(hash, &node.inputs.len().to_le_bytes());
    for input in &node.inputs {
        add_tensor(hash, input);
    }
}

fn add_tensor(hash: &mut Sha256, tensor: &Tensor) {
    add(
        hash,
        format!("{:?} {:?}", tensor.dtype, tensor.shape).as_bytes(),
    );
    for segment in tensor.extents.with_empty() {
        add(hash, &segment.len.to_le_bytes());
        match &segment.place {
            Extent::Made { bytes, offset } => {
                let start = *offset as usize;
                add(hash, &bytes[start..start + segment.len as usize]);
            }
            Extent::Stored { blob, offset } => {
                add(hash, blob.location().as_os_str().as_encoded_bytes());
                add(hash, blob.identity().to_string().as_bytes());
                add(hash, &offset.to_le_bytes());
            }
            Extent::Computed {
                node,
                output,
                offset,
            } => {
                add(hash, &output.to_le_bytes());
                add(hash, &offset.to_le_bytes());
                add_node(hash, node);
            }
        }
    }
}

/// Adds `bytes` so that no other sequence of them gives the same input to the hash.
fn add(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}
