//! `s3://`, `gs://` and `az://`: object stores.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::{
    ClientConfigKey, ClientOptions, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt,
    RetryConfig,
};
use reqwest::{Client, Url};

use crate::error::{Code, Error, Result};
use crate::source::remote::client::check_encrypted;
use crate::source::remote::crypto::Graviola;
use crate::source::remote::fault::{Attempt, Fault, causes};
use crate::source::remote::options::NetworkOptions;
use crate::source::remote::reply;
use crate::source::remote::store::{Body, Object, Pin, Store};
use crate::source::remote::web::unpinned;

/// The most objects below a prefix.
const MOST_OBJECTS: usize = 1 << 18;

const CREDENTIALS: &str = "check the credentials in the environment, and that they may list and read objects; without the permission to list, an object that is missing is refused too";

/// A prefix of a bucket.
#[derive(Debug)]
pub(super) struct Objects {
    store: Box<dyn ObjectStore>,
    /// The URL of the prefix, without a slash at its end.
    root: String,
    prefix: object_store::path::Path,
    allow_unpinned: bool,
}

impl Objects {
    /// The prefix at `url`, of one of the three kinds of stores.
    ///
    /// # Errors
    /// If the URL or the settings in the environment are not possible.
    pub(super) fn new(client: Client, url: &Url, options: &NetworkOptions) -> Result<Self> {
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
        let prefix = object_store::path::Path::from_url_path(url.path());
        let prefix = prefix.map_err(|error| wrong(error.into()))?;
        let connector = Connector(client);
        // The caller retries, in the same way for all sources.
        let retry = RetryConfig {
            max_retries: 0,
            ..RetryConfig::default()
        };
        let settings = |prefix: &'static str| {
            let all = options.stores.iter();
            all.filter(move |(name, _)| name.starts_with(prefix))
        };
        let store: Box<dyn ObjectStore> = match url.scheme() {
            "s3" => {
                let mut builder = AmazonS3Builder::new();
                for (name, value) in settings("AWS_") {
                    if let Ok(key) = name.to_ascii_lowercase().parse() {
                        builder = builder.with_config(key, value);
                    }
                }
                let builder = builder.with_bucket_name(bucket).with_retry(retry);
                let builder = builder.with_crypto_provider(Arc::new(Graviola));
                let store = builder.with_http_connector(connector).build();
                Box::new(store.map_err(wrong)?)
            }
            "gs" => {
                let mut builder = GoogleCloudStorageBuilder::new();
                for (name, value) in settings("GOOGLE_") {
                    if let Ok(key) = name.to_ascii_lowercase().parse() {
                        builder = builder.with_config(key, value);
                    }
                }
                let builder = builder.with_bucket_name(bucket).with_retry(retry);
                let builder = builder.with_crypto_provider(Arc::new(Graviola));
                let store = builder.with_http_connector(connector).build();
                Box::new(store.map_err(wrong)?)
            }
            _ => {
                let mut builder = MicrosoftAzureBuilder::new();
                for (name, value) in settings("AZURE_") {
                    if let Ok(key) = name.to_ascii_lowercase().parse() {
                        builder = builder.with_config(key, value);
                    }
                }
                let builder = builder.with_container_name(bucket).with_retry(retry);
                let builder = builder.with_crypto_provider(Arc::new(Graviola));
                let store = builder.with_http_connector(connector).build();
                Box::new(store.map_err(wrong)?)
            }
        };
        Ok(Objects {
            store,
            root,
            prefix,
            allow_unpinned: options.allow_unpinned,
        })
    }

    /// What `meta` says; `None` for what only stands for a directory.
    fn object(&self, meta: ObjectMeta) -> Attempt<Option<Object>> {
        let Some(parts) = meta.location.prefix_match(&self.prefix) else {
            return Ok(None);
        };
        let parts: Vec<String> = parts.map(|part| part.as_ref().to_owned()).collect();
        let name = parts.join("/");
        if name.is_empty() {
            return Ok(None);
        }
        let url = format!("{}/{name}", self.root);
        let strong = meta.e_tag.filter(|tag| !tag.starts_with("W/"));
        let pin = match strong {
            Some(tag) => Pin::Tag(tag),
            None if self.allow_unpinned => Pin::Nothing,
            None => return Err(unpinned(&url).into()),
        };
        Ok(Some(Object {
            name,
            location: Path::new(&url).into(),
            len: meta.size,
            modified: meta.last_modified.into(),
            pin,
        }))
    }

    fn path(&self, name: &str) -> object_store::path::Path {
        let parts = name.split('/').filter(|part| !part.is_empty());
        parts.fold(self.prefix.clone(), |path, part| path.join(part))
    }

    /// What `error` of a request for `url` means, where the object is not known to exist.
    fn fault(&self, url: &str, error: &object_store::Error) -> Fault {
        if let Some(refused) = find_cause::<Refused>(error) {
            return Fault::Passing {
                what: refused.to_string(),
                after: refused.after,
            };
        }
        if let Some(error) = find_cause::<NotEncrypted>(error) {
            return Fault::Lasting(error.0.clone());
        }
        let text = causes(error);
        match status(&text) {
            Some(404) => {
                let problem = "there is no such object or bucket";
                Error::of_file(Code::NotFound, url, problem).into()
            }
            Some(401 | 403) => Fault::denied(url, first_line(&text), CREDENTIALS),
            _ if find_cause::<HttpError>(error).is_some() => Fault::passing(first_line(&text)),
            // With credentials that have expired, S3 replies 400.
            _ if text.contains("ExpiredToken") || text.contains("InvalidToken") => {
                Fault::denied(url, "the credentials have expired", CREDENTIALS)
            }
            _ => {
                let problem = format!("the store replied: {}", first_line(&text));
                Error::of_file(Code::BadReply, url, problem).into()
            }
        }
    }
}

/// The status of the reply that an error with this text is about: the errors of listings have it nowhere else.
fn status(text: &str) -> Option<u16> {
    text.split_once("status code: ")?.1.get(..3)?.parse().ok()
}

/// The cause of a kind among those of `error`.
fn find_cause<'a, T: std::error::Error + 'static>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// What fits in a message of a reply that may be a page.
fn first_line(text: &str) -> String {
    const MOST: usize = 300;
    let line = text.lines().next().unwrap_or_default();
    line.chars().take(MOST).collect()
}

impl Store for Objects {
    fn list(&self) -> BoxFuture<'_, Attempt<Vec<Object>>> {
        async move {
            let mut objects = Vec::new();
            let mut listed = self.store.list(Some(&self.prefix));
            let fault = |error| self.fault(&self.root, &error);
            while let Some(meta) = listed.try_next().await.map_err(fault)? {
                objects.extend(self.object(meta)?);
                if objects.len() > MOST_OBJECTS {
                    let problem = format!("there are more than {MOST_OBJECTS} objects below it");
                    return Err(Error::of_file(Code::OverLimit, &self.root, problem).into());
                }
            }
            Ok(objects)
        }
        .boxed()
    }

    fn find<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Attempt<Option<Object>>> {
        async move {
            match self.store.head(&self.path(name)).await {
                Ok(meta) => self.object(meta),
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(self.fault(&format!("{}/{name}", self.root), &error)),
            }
        }
        .boxed()
    }

    fn get<'a>(&'a self, object: &'a Object, range: Range<u64>) -> BoxFuture<'a, Attempt<Body>> {
        async move {
            let tag = match &object.pin {
                Pin::Tag(tag) => Some(tag.clone()),
                _ => None,
            };
            let options = GetOptions {
                range: Some(GetRange::Bounded(range.clone())),
                if_match: tag.clone(),
                ..GetOptions::default()
            };
            let reply = self.store.get_opts(&self.path(&object.name), options).await;
            let reply = reply.map_err(|error| match error {
                object_store::Error::NotFound { .. } => Fault::changed(object.url(), "it is gone"),
                object_store::Error::Precondition { .. } => {
                    let what = format!("the store has other content ({} was planned)", object.pin);
                    Fault::changed(object.url(), what)
                }
                error if status(&causes(&error)) == Some(416) => {
                    Fault::changed(object.url(), "it is shorter than it was")
                }
                error => self.fault(object.url(), &error),
            })?;
            // Some stores take no notice of If-Match.
            match (&tag, &reply.meta.e_tag) {
                (Some(planned), Some(found)) if planned != found => {
                    let what = format!("its entity tag was {planned} and is {found}");
                    return Err(Fault::changed(object.url(), what));
                }
                (Some(planned), None) => {
                    let problem = format!("the reply lacks its entity tag, which was {planned}");
                    return Err(Fault::bad_reply(object.url(), problem));
                }
                _ => {}
            }
            if reply.meta.size != object.len {
                return Err(reply::length_changed(object, reply.meta.size));
            }
            if reply.range != range {
                let problem = format!(
                    "the reply is {:?}, and {range:?} was asked for",
                    reply.range
                );
                return Err(Fault::bad_reply(object.url(), problem));
            }
            let bytes = reply.into_stream();
            Ok(bytes.map_err(|error| Fault::of_connection(&error)).boxed())
        }
        .boxed()
    }
}

/// The connections of this process, for requests that `object_store` makes.
#[derive(Debug)]
struct Connector(Client);

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let allowed = options.get_config_value(&ClientConfigKey::AllowHttp);
        Ok(HttpClient::new(Connection {
            client: self.0.clone(),
            allow_http: allowed.as_deref() == Some("true"),
        }))
    }
}

#[derive(Debug)]
struct Connection {
    client: Client,
    allow_http: bool,
}

#[async_trait]
impl HttpService for Connection {
    async fn call(&self, request: HttpRequest) -> std::result::Result<HttpResponse, HttpError> {
        let url = request.uri().to_string().parse::<Url>();
        let encrypted = match &url {
            Ok(url) => check_encrypted(url, self.allow_http),
            Err(_) => Ok(()),
        };
        encrypted.map_err(|e| HttpError::new(HttpErrorKind::Decode, NotEncrypted(e)))?;
        let response = HttpService::call(&self.client, request).await?;
        match reply::passing(response.status(), response.headers()) {
            Some(Fault::Passing { what, after }) => {
                let refused = Refused { what, after };
                Err(HttpError::new(HttpErrorKind::Decode, refused))
            }
            _ => Ok(response),
        }
    }
}

/// A reply that another request may not get.
#[derive(Debug)]
struct Refused {
    what: String,
    after: Option<std::time::Duration>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Refused {}

/// A request that was not made.
#[derive(Debug)]
struct NotEncrypted(Error);

impl fmt::Display for NotEncrypted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for NotEncrypted {}
