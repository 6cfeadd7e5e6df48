//! Writing a view to disk: the bytes that a mount shows, as ordinary files.
//!
//! Everything is first written to a partial directory on the filesystem of the destination,
//! forced to the disk and then renamed, so that the destination is either as it was or complete.
//! A run that was stopped leaves its partial directory, and the next one goes on with it.
//!
//! A view that is written to a URL becomes objects of a store (`upload/`).

mod copy;
mod destination;
mod directory;
mod ending;
mod failures;
mod lock;
mod new_file;
mod options;
mod outlook;
mod output;
mod partial;
mod parts;
mod persist;
mod pieces;
mod request;
mod space;
mod state;
mod stub;
mod sums;
#[cfg(feature = "remote")]
mod upload;
#[cfg(not(feature = "remote"))]
#[path = "no_upload.rs"]
mod upload;
mod watcher;
mod weights_only;
mod write;

use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::jobs::Progress;
use crate::materialize::destination::{Destination, url};
use crate::recipe::Plan;

pub use crate::materialize::options::{Options, Share, Summary};
pub use crate::materialize::outlook::outlook;
pub use crate::materialize::parts::Part;
pub use crate::materialize::persist::{Persisting, persist_outlook};
pub use crate::materialize::space::Outlook;
pub use crate::materialize::stub::{STUB_RECIPE, write_stub};
pub use crate::materialize::watcher::Watcher;

/// Writes the view of `plan` into the directory `out`, or into an object store, where `out` is the URL
/// of a prefix. `inputs` are the files, directories and URLs that the view was planned from, references
/// included.
///
/// # Errors
/// If `out` is, holds or is inside an input, holds something that was not to be overwritten, or
/// cannot be written; if a source changed or cannot be read; if a tensor cannot be quantized.
/// `out` is then as it was before. Parents of `out` that were made stay, and so does the partial
/// directory if a file in it is complete: the same request goes on with it, once sources and
/// destination allow it. In an object store, what was to be overwritten may be gone by then.
pub fn materialize(
    plan: &Plan,
    inputs: &[PathBuf],
    out: &Path,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Summary> {
    if let Some(url) = url(out) {
        return upload::upload(plan, inputs, &url, options, progress);
    }
    let destination = Destination::resolve(out, plan, inputs, options)?;
    let (written, partial) = if options.weights_only {
        (
            weights_only::place(plan, &destination, options, progress),
            destination.partial_inside(),
        )
    } else {
        (
            directory::begin(plan, &destination, options, progress).and_then(|begun| {
                directory::write(begun, plan, &destination, options, progress, &())
                    .map(|written| written.finish(&destination))
            }),
            destination.partial_beside(),
        )
    };
    written.map_err(|error| destination.as_asked_for(error, &partial))
}

/// The partial directory that a run on `out` has left, if there is one.
pub fn left_by_earlier_run(out: &Path, weights_only: bool) -> Option<PathBuf> {
    if let Some(url) = url(out) {
        return upload::left_by_earlier_run(&url);
    }
    let path = destination::partial_of(out, weights_only)?;
    path.exists().then_some(path)
}
