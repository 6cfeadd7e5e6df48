//! What all fuzz targets share: the bound on memory, and a file to stand behind parsed text.

pub mod adapter;
pub mod bytes;
pub mod checkpoint;
pub mod http;
pub mod memory;
pub mod models;
pub mod reading;
pub mod request;
pub mod torch_file;

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use ckptfs::source::{Blob, LocalFile};
use tempfile::TempDir;

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

/// A directory in memory that this process writes its files into.
pub static DIRECTORY: LazyLock<TempDir> = LazyLock::new(|| {
    let memory = PathBuf::from("/dev/shm");
    let parent = if memory.is_dir() {
        memory
    } else {
        std::env::temp_dir()
    };
    tempfile::Builder::new()
        .prefix("ckptfs-fuzz-")
        .tempdir_in(parent)
        .expect("a temporary directory can be made")
});

/// A file that stands for the one that a text was read from. It is empty.
pub fn any_file() -> Arc<dyn Blob> {
    static FILE: LazyLock<Arc<dyn Blob>> = LazyLock::new(|| {
        let path = DIRECTORY.path().join("any.file");
        std::fs::write(&path, "").expect("the file can be written");
        Arc::new(LocalFile::new(path).expect("it is a regular file"))
    });
    FILE.clone()
}
