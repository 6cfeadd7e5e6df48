//! How a view is served.

use std::time::Duration;

use crate::error::Spelling;
use crate::serve::repo::RepoName;
use crate::serve::token::Token;

/// How a view is served.
#[derive(Debug, Clone)]
pub struct Options {
    /// What the repository is called.
    pub name: RepoName,
    /// The token that clients have to send, if any.
    pub token: Option<Token>,
    /// Connections that are open at once; others wait. Each takes up to 3 MiB.
    pub connections: usize,
    /// How long transfers may still run after the server was asked to stop.
    pub grace: Duration,
    /// How long a client may take for the head of a request, and be idle between requests.
    pub head_timeout: Duration,
    /// How long a client may take none of the bytes that are ready for it.
    pub stall_timeout: Duration,
    /// How the log writes settings.
    pub spelling: Spelling,
}

impl Options {
    /// Connections at once, unless asked for otherwise.
    pub const CONNECTIONS: usize = 128;
    /// See [`Options::grace`].
    pub const GRACE: Duration = Duration::from_secs(30);
    const HEAD_TIMEOUT: Duration = Duration::from_secs(20);
    const STALL_TIMEOUT: Duration = Duration::from_secs(120);

    /// The usual way.
    pub fn new(name: RepoName, spelling: Spelling) -> Self {
        Options {
            name,
            token: None,
            connections: Self::CONNECTIONS,
            grace: Self::GRACE,
            head_timeout: Self::HEAD_TIMEOUT,
            stall_timeout: Self::STALL_TIMEOUT,
            spelling,
        }
    }
}
