//! `https://host/directory/`: files by their names. A plain server lists none, so those are asked for
//! that checkpoints usually have, and others once something names them.

use std::ops::Range;
use std::path::Path;
use std::time::SystemTime;

use chrono::DateTime;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, IF_MATCH, LAST_MODIFIED, LOCATION,
};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};

use crate::error::setting::ALLOW_UNPINNED;
use crate::error::{Code, Error, Hint, Result};
use crate::source::remote::client::check_encrypted;
use crate::source::remote::fault::{Attempt, Fault};
use crate::source::remote::options::NetworkOptions;
use crate::source::remote::reply::{self, header};
use crate::source::remote::store::{Body, Object, Pin, Store};

/// What the directories of checkpoints and adapters have, as far as the names are the same everywhere.
const USUAL: [&str; 34] = [
    "README.md",
    "LICENSE",
    "LICENSE.txt",
    "adapter_config.json",
    "adapter_model.bin",
    "adapter_model.safetensors",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "generation_config.json",
    "hf_quant_config.json",
    "image_processor.json",
    "merges.txt",
    "model.safetensors",
    "model.safetensors.index.json",
    "modules.json",
    "params.json",
    "preprocessor_config.json",
    "processor_config.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "quantization_config.json",
    "quantize_config.json",
    "recipe.yaml",
    "special_tokens_map.json",
    "spiece.model",
    "tekken.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "video_preprocessor_config.json",
    "vocab.json",
    "vocab.txt",
];

/// Requests for names that are in flight at once.
const AT_ONCE: usize = 32;

/// The most servers that lead to each other.
pub(super) const MOST_REDIRECTS: usize = 10;

/// A directory of a web server.
#[derive(Debug)]
pub(super) struct Web {
    client: Client,
    /// It ends with a slash.
    root: Url,
    allow_http: bool,
    allow_unpinned: bool,
}

impl Web {
    /// The directory at `root`.
    ///
    /// # Errors
    /// If it is not encrypted, or has parts that would be lost or shown.
    pub(super) fn new(client: Client, mut root: Url, options: &NetworkOptions) -> Result<Self> {
        check_encrypted(&root, options.allow_http)?;
        if !root.username().is_empty() || root.password().is_some() {
            let _ = root.set_username("");
            let _ = root.set_password(None);
            return Err(cannot(
                &root,
                "a password in a URL would be shown in messages",
            ));
        }
        if root.query().is_some() || root.fragment().is_some() {
            root.set_query(None);
            root.set_fragment(None);
            let problem = "a directory has a URL without a query, since names are added to it";
            return Err(cannot(&root, problem));
        }
        if !root.path().ends_with('/') {
            let path = format!("{}/", root.path());
            root.set_path(&path);
        }
        Ok(Web {
            client,
            root,
            allow_http: options.allow_http,
            allow_unpinned: options.allow_unpinned,
        })
    }

    /// The URL of the file `name`, which has slashes between directories.
    fn url(&self, name: &str) -> Url {
        let mut url = self.root.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(name.split('/'));
        }
        url
    }

    /// What the server replies to `request` for `url`, redirects followed.
    async fn reply(
        &self,
        url: Url,
        request: impl Fn(&Client, Url) -> RequestBuilder,
    ) -> Attempt<Response> {
        let mut url = url;
        for _ in 0..=MOST_REDIRECTS {
            let sent = request(&self.client, url.clone()).send().await;
            let response = sent.map_err(|error| Fault::of_request(&url, error))?;
            let Some(next) = redirect(&response)? else {
                return Ok(response);
            };
            check_encrypted(&next, self.allow_http)?;
            url = next;
        }
        Err(Fault::bad_reply(
            url.as_str(),
            "it leads from server to server without end",
        ))
    }

    async fn find_one(&self, name: &str) -> Attempt<Option<Object>> {
        let url = self.url(name);
        let shown = url.to_string();
        let head = |client: &Client, url| client.head(url).header(ACCEPT_ENCODING, "identity");
        let mut response = self.reply(url.clone(), head).await?;
        if matches!(
            response.status(),
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED | StatusCode::FORBIDDEN
        ) {
            let first = |client: &Client, url| reply::ranged(client.get(url), &(0..1));
            response = self.reply(url, first).await?;
        }
        let headers = response.headers();
        if let Some(fault) = reply::passing(response.status(), headers) {
            return Err(fault);
        }
        let len = match response.status() {
            StatusCode::NOT_FOUND | StatusCode::GONE => return Ok(None),
            StatusCode::OK => header(headers, CONTENT_LENGTH).and_then(|text| text.parse().ok()),
            StatusCode::PARTIAL_CONTENT => header(headers, CONTENT_RANGE)
                .and_then(|text| text.rsplit_once('/')?.1.parse().ok()),
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                return Err(Fault::denied(
                    &shown,
                    status,
                    "nothing secret is sent to a web server; copy the files to this machine",
                ));
            }
            status => {
                return Err(Fault::bad_reply(
                    &shown,
                    format!("the server replied {status}"),
                ));
            }
        };
        let Some(len) = len else {
            return Err(Fault::bad_reply(
                &shown,
                "the server does not say how long it is",
            ));
        };
        let modified = header(headers, LAST_MODIFIED);
        let tag = header(headers, ETAG).filter(|tag| tag.starts_with('"'));
        let pin = match (tag, modified) {
            (Some(tag), _) => Pin::Tag(tag.to_owned()),
            (None, Some(date)) => Pin::Modified(date.to_owned()),
            (None, None) if self.allow_unpinned => Pin::Nothing,
            (None, None) => return Err(unpinned(&shown).into()),
        };
        Ok(Some(Object {
            name: name.to_owned(),
            location: Path::new(&shown).into(),
            len,
            modified: modified
                .and_then(|date| DateTime::parse_from_rfc2822(date).ok())
                .map_or(SystemTime::UNIX_EPOCH, SystemTime::from),
            pin,
        }))
    }
}

/// The error that nothing pins what is at `url`.
pub(super) fn unpinned(url: &str) -> Error {
    let problem = "the server says nothing by which a change could be noticed (no entity tag, no time of modification)";
    let error = Error::of_file(Code::Unpinned, url, problem);
    error.with_hint(Hint::give(ALLOW_UNPINNED).to("read it all the same"))
}

fn cannot(url: &Url, problem: &'static str) -> Error {
    Error::of_file(Code::UnsupportedPlace, url.as_str(), problem)
}

/// Where `response` leads, if it is a redirect.
pub(super) fn redirect(response: &Response) -> Attempt<Option<Url>> {
    if !response.status().is_redirection() {
        return Ok(None);
    }
    let target = header(response.headers(), LOCATION);
    let target = target.and_then(|target| response.url().join(target).ok());
    match target {
        Some(target) => Ok(Some(target)),
        None => {
            let url = response.url().as_str();
            Err(Fault::bad_reply(
                url,
                format!("the server replied {} and no place", response.status()),
            ))
        }
    }
}

impl Store for Web {
    fn list(&self) -> BoxFuture<'_, Attempt<Vec<Object>>> {
        async move {
            let asked = stream::iter(USUAL.map(|name| self.find(name)));
            let found: Vec<Option<Object>> = asked.buffer_unordered(AT_ONCE).try_collect().await?;
            Ok(found.into_iter().flatten().collect())
        }
        .boxed()
    }

    fn lists_all(&self) -> bool {
        false
    }

    fn find<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Attempt<Option<Object>>> {
        self.find_one(name).boxed()
    }

    fn get<'a>(&'a self, object: &'a Object, range: Range<u64>) -> BoxFuture<'a, Attempt<Body>> {
        async move {
            let response = self
                .reply(self.url(&object.name), |client, url| {
                    let request = reply::ranged(client.get(url), &range);
                    match &object.pin {
                        Pin::Tag(tag) => request.header(IF_MATCH, tag),
                        _ => request,
                    }
                })
                .await?;
            refused(&response, object)?;
            reply::body(response, object, &range)
        }
        .boxed()
    }
}

/// The fault that the status of `response` is, if it is one.
pub(super) fn refused(response: &Response, object: &Object) -> Attempt<()> {
    let status = response.status();
    if let Some(fault) = reply::passing(status, response.headers()) {
        return Err(fault);
    }
    match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => Err(Fault::changed(object.url(), "it is gone")),
        StatusCode::PRECONDITION_FAILED => {
            let what = format!("the server has other content ({} was planned)", object.pin);
            Err(Fault::changed(object.url(), what))
        }
        StatusCode::RANGE_NOT_SATISFIABLE => {
            Err(Fault::changed(object.url(), "it is shorter than it was"))
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Fault::denied(
            object.url(),
            status,
            "check the permissions on the server",
        )),
        _ => Ok(()),
    }
}
