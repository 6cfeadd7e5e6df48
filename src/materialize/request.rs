//! What is being written, in a form that outlives the process: whether a later run, or another
//! machine, writes the same bytes.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use crate::fingerprint::Fingerprint;
use crate::manifest::to_hex;
use crate::recipe::Plan;
use crate::source::{Blob, Identity, LocalFile};
use crate::view::Content;

/// The layout of partial directories. Another one is not gone on with.
const FORMAT: u32 = 1;

/// What a partial directory is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Request {
    format: u32,
    /// Another version may compute other bytes.
    program: String,
    /// Checksum of all that decides on the bytes but the sources' content.
    plan: String,
    /// How many parts it is written in, or `None` if one run writes all of it.
    pub(super) parts: Option<usize>,
    sources: Vec<Source>,
}

/// A source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Source {
    /// Of parts the name alone: machines may see a directory at different places.
    file: String,
    bytes: u64,
    /// Nanoseconds since 1970.
    modified: i128,
    /// Device and inode of a local file. Machines see one file with different devices, so parts have
    /// none.
    identity: Option<(u64, u64)>,
    /// What pins a source that is not a local file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content: Option<Identity>,
}

impl Request {
    /// The request to write the view of `plan`, in so many parts.
    pub(super) fn new(plan: &Plan, weights_only: bool, parts: Option<usize>) -> Self {
        let mut sources: BTreeMap<Arc<Path>, Source> = BTreeMap::new();
        plan.view.for_each_source(&mut |blob| {
            let entry = sources.entry(blob.location().clone());
            entry.or_insert_with(|| Source::new(&**blob, parts.is_some()));
        });
        Request {
            format: FORMAT,
            program: format!("ckptfs {}", env!("CARGO_PKG_VERSION")),
            plan: fingerprint(plan, weights_only),
            parts,
            sources: sources.into_values().collect(),
        }
    }

    /// What makes `other` another request, if it is one.
    pub(super) fn difference(&self, other: &Request) -> Option<String> {
        if self == other {
            return None;
        }
        let changed = || {
            let (mine, others) = (self.sources.iter(), &other.sources);
            let same_file = |a: &Source, b: &Source| a.file == b.file;
            let mut changed = mine.filter(|a| !others.iter().any(|b| b == *a));
            let source = changed.find(|a| others.iter().any(|b| same_file(a, b)))?;
            Some(format!("{} was changed since", source.file))
        };
        Some(
            if (self.format, &self.program) != (other.format, &other.program) {
                format!(
                    "it was begun by {}, and this is {}",
                    other.program, self.program
                )
            } else if self.parts != other.parts {
                let say = |parts: Option<usize>| match parts {
                    Some(parts) => format!("in {parts} parts"),
                    None => "as a whole".to_owned(),
                };
                format!(
                    "it was begun {}, and this is to be written {}",
                    say(other.parts),
                    say(self.parts)
                )
            } else if let Some(changed) = changed() {
                changed
            } else if self.plan != other.plan {
                "it is of another view".to_owned()
            } else {
                "it is of other source files".to_owned()
            },
        )
    }
}

impl Source {
    fn new(blob: &dyn Blob, of_parts: bool) -> Self {
        let path = blob.location();
        let local = blob.as_local();
        let name = path.file_name().filter(|_| of_parts);
        let modified = match blob.attributes().mtime.duration_since(UNIX_EPOCH) {
            Ok(after) => after.as_nanos() as i128,
            Err(before) => -(before.duration().as_nanos() as i128),
        };
        Source {
            file: name
                .unwrap_or(path.as_os_str())
                .to_string_lossy()
                .into_owned(),
            bytes: blob.len(),
            modified,
            identity: local.filter(|_| !of_parts).map(LocalFile::device_and_inode),
            content: local.is_none().then(|| blob.identity()),
        }
    }
}

/// The checksum of the view of `plan`: names, lengths, synthesized bytes, and for all others where
/// in which source they lie or how they are computed. It is the same on every machine.
fn fingerprint(plan: &Plan, weights_only: bool) -> String {
    let mut print = Fingerprint::default();
    print.number(weights_only.into());
    for id in 0..plan.view.len() {
        print.text(plan.view.path(id).as_os_str().as_bytes());
        let entry = plan.view.get(id).expect("an id of the view");
        let Content::File(content) = &entry.content else {
            print.text(b"directory");
            continue;
        };
        print.number(content.len());
        for segment in content.segments() {
            print.segment(segment);
        }
    }
    to_hex(&print.finish())
}
