//! Why a request failed, and whether another one may work.

use std::time::Duration;

use crate::error::{Code, Error};

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

    /// The server was not reached, or the connection broke.
    pub(super) fn of_connection(error: &dyn std::error::Error) -> Self {
        Fault::passing(causes(error))
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

/// The text of an error with those of its causes, each once: most libraries put the useful part last.
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = cause.source();
    }
    text
}
