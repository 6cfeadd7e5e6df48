//! What a run would do, found out before it begins.

use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::materialize::destination::{Destination, url};
use crate::materialize::new_file::NewFile;
use crate::materialize::options::{Options, Share};
use crate::materialize::partial::{is_placing, parts_at, recorded};
use crate::materialize::request::Request;
use crate::materialize::space::{Outlook, Room};
use crate::materialize::{directory, upload, weights_only};
use crate::recipe::Plan;

/// What [`super::materialize`] would do. Quotas are not seen.
///
/// # Errors
/// If the destination is refused.
pub fn outlook(plan: &Plan, inputs: &[PathBuf], out: &Path, options: &Options) -> Result<Outlook> {
    if let Some(url) = url(out) {
        return upload::outlook(plan, inputs, &url, options);
    }
    let destination = Destination::resolve(out, plan, inputs, options)?;
    let (partial, files) = if options.weights_only {
        (destination.partial_inside(), weights_only::weights(plan))
    } else {
        let path = destination.partial_beside();
        if !is_placing(&path) {
            destination.check_replaceable(options.overwrite)?;
        }
        (path, directory::files(plan, options.share))
    };
    let parts = match options.share {
        Share::Whole => None,
        Share::Part(part) => Some(part.count()),
        Share::Finish => Some(parts_at(&partial)?),
    };
    let records = recorded(&partial, &Request::new(plan, options.weights_only, parts))?;
    let (kept, missing): (Vec<&NewFile>, Vec<&NewFile>) = files
        .iter()
        .partition(|file| records.get(&file.entry).is_some_and(|r| r.can_be_checked()));
    let existing = partial.ancestors().find(|path| path.is_dir());
    let room = Room::at(existing.unwrap_or(Path::new("/")))?;
    let bytes = |files: &[&NewFile]| files.iter().map(|file| file.content.len()).sum();
    Ok(Outlook {
        files: files.len(),
        bytes: files.iter().map(|file| file.content.len()).sum(),
        kept: kept.len(),
        kept_bytes: bytes(&kept),
        ..room.outlook(&missing, &partial.join("view"), options)
    })
}
