//! Requests with large bodies. They take as long as the connection is slow, so what is watched is whether bytes move.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use http_body_util::{BodyDataStream, BodyExt};
use hyper::http::Response;
use object_store::client::{HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody};
use parking_lot::Mutex;
use reqwest::{Body, Client, Request, Url};
use tokio::time::{Instant, sleep_until};

/// How long a request may wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// For the connection to take more of the body.
    pub(super) stall: Duration,
    /// For the reply to begin, once all of the body was taken.
    pub(super) reply: Duration,
}

/// What of a body the connection has taken.
#[derive(Debug)]
struct Taken {
    left: usize,
    last: Instant,
}

impl Taken {
    /// When the request is broken off, unless more happens.
    fn deadline(&self, limits: Limits) -> Instant {
        let limit = match self.left {
            0 => limits.reply,
            _ => limits.stall,
        };
        self.last + limit
    }
}

/// The reply to `request` for `url`.
pub(super) async fn send(
    client: &Client,
    url: Url,
    request: HttpRequest,
    limits: Limits,
) -> Result<HttpResponse, HttpError> {
    let (parts, body) = request.into_parts();
    let mut request = Request::new(parts.method, url);
    *request.headers_mut() = parts.headers;
    let taken = Arc::new(Mutex::new(Taken {
        left: 0,
        last: Instant::now(),
    }));
    if let Some(bytes) = body.as_bytes() {
        // Small. An empty body in pieces would have no length.
        *request.body_mut() = Some(bytes.clone().into());
    } else if body.content_length() > 0 {
        taken.lock().left = body.content_length();
        let taken = taken.clone();
        let pieces = BodyDataStream::new(body).inspect(move |piece| {
            let mut taken = taken.lock();
            let len = piece.as_ref().map_or(0, bytes::Bytes::len);
            taken.left = taken.left.saturating_sub(len);
            taken.last = Instant::now();
        });
        *request.body_mut() = Some(Body::wrap_stream(pieces));
    }
    let reply = client.execute(request);
    tokio::pin!(reply);
    let response = loop {
        let deadline = taken.lock().deadline(limits);
        tokio::select! {
            response = &mut reply => break response,
            () = sleep_until(deadline) => {
                let taken = taken.lock();
                if taken.deadline(limits) <= Instant::now() {
                    let stalled = Stalled { sent: taken.left == 0 };
                    return Err(HttpError::new(HttpErrorKind::Timeout, stalled));
                }
            }
        }
    };
    let failed =
        |error: reqwest::Error| HttpError::new(HttpErrorKind::Request, error.without_url());
    let (parts, body) = Response::<Body>::from(response.map_err(failed)?).into_parts();
    let body = HttpResponseBody::new(body.map_err(failed));
    Ok(HttpResponse::from_parts(parts, body))
}

/// A request that was broken off.
#[derive(Debug)]
struct Stalled {
    /// Whether all of the body was taken.
    sent: bool,
}

impl fmt::Display for Stalled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.sent {
            true => "the server does not answer",
            false => "the connection takes no more bytes",
        })
    }
}

impl std::error::Error for Stalled {}
