//! The file as torch has written it since 1.6: a zip archive of entries that are stored as they are.
//!
//! | entry | content |
//! |---|---|
//! | `ROOT/data.pkl` | the pickle; ROOT is the stem of the name that the file had, or `archive` |
//! | `ROOT/data/KEY` | the storage that the pickle calls KEY |
//! | `ROOT/byteorder` | `little` or `big`; older files have none and are little-endian |
//! | `ROOT/constants.pkl`, `ROOT/code/…` | only in TorchScript |
//! | others | nothing that tensors depend on |

use crate::error::{Code, Error, Result};
use crate::format::torch::pickle::{Input, load};
use crate::format::torch::saved::{Saved, Storages};
use crate::format::torch::zip::Archive;
use crate::shown::Show;
use crate::source::Blob;

const PICKLE: &str = "/data.pkl";

/// What `file` has saved.
///
/// # Errors
/// As [`torch::open`](super::open).
pub(super) fn open(file: &dyn Blob) -> Result<Saved<'_>> {
    let path = file.location();
    let archive = Archive::open(file)?;
    let root = root(file, &archive)?.to_owned();
    let unsupported = |problem: &str| Err(Error::of_file(Code::UnsupportedTorch, path, problem));
    let code = format!("{root}/code/");
    let is_script = archive.has(&format!("{root}/constants.pkl"))
        || archive.names().any(|name| name.starts_with(&code));
    if is_script {
        let problem = "it is TorchScript, a program and not a state dict";
        let error = Error::of_file(Code::UnsupportedTorch, path, problem);
        return Err(error.with_hint("load it with torch.jit.load and save its state_dict()"));
    }
    if let Some(order) = archive.entry(&format!("{root}/byteorder"))? {
        let mut text = vec![0; order.len.min(16) as usize];
        file.read_at(&mut text, order.offset)?;
        match text.trim_ascii() {
            b"little" => {}
            b"big" => {
                return unsupported(
                    "its numbers are big-endian, and those of safetensors little-endian",
                );
            }
            _ => return unsupported("its byte order is neither little nor big"),
        }
    }
    let pickle = archive.entry(&format!("{root}{PICKLE}"))?;
    let pickle = pickle.expect("the root is where it is");
    let pickle = load(&mut Input::new(
        file,
        pickle.offset,
        pickle.offset + pickle.len,
    ))?;
    let storages = Storages::Entries { archive, root };
    Ok(Saved {
        file,
        pickle,
        storages,
    })
}

/// What the names of all that torch has written begin with.
fn root<'a>(file: &dyn Blob, archive: &'a Archive) -> Result<&'a str> {
    let roots = archive.names().filter_map(|name| name.strip_suffix(PICKLE));
    let mut roots = roots.filter(|root| !root.contains('/'));
    match (roots.next(), roots.next()) {
        (Some(root), None) => Ok(root),
        (None, _) => {
            let problem = "this is not a file of torch.save: it is a zip archive without an entry archive/data.pkl";
            Err(Error::of_file(Code::BadTorchFile, file.location(), problem))
        }
        (Some(first), Some(second)) => {
            let [first, second] = if first < second {
                [first, second]
            } else {
                [second, first]
            };
            let problem = format!(
                "it has two pickles, {}{PICKLE} and {}{PICKLE}",
                first.shown(),
                second.shown()
            );
            Err(Error::of_file(Code::BadTorchFile, file.location(), problem))
        }
    }
}
