//! How `object_store` makes its requests: over the connections of this process, and with its retries left to the caller.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};
use object_store::{ClientConfigKey, ClientOptions};
use reqwest::{Client, Url};

use crate::error::Error;
use crate::source::remote::certificate::Untrusted;
use crate::source::remote::client::check_encrypted;
use crate::source::remote::fault::Fault;
use crate::source::remote::reply;
use crate::source::remote::sending::{self, Limits};

/// The connections of this process, for requests that `object_store` makes.
#[derive(Debug)]
pub(super) struct Connector {
    pub(super) client: Client,
    /// How long requests with a body may wait, where the client has no limit of its own.
    pub(super) limits: Option<Limits>,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let allowed = options.get_config_value(&ClientConfigKey::AllowHttp);
        Ok(HttpClient::new(Connection {
            client: self.client.clone(),
            limits: self.limits,
            allow_http: allowed.as_deref() == Some("true"),
        }))
    }
}

#[derive(Debug)]
struct Connection {
    client: Client,
    limits: Option<Limits>,
    allow_http: bool,
}

#[async_trait]
impl HttpService for Connection {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let url = request.uri().to_string().parse::<Url>();
        let encrypted = match &url {
            Ok(url) => check_encrypted(url, self.allow_http),
            Err(_) => Ok(()),
        };
        encrypted.map_err(|e| HttpError::new(HttpErrorKind::Decode, NotEncrypted(e)))?;
        let sent = match (self.limits, &url) {
            (Some(limits), Ok(url)) => {
                sending::send(&self.client, url.clone(), request, limits).await
            }
            _ => HttpService::call(&self.client, request).await,
        };
        let response = sent.map_err(|error| {
            let untrusted = url.ok().and_then(|url| Untrusted::find(&url, &error));
            match untrusted {
                Some(untrusted) => HttpError::new(HttpErrorKind::Decode, untrusted),
                None => error,
            }
        })?;
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
pub(super) struct Refused {
    what: String,
    pub(super) after: Option<Duration>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Refused {}

/// A request that was not made.
#[derive(Debug)]
pub(super) struct NotEncrypted(pub(super) Error);

impl fmt::Display for NotEncrypted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for NotEncrypted {}
