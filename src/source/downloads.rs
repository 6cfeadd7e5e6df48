//! Files that were not downloaded.

use crate::error::Warning;
use crate::source::blob::Blob;
use crate::source::directory::AuxEntry;
use crate::source::pointer::{MAX_BYTES, Pointer};

/// The pointer that `blob` is, if it is not the file itself.
pub(crate) fn pointer(blob: &dyn Blob) -> Option<Pointer> {
    if blob.len() > MAX_BYTES {
        return None;
    }
    let mut text = vec![0; blob.len() as usize];
    blob.read_at(&mut text, 0).ok()?;
    Pointer::parse(&text)
}

/// Warnings of files among `entries` that were not downloaded. Views show them as they are.
pub(crate) fn not_downloaded(entries: &[AuxEntry]) -> Vec<Warning> {
    let mut warnings = Vec::new();
    for entry in entries {
        match entry {
            AuxEntry::Directory { entries, .. } => warnings.extend(not_downloaded(entries)),
            // Edited as the JSON that it is.
            AuxEntry::Edited { .. } => {}
            AuxEntry::File { file, .. } => {
                warnings.extend(pointer(&**file).map(|it| it.warning(file.location())));
            }
        }
    }
    warnings
}
