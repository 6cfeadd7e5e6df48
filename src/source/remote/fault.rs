//! Why a request failed, and whether another one may work.

use std::time::Duration;

use reqwest::Url;

use crate::error::{Code, Error};
use crate::source::remote::causes::causes;
use crate::source::remote::certificate::Untrusted;

/// Why a request failed.
#[derive(Debug)]
pub(super) enum Fault {
    /// Another request may work, at the earliest `after` this time.
    Passing {
        what: String,
        after: Option<Duration>,
    },
    /// No other request will.
    Lasting(Error),
}

/// What one request gives.
pub(super) type Attempt<T> = Result<T, Fault>;

impl Fault {
    /// A fault that may pass.
    pub(super) fn passing(what: impl Into<String>) -> Self {
        Fault::Passing {
            what: what.into(),
            after: None,
        }
    }

    /// The connection broke.
    pub(super) fn of_connection(error: &dyn std::error::Error) -> Self {
        Fault::passing(causes(error))
    }

    /// A request for `url` got no reply.
    pub(super) fn of_request(url: &Url, error: reqwest::Error) -> Self {
        let error = error.without_url();
        let mut shown = url.clone();
        // Of a signed URL it is a secret.
        shown.set_query(None);
        match Untrusted::find(url, &error) {
            Some(untrusted) => Fault::Lasting(untrusted.error(shown.as_str())),
            None => Fault::of_connection(&error),
        }
    }

    /// The reply to a request for `url` is not one to it.
    pub(super) fn bad_reply(url: &str, problem: impl Into<String>) -> Self {
        let error = Error::of_file(Code::BadReply, url, problem);
        Fault::Lasting(
            error.with_hint("the server, or a proxy before it, must support range requests"),
        )
    }

    /// What is at `url` is no longer what was planned.
    pub(super) fn changed(url: &str, what: impl std::fmt::Display) -> Self {
        Fault::Lasting(Error::source_changed(url, what))
    }

    /// The server refuses access to `url`.
    pub(super) fn denied(url: &str, status: impl std::fmt::Display, hint: &'static str) -> Self {
        let problem = format!("the server refuses access ({status})");
        Fault::Lasting(Error::of_file(Code::AccessDenied, url, problem).with_hint(hint))
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Fault::Lasting(error)
    }
}
