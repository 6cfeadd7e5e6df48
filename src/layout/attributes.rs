//! Who may read what a view makes, and how old it is.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::catalog::{Catalog, Extents};
use crate::source::{Attributes, Blob};

/// Of files that a view makes, before sources restrict it.
pub(super) const SYNTHESIZED_MODE: u32 = 0o444;

/// Who may read a file: only those who may read every source file in it. A whole source file
/// keeps its owner and time.
pub(super) fn attributes(
    content: &Extents,
    directory: Attributes,
    newest: SystemTime,
) -> Attributes {
    if let Some(blob) = content.whole_file() {
        return blob.attributes();
    }
    let mut attributes = Attributes {
        mode: SYNTHESIZED_MODE,
        mtime: newest,
        ..directory
    };
    for segment in content.segments() {
        let mut restrict = |blob: &Arc<dyn Blob>| {
            attributes.mode &= mode_for(directory, blob.attributes());
        };
        segment.place.for_each_source(&mut restrict);
    }
    attributes
}

/// The mode of `source` for a file that has the owner and group of `directory`: where those are
/// not the source's own, they may do what everyone may.
pub(super) fn mode_for(directory: Attributes, source: Attributes) -> u32 {
    let everyone = source.mode & 0o7;
    let class = |own: bool, shift: u32| {
        if own {
            source.mode & (0o7 << shift)
        } else {
            everyone << shift
        }
    };
    class(source.uid == directory.uid, 6) | class(source.gid == directory.gid, 3) | everyone
}

/// The time of the youngest source file: what is synthesized is as old as what it is made from.
pub(super) fn newest_source(catalog: &Catalog) -> SystemTime {
    let mut newest = UNIX_EPOCH;
    let mut visit = |blob: &Arc<dyn Blob>| newest = newest.max(blob.attributes().mtime);
    for tensor in catalog.tensors.values() {
        tensor.for_each_source(&mut visit);
    }
    if let Some(config) = &catalog.config {
        visit(config.file());
    }
    newest
}
