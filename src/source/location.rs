//! Where checkpoints and adapters are: what a request names its sources by.

use std::ffi::OsStr;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Code, Error, Result};
use crate::source::blob::Blob;
use crate::source::directory::Directory;
use crate::source::local::{LocalDirectory, LocalFile};
use crate::source::naming::missing;
#[cfg(feature = "remote")]
use crate::source::remote::Network;

/// Where a checkpoint or an adapter is.
///
/// A text that begins with `scheme://` is a URL, and everything else is a path.
#[derive(Debug, Clone)]
pub enum Location {
    /// In a directory of this machine, or in a file, where one may stand for a checkpoint.
    Local(PathBuf),
    /// At a URL. Only a build with the feature `remote` opens any.
    Url(String),
    /// In a directory that is open already, of whichever kind.
    Open(Arc<dyn Directory>),
}

impl Location {
    /// Opens the directory that is there.
    ///
    /// # Errors
    /// If there is none, or this build cannot open places of this kind.
    pub fn open(&self) -> Result<Arc<dyn Directory>> {
        match self {
            Location::Local(path) => Ok(Arc::new(LocalDirectory::open(path.clone())?)),
            Location::Url(url) => open_url(url),
            Location::Open(directory) => Ok(directory.clone()),
        }
    }

    /// The file of weights that is there, if it is a file.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn weights(&self) -> Result<Option<Arc<dyn Blob>>> {
        match self {
            Location::Local(path) if path.is_file() => {
                Ok(Some(Arc::new(LocalFile::of_weights(path.as_path())?)))
            }
            Location::Url(url) => file_at_url(url),
            Location::Local(_) | Location::Open(_) => Ok(None),
        }
    }

    /// The file that is there, where a file is wanted.
    ///
    /// # Errors
    /// If there is none, or it cannot be opened.
    pub fn file(&self) -> Result<Arc<dyn Blob>> {
        match self {
            Location::Local(path) if matches!(path.try_exists(), Ok(false)) => {
                Err(missing(path, "file"))
            }
            Location::Local(path) => Ok(Arc::new(LocalFile::new(path.as_path())?)),
            Location::Url(url) => file_at_url(url)?.ok_or_else(|| no_file_at_url(url)),
            Location::Open(directory) => {
                let problem = "this is a directory, and a file is wanted";
                let location = directory.location();
                Err(Error::of_file(Code::WrongFileKind, location, problem))
            }
        }
    }

    /// The file `name` in the directory that the file here is in.
    #[must_use]
    pub fn with_file_name(&self, name: &str) -> Self {
        match self {
            Location::Url(url) => {
                let directory = url.rsplit_once('/').map_or("", |(directory, _)| directory);
                Location::Url(format!("{directory}/{name}"))
            }
            other => Location::Local(other.as_path().with_file_name(name)),
        }
    }

    /// As messages and reports write it. Only of [`local`](Self::local) ones this is a path of
    /// this machine.
    pub fn as_path(&self) -> &Path {
        match self {
            Location::Local(path) => path,
            Location::Url(url) => Path::new(url),
            Location::Open(directory) => directory.location(),
        }
    }

    /// The directory, or file, of this machine, if it is one.
    pub fn local(&self) -> Option<&Path> {
        match self {
            Location::Local(path) => Some(path),
            Location::Url(_) | Location::Open(_) => None,
        }
    }

    /// Checks that it is on this machine, as `what` ("a recipe") has to be.
    ///
    /// # Errors
    /// If it is elsewhere.
    pub fn check_local(&self, what: &str) -> Result<()> {
        if self.local().is_some() {
            return Ok(());
        }
        let problem = format!("{what} is read from this machine only, and this is a URL");
        let error = Error::of_file(Code::UnsupportedPlace, self.as_path(), problem);
        Err(error.with_hint("copy it to this machine"))
    }

    /// The same, where a relative path starts from `directory`.
    #[must_use]
    pub fn relative_to(self, directory: &Path) -> Self {
        match self {
            Location::Local(path) => Location::Local(directory.join(path)),
            other => other,
        }
    }
}

/// Open directories are equal if they are the same one.
impl PartialEq for Location {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Location::Local(a), Location::Local(b)) => a == b,
            (Location::Url(a), Location::Url(b)) => a == b,
            (Location::Open(a), Location::Open(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

impl Eq for Location {}

impl Hash for Location {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_path().hash(state);
    }
}

impl<T: AsRef<OsStr> + ?Sized> From<&T> for Location {
    fn from(text: &T) -> Self {
        match text.as_ref().to_str().filter(|text| is_url(text)) {
            Some(url) => Location::Url(url.to_owned()),
            None => Location::Local(text.into()),
        }
    }
}

impl From<PathBuf> for Location {
    fn from(path: PathBuf) -> Self {
        Location::from(&path)
    }
}

impl From<&Location> for Location {
    fn from(location: &Location) -> Self {
        location.clone()
    }
}

impl From<Arc<dyn Directory>> for Location {
    fn from(directory: Arc<dyn Directory>) -> Self {
        Location::Open(directory)
    }
}

#[cfg(feature = "remote")]
fn open_url(url: &str) -> Result<Arc<dyn Directory>> {
    Network::shared()?.open(url)
}

#[cfg(feature = "remote")]
fn file_at_url(url: &str) -> Result<Option<Arc<dyn Blob>>> {
    Network::shared()?.file(url)
}

#[cfg(feature = "remote")]
fn no_file_at_url(url: &str) -> Error {
    Error::of_file(Code::NotFound, url, "there is no such file")
}

#[cfg(not(feature = "remote"))]
fn open_url(url: &str) -> Result<Arc<dyn Directory>> {
    Err(no_file_at_url(url))
}

#[cfg(not(feature = "remote"))]
fn no_file_at_url(url: &str) -> Error {
    let problem = "this build reads local files only";
    let error = Error::of_file(Code::UnsupportedPlace, url, problem);
    error.with_hint("build ckptfs with the Cargo feature remote, or copy the files to this machine and name them there")
}

/// A directory is asked for next, which says what is wrong.
#[cfg(not(feature = "remote"))]
fn file_at_url(_: &str) -> Result<Option<Arc<dyn Blob>>> {
    Ok(None)
}

/// Whether `text` begins with a scheme (RFC 3986, 3.1) and `://`.
fn is_url(text: &str) -> bool {
    let Some((scheme, _)) = text.split_once("://") else {
        return false;
    };
    let is_scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(is_scheme)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheme_makes_a_url_and_everything_else_is_a_path() {
        for url in ["s3://bucket/m", "hf://org/model@main", "git+https://x"] {
            let location = Location::from(url);
            assert_eq!(location, Location::Url(url.to_owned()));
            assert_eq!(location.local(), None);
            assert_eq!(
                location.relative_to(Path::new("/r")).as_path(),
                Path::new(url)
            );
        }
        for path in [
            "m", "/m", "./s3://b", "s3:/b", "://b", "3s://b", "a b://c", "a/b://c",
        ] {
            let location = Location::from(path);
            assert_eq!(location.local(), Some(Path::new(path)));
            let joined = Path::new("/r").join(path);
            assert_eq!(
                location.relative_to(Path::new("/r")),
                Location::Local(joined)
            );
        }
    }

    #[test]
    fn a_place_that_this_build_cannot_open_is_an_error_with_a_code() {
        let location = Location::from("ftp://host/m");
        let errors = [
            location.open().map(drop).unwrap_err(),
            location.file().map(drop).unwrap_err(),
        ];
        let problem = if cfg!(feature = "remote") {
            ": ftp:// is not a place that can be read; the places are s3://, gs://, az://, hf:// and https://"
        } else {
            ": this build reads local files only; build ckptfs with the Cargo feature remote, or copy the files to this machine and name them there"
        };
        for error in errors {
            assert_eq!(error.code(), Code::UnsupportedPlace);
            let text = error.to_string();
            assert!(
                text.starts_with("ftp://host") && text.ends_with(problem),
                "{text}"
            );
        }
    }

    #[test]
    fn what_has_to_be_on_this_machine_is_refused_at_a_url() {
        assert!(Location::from("a").check_local("a recipe").is_ok());
        let error = Location::from("s3://b/a")
            .check_local("a recipe")
            .unwrap_err();
        assert_eq!(error.code(), Code::UnsupportedPlace);
        assert!(error.to_string().starts_with("s3://b/a: a recipe is read"));
    }

    #[test]
    fn a_file_is_opened_where_one_is_wanted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        std::fs::write(&path, "x").unwrap();
        assert_eq!(Location::from(&path).file().unwrap().len(), 1);
        let code = |location: Location| location.file().unwrap_err().code();
        assert_eq!(code(directory.path().into()), Code::WrongFileKind);
        assert_eq!(code(directory.path().join("b").into()), Code::NotFound);
        let open = Location::from(directory.path()).open().unwrap();
        assert_eq!(code(open.into()), Code::WrongFileKind);
    }
}
