//! From a URL to a directory or a file.

use std::path::PathBuf;
use std::sync::Arc;

use reqwest::Url;

use crate::error::{Code, Error, Result};
use crate::source::Blob;
use crate::source::directory::Directory;
use crate::source::local::{LocalDirectory, LocalFile};
use crate::source::remote::directory::RemoteDirectory;
use crate::source::remote::hub::{Address, Hub};
use crate::source::remote::network::{Network, runtime};
use crate::source::remote::objects::Objects;
use crate::source::remote::store::Store;
use crate::source::remote::web::Web;

impl Network {
    /// The directory at `url`.
    ///
    /// # Errors
    /// If there is none, or it cannot be read.
    pub fn open(self: &Arc<Self>, url: &str) -> Result<Arc<dyn Directory>> {
        if let Some(path) = self.offline(url)? {
            return Ok(Arc::new(LocalDirectory::open(path)?));
        }
        let store = self.store(url)?;
        let url = url.trim_end_matches('/');
        Ok(Arc::new(RemoteDirectory::open(self.clone(), store, url)?))
    }

    /// The file at `url`; `None` if there is none of this name.
    ///
    /// # Errors
    /// If that cannot be found out.
    pub fn file(self: &Arc<Self>, url: &str) -> Result<Option<Arc<dyn Blob>>> {
        let Some((directory, name)) = url.trim_end_matches('/').rsplit_once('/') else {
            return Ok(None);
        };
        if url.starts_with("hf://") && Address::parse(url)?.is_repository() {
            return Ok(None);
        }
        if let Some(directory) = self.offline(directory)? {
            let path = directory.join(name);
            return match path.is_file() {
                true => Ok(Some(Arc::new(LocalFile::of_weights(path)?))),
                false => Ok(None),
            };
        }
        RemoteDirectory::file_alone(self, self.store(directory)?, name, url)
    }

    /// The directory of this machine that stands for `url`, where the network is not to be used.
    fn offline(&self, url: &str) -> Result<Option<PathBuf>> {
        if !self.options().hub.offline || !url.starts_with("hf://") {
            return Ok(None);
        }
        Hub::snapshot(&Address::parse(url)?, &self.options().hub).map(Some)
    }

    fn store(&self, url: &str) -> Result<Arc<dyn Store>> {
        let client = self.client().clone();
        let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
        if scheme.eq_ignore_ascii_case("hf") {
            let address = Address::parse(url)?;
            return Ok(Arc::new(Hub::new(client, address, self.options())?));
        }
        let parsed = Url::parse(url).ok().filter(Url::has_host);
        let parsed = parsed.ok_or_else(|| {
            Error::of_file(
                Code::UnsupportedPlace,
                url,
                "this is not a URL with a host or bucket",
            )
        })?;
        // object_store makes clients within.
        let _inside = runtime().enter();
        match parsed.scheme() {
            "s3" | "gs" | "az" => Ok(Arc::new(Objects::new(client, &parsed, self.options())?)),
            "https" | "http" => Ok(Arc::new(Web::new(client, parsed, self.options())?)),
            scheme => {
                let problem = format!("{scheme}:// is not a place that can be read");
                let error = Error::of_file(Code::UnsupportedPlace, url, problem);
                Err(error.with_hint("the places are s3://, gs://, az://, hf:// and https://"))
            }
        }
    }
}
