//! Objects that are written: below a prefix of an object store, whole or in parts.
//!
//! Each call waits for the network, and tries again for as long as the sources of a view do.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::multipart::PartId;
use object_store::{MultipartId, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use reqwest::Url;

use crate::error::{Code, Error, Result};
use crate::source::remote::causes::causes;
use crate::source::remote::client;
use crate::source::remote::connector::Connector;
use crate::source::remote::fault::{Attempt, Fault};
use crate::source::remote::network::{Network, runtime};
use crate::source::remote::objects::MOST_OBJECTS;
use crate::source::remote::prefix::{Prefix, fault, same_tag, status};
use crate::source::remote::sending::Limits;
use crate::source::remote::transfer::{Patience, persistently, persistently_sending};

const CREDENTIALS: &str = "check the credentials in the environment, and that they may list, read, write and delete objects below this prefix";

/// Bytes that the connection takes at once: whether a slow one moves is seen by them.
const PIECE: usize = 64 << 10;

/// Requests in flight at once that delete.
const DELETED_AT_ONCE: usize = 32;

/// Time that is taken to clean up after a failure.
const BRIEFLY: Duration = Duration::from_secs(5);

/// A prefix of an object store that is written to.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    network: Arc<Network>,
    prefix: Arc<Prefix>,
    patience: Patience,
}

/// An object below the prefix.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) len: u64,
    pub(crate) tag: Option<String>,
}

/// An object that is being sent in parts. Nobody sees it before it is complete.
#[derive(Debug)]
pub(crate) struct Upload {
    bucket: Bucket,
    name: String,
    id: MultipartId,
}

/// A part that the store has.
#[derive(Debug, Clone)]
pub(crate) struct Part(PartId);

/// `url` as [`Bucket::url`] spells it.
pub(crate) fn spelled(url: &str) -> String {
    let parsed = Url::parse(url);
    let spelled = parsed.as_ref().map_or(url, Url::as_str);
    spelled.trim_end_matches('/').to_owned()
}

/// Whether two entity tags are of one content.
pub(crate) fn is_same_content(a: &str, b: &str) -> bool {
    same_tag(a, b)
}

impl Network {
    /// The prefix at `url`, to write to it.
    ///
    /// # Errors
    /// If this is not the URL of one in an object store, or its settings are not possible.
    pub(crate) fn bucket(self: &Arc<Self>, url: &str) -> Result<Bucket> {
        let patience = self.patience();
        let is_store = |url: &Url| url.has_host() && matches!(url.scheme(), "s3" | "gs" | "az");
        let parsed = Url::parse(url).ok().filter(is_store);
        let parsed = parsed.ok_or_else(|| {
            let problem = "this is not the URL of a bucket";
            Error::of_file(Code::UnsupportedPlace, url, problem)
        })?;
        // object_store makes clients within.
        let _inside = runtime().enter();
        let connector = Connector {
            client: client::new(patience.stall, None)?,
            limits: Some(Limits {
                stall: patience.stall,
                reply: patience.give_up,
            }),
        };
        Ok(Bucket {
            network: self.clone(),
            prefix: Arc::new(Prefix::new(connector, &parsed, &self.options().stores)?),
            patience,
        })
    }
}

impl Bucket {
    /// The URL of the prefix, without a slash at its end.
    pub(crate) fn url(&self) -> &str {
        &self.prefix.root
    }

    /// The URL of the object `name`, for messages.
    pub(crate) fn url_of(&self, name: &str) -> String {
        self.prefix.url(name)
    }

    /// Whether this is all of a bucket.
    pub(crate) fn is_whole_bucket(&self) -> bool {
        self.prefix.path.as_ref().is_empty()
    }

    /// All objects below the prefix.
    pub(crate) fn list(&self) -> Result<Vec<Listed>> {
        let (prefix, patience) = (self.prefix.clone(), self.patience);
        let list = async move { persistently(patience, &prefix.root, || list(&prefix)).await };
        self.network.wait(list)
    }

    /// The content of a small object; `None` if there is none of this name.
    pub(crate) fn get(&self, name: &str) -> Result<Option<Bytes>> {
        let (prefix, patience) = (self.prefix.clone(), self.patience);
        let name = name.to_owned();
        self.network.wait(async move {
            let url = prefix.url(&name);
            persistently(patience, &url, || get(&prefix, &name)).await
        })
    }

    /// Whether there is an object `name`, found out soon, also by a process that is to stop.
    pub(crate) fn has(&self, name: &str) -> bool {
        let (prefix, name) = (self.prefix.clone(), name.to_owned());
        let found = async move { head(&prefix, &name).await };
        matches!(self.network.wait_briefly(BRIEFLY, found), Some(Ok(Some(_))))
    }

    /// Makes the object `name` of `content`, and returns its entity tag.
    pub(crate) fn put(&self, name: &str, content: Bytes) -> Result<Option<String>> {
        let put = self.put_with(name, content, PutMode::Overwrite)?;
        put.ok_or_else(|| {
            let problem = "the store says that it exists, and was asked to replace it";
            Error::of_file(Code::BadReply, self.url_of(name), problem)
        })
    }

    /// Makes the object `name` of `content`, unless there is one of this name; returns whether it did.
    pub(crate) fn create(&self, name: &str, content: Bytes) -> Result<bool> {
        let put = self.put_with(name, content, PutMode::Create)?;
        Ok(put.is_some())
    }

    fn put_with(
        &self,
        name: &str,
        content: Bytes,
        mode: PutMode,
    ) -> Result<Option<Option<String>>> {
        let (prefix, patience) = (self.prefix.clone(), self.patience);
        let name = name.to_owned();
        self.network.wait(async move {
            let url = prefix.url(&name);
            let attempt = || put(&prefix, &name, &content, &mode);
            persistently_sending(patience, &url, attempt).await
        })
    }

    /// Deletes the objects `names`, as far as they exist.
    pub(crate) fn delete(&self, names: Vec<String>) -> Result<()> {
        let (prefix, patience) = (self.prefix.clone(), self.patience);
        self.network.wait(async move {
            let prefix = &prefix;
            let deleted = stream::iter(names).map(|name| async move {
                let url = prefix.url(&name);
                persistently(patience, &url, || delete(prefix, &name)).await
            });
            deleted
                .buffer_unordered(DELETED_AT_ONCE)
                .try_collect()
                .await
        })
    }

    /// Begins an object that is sent in parts.
    pub(crate) fn begin(&self, name: &str) -> Result<Upload> {
        let (prefix, patience) = (self.prefix.clone(), self.patience);
        let owned = name.to_owned();
        let id = self.network.wait(async move {
            let url = prefix.url(&owned);
            persistently(patience, &url, || begin(&prefix, &owned)).await
        })?;
        Ok(Upload {
            bucket: self.clone(),
            name: name.to_owned(),
            id,
        })
    }
}

impl Upload {
    /// Sends part number `index`, counted from 0; parts may be sent in any order, and at once.
    pub(crate) fn put_part(&self, index: usize, content: Bytes) -> Result<Part> {
        let Bucket {
            network,
            prefix,
            patience,
        } = self.bucket.clone();
        let (name, id) = (self.name.clone(), self.id.clone());
        network.wait(async move {
            let url = prefix.url(&name);
            let path = prefix.path_of(&name);
            let attempt = || async {
                let content = payload(&content);
                let put = prefix.parts.0.put_part(&path, &id, index, content).await;
                put.map_err(|error| upload_fault(&url, &error))
            };
            let part = persistently_sending(patience, &url, attempt).await?;
            Ok(Part(part))
        })
    }

    /// Makes the object of its `parts`, which have `len` bytes together. Returns its entity tag.
    pub(crate) fn complete(&self, parts: Vec<Part>, len: u64) -> Result<Option<String>> {
        let Bucket {
            network,
            prefix,
            patience,
        } = self.bucket.clone();
        let (name, id) = (self.name.clone(), self.id.clone());
        let parts: Vec<PartId> = parts.into_iter().map(|part| part.0).collect();
        network.wait(async move {
            let url = prefix.url(&name);
            let path = prefix.path_of(&name);
            let mut attempts = 0;
            let attempt = || {
                attempts += 1;
                let again = attempts > 1;
                let completed = prefix.parts.0.complete_multipart(&path, &id, parts.clone());
                let (prefix, url, name) = (&prefix, &url, &name);
                async move {
                    match completed.await {
                        Ok(put) => Ok(put.e_tag),
                        // The reply to an earlier request was lost. There was no object of this name.
                        Err(error) if again && lacks_upload(&error) => {
                            match head(prefix, name).await? {
                                Some(found) if found.len == len => Ok(found.tag),
                                _ => Err(gone(url)),
                            }
                        }
                        Err(error) => Err(upload_fault(url, &error)),
                    }
                }
            };
            persistently_sending(patience, &url, attempt).await
        })
    }

    /// Has the store forget the parts, if that can be done soon.
    pub(crate) fn abort(&self) {
        let prefix = self.bucket.prefix.clone();
        let (path, id) = (prefix.path_of(&self.name), self.id.clone());
        let abort = async move { prefix.parts.0.abort_multipart(&path, &id).await };
        if let Some(Err(error)) = self.bucket.network.wait_briefly(BRIEFLY, abort) {
            let url = self.bucket.url_of(&self.name);
            log::info!("{url}: the parts that were sent are left in the store: {error}");
        }
    }
}

async fn list(prefix: &Prefix) -> Attempt<Vec<Listed>> {
    let mut objects = Vec::new();
    let mut listed = prefix.store.list(Some(&prefix.path));
    let failed = |error| fault(&prefix.root, &error, CREDENTIALS);
    while let Some(meta) = listed.try_next().await.map_err(failed)? {
        let Some(name) = prefix.name(&meta.location) else {
            continue;
        };
        objects.push(Listed {
            name,
            len: meta.size,
            tag: meta.e_tag,
        });
        if objects.len() > MOST_OBJECTS {
            let problem = format!("there are more than {MOST_OBJECTS} objects below it");
            return Err(Error::of_file(Code::OverLimit, &prefix.root, problem).into());
        }
    }
    Ok(objects)
}

async fn head(prefix: &Prefix, name: &str) -> Attempt<Option<Listed>> {
    match prefix.store.head(&prefix.path_of(name)).await {
        Ok(meta) => Ok(Some(Listed {
            name: name.to_owned(),
            len: meta.size,
            tag: meta.e_tag,
        })),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(fault(&prefix.url(name), &error, CREDENTIALS)),
    }
}

async fn get(prefix: &Prefix, name: &str) -> Attempt<Option<Bytes>> {
    /// No object that is read as a whole has as many.
    const MOST_BYTES: u64 = 256 << 20;
    let url = prefix.url(name);
    let reply = match prefix.store.get(&prefix.path_of(name)).await {
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        reply => reply.map_err(|error| fault(&url, &error, CREDENTIALS))?,
    };
    if reply.meta.size > MOST_BYTES {
        let problem = format!(
            "it has {} bytes; at most {MOST_BYTES} are read",
            reply.meta.size
        );
        return Err(Error::of_file(Code::OverLimit, url, problem).into());
    }
    let bytes = reply.bytes().await;
    bytes
        .map(Some)
        .map_err(|error| fault(&url, &error, CREDENTIALS))
}

/// `None` if `mode` is to create it, and there is one.
async fn put(
    prefix: &Prefix,
    name: &str,
    content: &Bytes,
    mode: &PutMode,
) -> Attempt<Option<Option<String>>> {
    let options = PutOptions::from(mode.clone());
    let path = prefix.path_of(name);
    match prefix
        .store
        .put_opts(&path, payload(content), options)
        .await
    {
        Ok(put) => Ok(Some(put.e_tag)),
        Err(object_store::Error::AlreadyExists { .. }) => Ok(None),
        Err(error) => Err(fault(&prefix.url(name), &error, CREDENTIALS)),
    }
}

async fn delete(prefix: &Prefix, name: &str) -> Attempt<()> {
    match prefix.store.delete(&prefix.path_of(name)).await {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(fault(&prefix.url(name), &error, CREDENTIALS)),
    }
}

async fn begin(prefix: &Prefix, name: &str) -> Attempt<MultipartId> {
    let begun = prefix.parts.0.create_multipart(&prefix.path_of(name)).await;
    begun.map_err(|error| fault(&prefix.url(name), &error, CREDENTIALS))
}

/// `content` in pieces.
fn payload(content: &Bytes) -> PutPayload {
    let starts = (0..content.len()).step_by(PIECE);
    let pieces = starts.map(|start| content.slice(start..content.len().min(start + PIECE)));
    pieces.collect()
}

/// What `error` of a request for an upload that was begun means.
fn upload_fault(url: &str, error: &object_store::Error) -> Fault {
    match lacks_upload(error) {
        true => gone(url),
        false => fault(url, error, CREDENTIALS),
    }
}

/// Whether the store says that it does not have an upload, or parts of it. The clients report this as different
/// kinds of errors.
fn lacks_upload(error: &object_store::Error) -> bool {
    let text = causes(error);
    matches!(error, object_store::Error::NotFound { .. })
        || status(&text) == Some(404)
        || status(&text) == Some(400) && text.contains("InvalidBlockList")
}

fn gone(url: &str) -> Fault {
    let problem = "the store no longer has the parts that were sent";
    let error = Error::of_file(Code::NotFound, url, problem);
    let hint = "run the same command again, and see whether a rule of the bucket ends uploads or deletes objects too soon";
    Fault::Lasting(error.with_hint(hint))
}
