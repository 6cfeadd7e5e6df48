//! Reading ahead of a sequential reader of a mount: the kernel asks for more than the reader did, as
//! far as root lets it, and this process works before it is asked.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

use crate::fast_paths::FastPath;
use crate::read::{ReadAhead, Reader};

/// The kernel's setting of how far it reads ahead on a mount.
#[derive(Debug)]
pub(super) struct KernelSetting {
    file: File,
    kib: u64,
}

/// The setting with which the kernel is to read `bytes` bytes ahead on the mount `device` (its
/// `MAJOR:MINOR`); `None` if it cannot be told to.
pub(super) fn by_kernel(device: &str, bytes: u64) -> Option<KernelSetting> {
    if !is_wanted(bytes) {
        return None;
    }
    // Only root may change it, and only where /sys is writable.
    let path = format!("/sys/class/bdi/{device}/read_ahead_kb");
    let opened = File::options().write(true).open(&path);
    let file = opened
        .inspect_err(|e| log::info!("{path}: cannot be raised, reads will be slower: {e}"))
        .ok()?;
    let kib = bytes.div_ceil(1 << 10);
    Some(KernelSetting { file, kib })
}

/// What works `bytes` bytes ahead on `threads` threads.
pub(super) fn here(
    reader: &Arc<Reader>,
    bytes: u64,
    threads: usize,
) -> io::Result<Option<ReadAhead>> {
    if !is_wanted(bytes) {
        return Ok(None);
    }
    ReadAhead::start(reader.clone(), bytes, threads).map(Some)
}

/// Whether to do more than the kernel does by itself.
fn is_wanted(bytes: u64) -> bool {
    bytes > 0 && FastPath::ReadAhead.is_enabled()
}

impl KernelSetting {
    /// Tells the kernel, once it knows the mount's capabilities: then it sets its own value.
    pub(super) fn apply(mut self) {
        let kib = self.kib;
        if let Err(error) = self.file.write_all(kib.to_string().as_bytes()) {
            log::warn!("the kernel does not read {kib} KiB ahead, reads will be slower: {error}");
        }
    }
}
