//! Who reads ahead of a sequential reader of a mount: the kernel, as far as root lets it, or else
//! this process.

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

/// Arranges to read `bytes` bytes ahead on the mount `device` (its `MAJOR:MINOR`), 0 for no more
/// than the kernel does by itself: gives the setting with which the kernel is to do it, or else
/// what does it here, on `threads` threads.
pub(super) fn arrange(
    device: &str,
    bytes: u64,
    reader: &Arc<Reader>,
    threads: usize,
) -> io::Result<(Option<KernelSetting>, Option<ReadAhead>)> {
    if bytes == 0 || !FastPath::ReadAhead.is_enabled() {
        return Ok((None, None));
    }
    let path = format!("/sys/class/bdi/{device}/read_ahead_kb");
    match File::options().write(true).open(&path) {
        Ok(file) => {
            let kib = bytes.div_ceil(1 << 10);
            Ok((Some(KernelSetting { file, kib }), None))
        }
        // Only root may change it, and only where /sys is writable.
        Err(error) => {
            log::info!("{path}: cannot be raised, so tiles are computed ahead: {error}");
            Ok((
                None,
                Some(ReadAhead::start(reader.clone(), bytes, threads)?),
            ))
        }
    }
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
