//! Source files that links lead to, out of the sources: `mount --allow-other` refuses them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::provenance::counts::FileCount;
use crate::source::{Blob, Enclosure};
use crate::view::View;

/// The files that `view` reads, and that lie outside of `directories`. What cannot be
/// resolved any more is not counted.
pub fn links_leading_out(view: &View, directories: &[PathBuf]) -> FileCount {
    let mut outside = FileCount::default();
    let Ok(enclosure) = Enclosure::new(directories) else {
        return outside;
    };
    let mut files: HashMap<&Path, u64> = HashMap::new();
    let mut seen: Vec<Arc<dyn Blob>> = Vec::new();
    view.for_each_source(&mut |blob| {
        if seen.last().is_none_or(|last| !Arc::ptr_eq(last, blob)) {
            seen.push(blob.clone());
        }
    });
    let local = seen.iter().filter_map(|blob| blob.as_local());
    files.extend(local.map(|file| (file.path(), file.len())));
    for (path, bytes) in files {
        if enclosure.is_left_by(path).unwrap_or(false) {
            outside.files += 1;
            outside.bytes += bytes;
        }
    }
    outside
}
