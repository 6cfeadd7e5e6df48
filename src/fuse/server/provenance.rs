//! The extended attribute that tells where the bytes of a file come from.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::provenance::Files;
use crate::view::EntryId;

/// The name of the attribute; its value is JSON.
pub const PROVENANCE_ATTRIBUTE: &str = "user.ckptfs.provenance";

/// The values of the attribute. The last one is kept: programs first ask how long a value is.
#[derive(Debug)]
pub(super) struct Provenance {
    files: Arc<Files>,
    last: Mutex<Option<(EntryId, Arc<[u8]>)>>,
}

impl Provenance {
    pub(super) fn new(files: Arc<Files>) -> Self {
        Provenance {
            files,
            last: Mutex::default(),
        }
    }

    /// The value for the entry; `None` if it has none.
    pub(super) fn value(&self, entry: EntryId) -> Option<Arc<[u8]>> {
        if let Some((of, value)) = &*self.last.lock()
            && *of == entry
        {
            return Some(value.clone());
        }
        let value: Arc<[u8]> = self.files.json(entry)?.into();
        *self.last.lock() = Some((entry, value.clone()));
        Some(value)
    }
}
