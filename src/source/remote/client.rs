//! The one HTTP client of this process: its connections, its times and its TLS.

use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, Url};

use crate::error::setting::ALLOW_HTTP;
use crate::error::{Code, Error, Hint, Result};
use crate::source::remote::causes::causes;
use crate::source::remote::certificate::TRUST;

/// Connections to one server that are kept to be used again.
const IDLE: usize = 128;

/// A client that follows no redirect by itself, so that nothing is sent to a second server unseen. It
/// waits `connect` for a connection, and `read` for each piece of a reply, if there is such a limit.
///
/// # Errors
/// If this processor lacks what encrypted connections need, or the certificates cannot be read.
pub(super) fn new(connect: Duration, read: Option<Duration>) -> Result<Client> {
    if !graviola::util::is_cpu_supported() {
        return Err(Error::new(
            Code::UnsupportedPlace,
            "this processor lacks instructions that encrypted connections are made with (AES and carry-less multiplication; on x86-64 also AVX2, ADX and BMI)",
        )
        .with_hint("copy the files to this machine and name their directory"));
    }
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        // A program that uses the library may have chosen another one, which serves as well.
        let _ = rustls_graviola::default_provider().install_default();
    });
    let client = Client::builder()
        .user_agent(concat!("ckptfs/", env!("CARGO_PKG_VERSION")))
        // One connection for each request in flight: streams of one HTTP/2 connection share its window.
        .http1_only()
        .redirect(Policy::none())
        .connect_timeout(connect)
        .pool_max_idle_per_host(IDLE)
        .tcp_nodelay(true);
    let client = match read {
        Some(read) => client.read_timeout(read),
        None => client,
    };
    client.build().map_err(|error| {
        // A machine without a certificate to trust.
        let problem = format!("cannot make encrypted connections: {}", causes(&error));
        let error = Error::new(Code::UntrustedServer, problem);
        error.with_hint(Hint::text("install the package ca-certificates").or(TRUST))
    })
}

/// Checks that `url` is encrypted, or may be without.
///
/// # Errors
/// If it is not, and leads to another machine.
pub(super) fn check_encrypted(url: &Url, allow_http: bool) -> Result<()> {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    let is_loopback = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
    if url.scheme() == "https" || allow_http || is_loopback {
        return Ok(());
    }
    let problem = "the connection to this machine would not be encrypted";
    let error = Error::of_file(Code::UnsupportedPlace, url.as_str(), problem);
    let allow = Hint::give(ALLOW_HTTP).to("allow it");
    Err(error.with_hint(Hint::text("use https").or(allow)))
}
