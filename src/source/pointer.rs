//! Pointers of Git LFS, which stand in place of files that were not downloaded:
//! <https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md>.

use std::path::Path;

use crate::error::{Code, Error, Hint, Warning};
use crate::shown::Show;

/// A file of 1,024 bytes or more is no pointer.
pub(super) const MAX_BYTES: u64 = 1023;

/// A pointer to a file of this many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pointer(u64);

impl Pointer {
    /// The pointer that `text` is.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        if text.len() as u64 > MAX_BYTES {
            return None;
        }
        let text = std::str::from_utf8(text).ok()?;
        let mut lines = text.lines();
        let version = lines.next()?.strip_prefix("version ")?;
        version.contains("git-lfs").then_some(())?;
        let size = lines.find_map(|line| line.strip_prefix("size "))?;
        size.parse().ok().map(Pointer)
    }

    fn problem(self) -> String {
        let Pointer(bytes) = self;
        format!("it is a Git LFS pointer to {bytes} bytes, and not the file itself")
    }

    /// The error that the pointer at `path` is not the file.
    pub(crate) fn error(self, path: &Path) -> Error {
        let error = Error::of_file(Code::NotDownloaded, path, self.problem());
        error.with_hint(download(path))
    }

    /// The warning that a view shows the pointer at `path` instead of the file.
    pub(super) fn warning(self, path: &Path) -> Warning {
        let warning = Warning::new(Code::NotDownloaded, self.problem());
        warning.in_file(path).with_hint(download(path))
    }
}

fn download(path: &Path) -> Hint {
    let directory = path.parent().unwrap_or(path).shown();
    Hint::text(format!(
        "download it: git lfs install && git -C {directory} lfs pull"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_is_told_from_any_other_text() {
        let text = "version https://git-lfs.github.com/spec/v1\n\
                    oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n\
                    size 4976698672\n";
        assert_eq!(
            Pointer::parse(text.as_bytes()),
            Some(Pointer(4_976_698_672))
        );
        let others = [
            "",
            "version 2\nsize 3\n",
            "version https://git-lfs.github.com/spec/v1\n",
            "version https://git-lfs.github.com/spec/v1\nsize many\n",
            "{\"version\": \"https://git-lfs.github.com/spec/v1\"}",
        ];
        for other in others {
            assert_eq!(Pointer::parse(other.as_bytes()), None, "{other}");
        }
        let long = format!("{text}{}", " ".repeat(1024));
        assert_eq!(Pointer::parse(long.as_bytes()), None);
    }
}
