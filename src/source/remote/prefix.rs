//! A prefix of a bucket, with the client of its store: made of a URL and the settings in the environment.

use std::sync::Arc;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::HttpError;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{ObjectStore, RetryConfig};
use reqwest::Url;

use crate::error::{Code, Error, Result};
use crate::source::remote::causes::{causes, find_cause};
use crate::source::remote::certificate::Untrusted;
use crate::source::remote::connector::{Connector, NotEncrypted, Refused};
use crate::source::remote::crypto::Graviola;
use crate::source::remote::fault::Fault;

/// A prefix of a bucket.
#[derive(Debug)]
pub(super) struct Prefix {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) parts: Parts,
    /// The URL of the prefix, without a slash at its end.
    pub(super) root: String,
    pub(super) path: Path,
}

/// The same store, for objects that are sent in parts.
pub(super) struct Parts(pub(super) Arc<dyn MultipartStore>);

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Parts")
    }
}

/// The client of a store, which `$builder` makes of the settings whose names begin with `$prefix`.
macro_rules! client {
    ($builder:expr, $prefix:literal, $stores:expr, $connector:expr) => {{
        let mut builder = $builder;
        for (name, value) in $stores.iter().filter(|(name, _)| name.starts_with($prefix)) {
            if let Ok(key) = name.to_ascii_lowercase().parse() {
                builder = builder.with_config(key, value);
            }
        }
        // The caller retries, in the same way for all sources.
        let retry = RetryConfig {
            max_retries: 0,
            ..RetryConfig::default()
        };
        let builder = builder.with_retry(retry);
        let builder = builder.with_crypto_provider(Arc::new(Graviola));
        builder.with_http_connector($connector)
    }};
}

impl Prefix {
    /// The prefix at `url`, of one of the three kinds of stores, with `stores`, the settings in the
    /// environment.
    ///
    /// # Errors
    /// If the URL or the settings are not possible.
    pub(super) fn new(
        connector: Connector,
        url: &Url,
        stores: &[(String, String)],
    ) -> Result<Self> {
        let root = url.as_str().trim_end_matches('/').to_owned();
        let wrong = |error: object_store::Error| {
            Error::of_file(Code::UnsupportedPlace, &root, causes(&error))
        };
        if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() {
            let problem = "the URL of a prefix is scheme://bucket/prefix alone; settings and credentials are taken from the environment";
            return Err(Error::of_file(
                Code::UnsupportedPlace,
                format!("{}://…", url.scheme()),
                problem,
            ));
        }
        let bucket = url.host_str().unwrap_or_default();
        let path = Path::from_url_path(url.path()).map_err(|error| wrong(error.into()))?;
        let (store, parts): (Arc<dyn ObjectStore>, Arc<dyn MultipartStore>) = match url.scheme() {
            "s3" => {
                // Deleting objects one by one is what every store with this API can do.
                let builder = AmazonS3Builder::new().with_disable_bulk_delete(true);
                let builder = client!(builder, "AWS_", stores, connector);
                let store = Arc::new(builder.with_bucket_name(bucket).build().map_err(wrong)?);
                (store.clone(), store)
            }
            "gs" => {
                let builder = GoogleCloudStorageBuilder::new();
                let builder = client!(builder, "GOOGLE_", stores, connector);
                let store = Arc::new(builder.with_bucket_name(bucket).build().map_err(wrong)?);
                (store.clone(), store)
            }
            _ => {
                let builder = MicrosoftAzureBuilder::new();
                let builder = client!(builder, "AZURE_", stores, connector);
                let store = Arc::new(builder.with_container_name(bucket).build().map_err(wrong)?);
                (store.clone(), store)
            }
        };
        Ok(Prefix {
            store,
            parts: Parts(parts),
            root,
            path,
        })
    }

    /// The name below the prefix of the object at `location`; `None` for what only stands for a
    /// directory, and outside of the prefix.
    pub(super) fn name(&self, location: &Path) -> Option<String> {
        let parts = location.prefix_match(&self.path)?;
        let parts: Vec<String> = parts.map(|part| part.as_ref().to_owned()).collect();
        Some(parts.join("/")).filter(|name| !name.is_empty())
    }

    /// Where the object called `name` is in the bucket.
    pub(super) fn path_of(&self, name: &str) -> Path {
        // Names are taken as they are, as listings have them.
        let whole = format!("{}/{name}", self.path);
        Path::parse(&whole).unwrap_or_else(|_| {
            let parts = name.split('/').filter(|part| !part.is_empty());
            parts.fold(self.path.clone(), |path, part| path.join(part))
        })
    }

    /// The URL of the object called `name`, for messages.
    pub(super) fn url(&self, name: &str) -> String {
        format!("{}/{name}", self.root)
    }
}

/// Whether two entity tags are the same: Azure lists them without their quotes.
pub(super) fn same_tag(a: &str, b: &str) -> bool {
    a.trim_matches('"') == b.trim_matches('"')
}

/// What `error` of a request for `url` means, where the object is not known to exist; `credentials`
/// is what to do if access is refused.
pub(super) fn fault(url: &str, error: &object_store::Error, credentials: &'static str) -> Fault {
    if let Some(refused) = find_cause::<Refused>(error) {
        return Fault::Passing {
            what: refused.to_string(),
            after: refused.after,
        };
    }
    if let Some(error) = find_cause::<NotEncrypted>(error) {
        return Fault::Lasting(error.0.clone());
    }
    if let Some(untrusted) = find_cause::<Untrusted>(error) {
        return Fault::Lasting(untrusted.error(url));
    }
    let text = causes(error);
    match status(&text) {
        Some(404) => {
            let problem = "there is no such object or bucket";
            Error::of_file(Code::NotFound, url, problem).into()
        }
        Some(401 | 403) => Fault::denied(url, first_line(&text), credentials),
        _ if find_cause::<HttpError>(error).is_some() => Fault::passing(first_line(&text)),
        // With credentials that have expired, S3 replies 400.
        _ if text.contains("ExpiredToken") || text.contains("InvalidToken") => {
            Fault::denied(url, "the credentials have expired", credentials)
        }
        // A reply that began well before the server failed.
        None if text.contains("InternalError") || text.contains("SlowDown") => {
            Fault::passing(first_line(&text))
        }
        _ => {
            let problem = format!("the store replied: {}", first_line(&text));
            Error::of_file(Code::BadReply, url, problem).into()
        }
    }
}

/// The status of the reply that an error with this text is about: the errors of listings have it nowhere else.
pub(super) fn status(text: &str) -> Option<u16> {
    text.split_once("status code: ")?.1.get(..3)?.parse().ok()
}

/// What fits in a message of a reply that may be a page.
fn first_line(text: &str) -> String {
    const MOST: usize = 300;
    let line = text.lines().next().unwrap_or_default();
    line.chars().take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_store_refuses_says_what_to_do_and_is_not_tried_again() {
        let code = |text: &str| {
            let error = object_store::Error::Generic {
                store: "S3",
                source: text.to_owned().into(),
            };
            match fault("s3://bucket/a", &error, "check the credentials") {
                Fault::Lasting(error) => (Some(error.code()), error.to_string()),
                Fault::Passing { what, .. } => (None, what),
            }
        };
        let reply = |status: &str, name: &str| {
            format!("the reply had status code: {status}: <Error><Code>{name}</Code></Error>")
        };
        for (status, name, expected, word) in [
            // Credentials that were good for an hour.
            ("400", "ExpiredToken", Code::AccessDenied, "have expired"),
            ("400", "InvalidToken", Code::AccessDenied, "have expired"),
            ("403", "AccessDenied", Code::AccessDenied, "AccessDenied"),
            ("401", "Unauthorized", Code::AccessDenied, "credentials"),
            ("404", "NoSuchKey", Code::NotFound, "no such object"),
            ("400", "Malformed", Code::BadReply, "Malformed"),
        ] {
            let (code, text) = code(&reply(status, name));
            assert_eq!(code, Some(expected), "{text}");
            assert!(text.contains(word), "{word}: {text}");
        }
        assert_eq!(code("SlowDown").0, None);
    }
}
