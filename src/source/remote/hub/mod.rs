//! `hf://org/model[@revision]`: repositories of the Hugging Face Hub.

mod address;
mod api;
mod cache;
mod options;

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::SystemTime;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use reqwest::header::{AUTHORIZATION, CONTENT_RANGE, ETAG};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};

use crate::error::{Code, Error, Result};
use crate::source::remote::client::check_encrypted;
use crate::source::remote::fault::{Attempt, Fault};
use crate::source::remote::hub::api::FileEntry;
use crate::source::remote::options::NetworkOptions;
use crate::source::remote::reply::{self, header};
use crate::source::remote::store::{Body, Object, Pin, Store};
use crate::source::remote::web::{MOST_REDIRECTS, redirect, refused};

pub(super) use address::Address;
pub use options::HubOptions;

/// Maximum length of a reply of the API, in bytes.
const MOST_BYTES: usize = 64 << 20;

/// The most files of a repository.
const MOST_FILES: usize = 1 << 18;

/// A repository at a revision, or a directory in it.
#[derive(Debug)]
pub(super) struct Hub {
    client: Client,
    endpoint: Url,
    options: HubOptions,
    allow_http: bool,
    address: Address,
    /// What the revision stands for, once it was asked.
    commit: OnceLock<String>,
    /// Where files are, by name: signed URLs of another server, which expire.
    targets: Mutex<HashMap<String, Url>>,
}

impl Hub {
    /// The place that `address` names.
    ///
    /// # Errors
    /// If the endpoint in the environment is not a URL, or not encrypted.
    pub(super) fn new(client: Client, address: Address, options: &NetworkOptions) -> Result<Self> {
        let text = &options.hub.endpoint;
        let endpoint = text.parse::<Url>().ok().filter(|url| url.has_host());
        let endpoint = endpoint.ok_or_else(|| {
            let problem = format!("HF_ENDPOINT is {text}, which is not a URL");
            Error::new(Code::UnsupportedPlace, problem)
        })?;
        check_encrypted(&endpoint, options.allow_http)?;
        Ok(Hub {
            client,
            endpoint,
            options: options.hub.clone(),
            allow_http: options.allow_http,
            commit: address
                .commit()
                .map_or_else(OnceLock::new, |commit| OnceLock::from(commit.to_owned())),
            address,
            targets: Mutex::default(),
        })
    }

    /// The snapshot in the local cache, where that alone is to be used.
    ///
    /// # Errors
    /// If it is not there.
    pub(super) fn snapshot(address: &Address, options: &HubOptions) -> Result<PathBuf> {
        cache::snapshot(options, address)
    }

    /// `endpoint/parts…`, each with slashes or without.
    fn url(&self, parts: &[&str]) -> Url {
        let mut url = self.endpoint.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty();
            parts.iter().for_each(|part| {
                path.extend(part.split('/'));
            });
        }
        url
    }

    /// The same request with the token, if `url` is of the Hub itself.
    fn signed(&self, request: RequestBuilder, url: &Url) -> RequestBuilder {
        match &self.options.token {
            Some(token) if url.origin() == self.endpoint.origin() => {
                request.header(AUTHORIZATION, format!("Bearer {token}"))
            }
            _ => request,
        }
    }

    async fn send(&self, request: RequestBuilder, url: &Url) -> Attempt<Response> {
        let sent = self.signed(request, url).send().await;
        sent.map_err(|error| Fault::of_request(url, error))
    }

    /// What the API replies.
    async fn api(&self, url: Url) -> Attempt<Response> {
        let mut url = url;
        for _ in 0..=MOST_REDIRECTS {
            let response = self.send(self.client.get(url.clone()), &url).await?;
            // A repository that was renamed.
            if let Some(next) = redirect(&response)? {
                check_encrypted(&next, self.allow_http)?;
                url = next;
                continue;
            }
            self.check(&response, None)?;
            return Ok(response);
        }
        Err(Fault::bad_reply(
            url.as_str(),
            "it leads from server to server without end",
        ))
    }

    /// Checks the status of a reply of the Hub itself.
    fn check(&self, response: &Response, object: Option<&Object>) -> Attempt<()> {
        let (status, headers) = (response.status(), response.headers());
        if let Some(fault) = reply::passing(status, headers) {
            return Err(fault);
        }
        if status.is_success() || status.is_redirection() {
            return Ok(());
        }
        let known = header(headers, "x-error-code");
        if let (Some(object), None | Some("EntryNotFound")) = (object, known) {
            return refused(response, object);
        }
        Err(self
            .address
            .refusal(known, status, self.options.token.is_some())
            .into())
    }

    /// The commit that the revision stands for.
    async fn commit(&self) -> Attempt<&str> {
        if let Some(commit) = self.commit.get() {
            return Ok(commit);
        }
        let Address {
            repository,
            revision,
            ..
        } = &self.address;
        let mut url = self.url(&["api/models", repository, "revision"]);
        // A branch may have a slash in its name, which is none of the path.
        if let Ok(mut path) = url.path_segments_mut() {
            path.push(revision);
        }
        let shown = url.to_string();
        let text = reply::text(self.api(url).await?, MOST_BYTES).await?;
        let commit = api::commit(&text)
            .ok_or_else(|| Fault::bad_reply(&shown, "the Hub does not say which commit this is"))?;
        log::info!("{}: {revision} is commit {commit}", self.address.root());
        Ok(self.commit.get_or_init(|| commit))
    }

    fn object(&self, commit: &str, file: FileEntry) -> Option<Object> {
        let name = match self.address.directory.as_str() {
            "" => file.path.as_str(),
            directory => file.path.strip_prefix(directory)?.strip_prefix('/')?,
        };
        let url = format!("{}/{name}", self.address.root());
        Some(Object {
            name: name.to_owned(),
            location: Path::new(&url).into(),
            len: file.len,
            modified: SystemTime::UNIX_EPOCH,
            pin: Pin::Commit {
                commit: commit.to_owned(),
                hash: file.hash,
            },
        })
    }

    /// The reply to a request for `range` of `object`, by the server that has it.
    async fn resolve(&self, object: &Object, range: &Range<u64>) -> Attempt<Response> {
        let Pin::Commit { commit, hash } = &object.pin else {
            unreachable!("it was listed here");
        };
        let known = self.targets.lock().get(&object.name).cloned();
        if let Some(target) = known {
            let request = reply::ranged(self.client.get(target.clone()), range);
            let response = self.send(request, &target).await?;
            let expired = matches!(
                response.status(),
                StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
            );
            if !expired {
                return Ok(response);
            }
            log::info!("{}: its signed URL has expired", object.url());
            self.targets.lock().remove(&object.name);
        }
        let path = self.address.path(&object.name);
        let mut url = self.url(&[&self.address.repository, "resolve", commit, &path]);
        for _ in 0..=MOST_REDIRECTS {
            let request = reply::ranged(self.client.get(url.clone()), range);
            let response = self.send(request, &url).await?;
            let is_hub = url.origin() == self.endpoint.origin();
            if is_hub {
                self.check(&response, Some(object))?;
                check_linked(&response, object, commit, hash)?;
            }
            match redirect(&response)? {
                Some(next) => {
                    check_encrypted(&next, self.allow_http)?;
                    if next.origin() != self.endpoint.origin() {
                        self.targets
                            .lock()
                            .insert(object.name.clone(), next.clone());
                    }
                    url = next;
                }
                None => return Ok(response),
            }
        }
        Err(Fault::bad_reply(
            object.url(),
            "it leads from server to server without end",
        ))
    }
}

/// Checks what the Hub says of a file that it resolves.
fn check_linked(response: &Response, object: &Object, commit: &str, hash: &str) -> Attempt<()> {
    let headers = response.headers();
    let differs = |what: &str, planned: &str, found: &str| {
        Err(Fault::changed(
            object.url(),
            format!("{what} was {planned} and is {found}"),
        ))
    };
    if let Some(found) = header(headers, "x-repo-commit")
        && found != commit
    {
        return differs("its commit", commit, found);
    }
    let linked = header(headers, "x-linked-etag");
    let tag = linked.or_else(|| header(headers, ETAG).filter(|_| response.status().is_success()));
    if let Some(tag) = tag {
        let found = tag.trim_start_matches("W/").trim_matches('"');
        if found != hash {
            return differs("its hash", hash, found);
        }
    }
    match header(headers, "x-linked-size").map(str::parse::<u64>) {
        Some(Ok(len)) if len != object.len => Err(reply::length_changed(object, len)),
        _ => Ok(()),
    }
}

impl Store for Hub {
    fn list(&self) -> BoxFuture<'_, Attempt<Vec<Object>>> {
        async move {
            let commit = self.commit().await?;
            let mut url = self.url(&["api/models", &self.address.repository, "tree", commit]);
            url.set_query(Some("recursive=true"));
            let mut objects = Vec::new();
            loop {
                let shown = url.to_string();
                let response = self.api(url).await?;
                let next = header(response.headers(), "link").and_then(api::next);
                let next = next.and_then(|next| response.url().join(next).ok());
                let text = reply::text(response, MOST_BYTES).await?;
                let files = api::files(&text).map_err(|error| {
                    Fault::bad_reply(&shown, format!("not a list of files: {error}"))
                })?;
                objects.extend(
                    files
                        .into_iter()
                        .filter_map(|file| self.object(commit, file)),
                );
                if objects.len() > MOST_FILES {
                    let problem = format!("the repository has more than {MOST_FILES} files");
                    return Err(
                        Error::of_file(Code::OverLimit, self.address.root(), problem).into(),
                    );
                }
                match next {
                    Some(next) if next.origin() == self.endpoint.origin() => url = next,
                    _ => return Ok(objects),
                }
            }
        }
        .boxed()
    }

    fn find<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Attempt<Option<Object>>> {
        async move {
            let objects = self.list().await?;
            Ok(objects.into_iter().find(|object| object.name == name))
        }
        .boxed()
    }

    fn get<'a>(&'a self, object: &'a Object, range: Range<u64>) -> BoxFuture<'a, Attempt<Body>> {
        async move {
            let response = self.resolve(object, &range).await?;
            refused(&response, object)?;
            // The Hub sends small files whole, and compressed if it is let.
            let is_range = response.headers().contains_key(CONTENT_RANGE);
            if response.status() == StatusCode::OK && !is_range && range != (0..object.len) {
                return whole(response, object, range).await;
            }
            reply::body(response, object, &range)
        }
        .boxed()
    }

    fn local_copy(&self, object: &Object) -> Option<PathBuf> {
        let Pin::Commit { commit, hash } = &object.pin else {
            return None;
        };
        let path = self.address.path(&object.name);
        cache::blob(
            &self.options,
            &self.address.repository,
            commit,
            &path,
            hash,
            object.len,
        )
    }
}

/// The bytes `range` of a file that came whole, if it is one of the small ones.
async fn whole(response: Response, object: &Object, range: Range<u64>) -> Attempt<Body> {
    const MOST: u64 = 16 << 20;
    if object.len > MOST {
        let problem = "the server replied 200 OK, and the whole file, to a request for a range";
        return Err(Fault::bad_reply(object.url(), problem));
    }
    let text = reply::text(reply::identity(response, object)?, MOST as usize).await?;
    if text.len() as u64 != object.len {
        return Err(reply::length_changed(object, text.len() as u64));
    }
    let part = bytes::Bytes::from(text).slice(range.start as usize..range.end as usize);
    Ok(futures_util::StreamExt::boxed(futures_util::stream::iter(
        [Ok(part)],
    )))
}
