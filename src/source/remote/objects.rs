//! `s3://`, `gs://` and `az://`: object stores.

use std::ops::Range;
use std::path::Path;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStoreExt};
use reqwest::{Client, Url};

use crate::error::{Code, Error, Result};
use crate::source::remote::causes::causes;
use crate::source::remote::connector::Connector;
use crate::source::remote::fault::{Attempt, Fault};
use crate::source::remote::options::NetworkOptions;
use crate::source::remote::prefix::{Prefix, fault, same_tag, status};
use crate::source::remote::reply;
use crate::source::remote::store::{Body, Object, Pin, Store};
use crate::source::remote::web::unpinned;

/// The most objects below a prefix.
pub(super) const MOST_OBJECTS: usize = 1 << 18;

const CREDENTIALS: &str = "check the credentials in the environment, and that they may list and read objects; without the permission to list, an object that is missing is refused too";

/// A prefix of a bucket.
#[derive(Debug)]
pub(super) struct Objects {
    prefix: Prefix,
    allow_unpinned: bool,
}

impl Objects {
    /// The prefix at `url`, of one of the three kinds of stores.
    ///
    /// # Errors
    /// If the URL or the settings in the environment are not possible.
    pub(super) fn new(client: Client, url: &Url, options: &NetworkOptions) -> Result<Self> {
        let connector = Connector {
            client,
            limits: None,
        };
        Ok(Objects {
            prefix: Prefix::new(connector, url, &options.stores)?,
            allow_unpinned: options.allow_unpinned,
        })
    }

    /// What `meta` says; `None` for what only stands for a directory.
    fn object(&self, meta: ObjectMeta) -> Attempt<Option<Object>> {
        let Some(name) = self.prefix.name(&meta.location) else {
            return Ok(None);
        };
        let url = self.prefix.url(&name);
        let strong = meta.e_tag.filter(|tag| !tag.starts_with("W/"));
        let pin = match strong {
            // Azure lists them without quotes, which a condition must have.
            Some(tag) => Pin::Tag(format!("\"{}\"", tag.trim_matches('"'))),
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

    /// What `error` of a request for `url` means, where the object is not known to exist.
    fn fault(url: &str, error: &object_store::Error) -> Fault {
        fault(url, error, CREDENTIALS)
    }
}

impl Store for Objects {
    fn list(&self) -> BoxFuture<'_, Attempt<Vec<Object>>> {
        async move {
            let mut objects = Vec::new();
            let mut listed = self.prefix.store.list(Some(&self.prefix.path));
            let root = &self.prefix.root;
            let fault = |error| Self::fault(root, &error);
            while let Some(meta) = listed.try_next().await.map_err(fault)? {
                objects.extend(self.object(meta)?);
                if objects.len() > MOST_OBJECTS {
                    let problem = format!("there are more than {MOST_OBJECTS} objects below it");
                    return Err(Error::of_file(Code::OverLimit, root, problem).into());
                }
            }
            Ok(objects)
        }
        .boxed()
    }

    fn find<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Attempt<Option<Object>>> {
        async move {
            match self.prefix.store.head(&self.prefix.path_of(name)).await {
                Ok(meta) => self.object(meta),
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(Self::fault(&self.prefix.url(name), &error)),
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
            let path = self.prefix.path_of(&object.name);
            let reply = self.prefix.store.get_opts(&path, options).await;
            let reply = reply.map_err(|error| match error {
                object_store::Error::NotFound { .. } => Fault::changed(object.url(), "it is gone"),
                object_store::Error::Precondition { .. } => {
                    let what = format!("the store has other content ({} was planned)", object.pin);
                    Fault::changed(object.url(), what)
                }
                error if status(&causes(&error)) == Some(416) => {
                    Fault::changed(object.url(), "it is shorter than it was")
                }
                error => Self::fault(object.url(), &error),
            })?;
            // Some stores take no notice of If-Match.
            match (&tag, &reply.meta.e_tag) {
                (Some(planned), Some(found)) if !same_tag(planned, found) => {
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
