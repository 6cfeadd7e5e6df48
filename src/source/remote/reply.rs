//! What a reply must be before one of its bytes is used.

use std::ops::Range;
use std::time::Duration;

use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap,
    LAST_MODIFIED, RANGE, RETRY_AFTER,
};
use reqwest::{RequestBuilder, Response, StatusCode};

use crate::source::remote::fault::{Attempt, Fault};
use crate::source::remote::store::{Body, Object, Pin};

/// Most time that is waited because a server says so.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// The text of a header.
pub(super) fn header(
    headers: &HeaderMap,
    name: impl reqwest::header::AsHeaderName,
) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// The same request for `range` alone, as the server has it: compressed replies have no ranges.
pub(super) fn ranged(request: RequestBuilder, range: &Range<u64>) -> RequestBuilder {
    let range = format!("bytes={}-{}", range.start, range.end - 1);
    request
        .header(ACCEPT_ENCODING, "identity")
        .header(RANGE, range)
}

/// The fault that a reply of this status is, where it says that the server is busy or broken.
pub(super) fn passing(status: StatusCode, headers: &HeaderMap) -> Option<Fault> {
    let is_passing = status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
        || matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT
        );
    is_passing.then(|| Fault::Passing {
        what: format!("the server replied {status}"),
        after: wait(headers).map(|wait| wait.min(LONGEST_WAIT)),
    })
}

/// How long the server wants to be left alone: `Retry-After` in seconds, or what is left of a window
/// in `RateLimit: "name";r=0;t=SECONDS`.
fn wait(headers: &HeaderMap) -> Option<Duration> {
    let after = header(headers, RETRY_AFTER).and_then(|text| text.trim().parse().ok());
    if let Some(seconds) = after {
        return Some(Duration::from_secs(seconds));
    }
    let limit = header(headers, "ratelimit")?;
    let mut parts = limit.split(';').map(str::trim);
    let seconds: u64 = parts
        .find_map(|part| part.strip_prefix("t="))?
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds.saturating_add(1)))
}

/// The body of `response`, which must be `range` of `object` as it was listed.
pub(super) fn body(response: Response, object: &Object, range: &Range<u64>) -> Attempt<Body> {
    let response = identity(response, object)?;
    let url = object.url();
    let headers = response.headers();
    check_pin(headers, object)?;
    let wanted = format!("bytes {}-{}/{}", range.start, range.end - 1, object.len);
    match (response.status(), header(headers, CONTENT_RANGE)) {
        (StatusCode::PARTIAL_CONTENT, Some(found)) if found == wanted => {}
        (StatusCode::PARTIAL_CONTENT, Some(found)) => {
            let total = found
                .rsplit_once('/')
                .and_then(|(_, total)| total.parse().ok());
            if total.is_some_and(|total: u64| total != object.len) {
                return Err(length_changed(object, total.unwrap_or_default()));
            }
            let problem = format!("the reply is {found}, and {wanted} was asked for");
            return Err(Fault::bad_reply(url, problem));
        }
        (StatusCode::PARTIAL_CONTENT, None) => {
            let problem = "the reply does not say which range it is";
            return Err(Fault::bad_reply(url, problem));
        }
        // The whole of it, as it was asked for.
        (StatusCode::OK, None) if *range == (0..object.len) => {
            let length = header(headers, CONTENT_LENGTH).and_then(|text| text.parse().ok());
            match length {
                Some(length) if length == object.len => {}
                Some(length) => return Err(length_changed(object, length)),
                None => {
                    let problem = "the reply does not say how long it is";
                    return Err(Fault::bad_reply(url, problem));
                }
            }
        }
        (status, _) => {
            let problem = format!("the server replied {status} to a request for a range");
            return Err(Fault::bad_reply(url, problem));
        }
    }
    Ok(stream(response))
}

/// `response`, if it is not compressed: of such, lengths and ranges are of other bytes.
pub(super) fn identity(response: Response, object: &Object) -> Attempt<Response> {
    match header(response.headers(), CONTENT_ENCODING) {
        None | Some("identity") => Ok(response),
        Some(other) => {
            let problem = format!("the reply is compressed ({other}), which was not asked for");
            Err(Fault::bad_reply(object.url(), problem))
        }
    }
}

/// Checks that `headers` name the entity tag, or the time, that `object` had when it was listed.
pub(super) fn check_pin(headers: &HeaderMap, object: &Object) -> Attempt<()> {
    let (name, planned, found) = match &object.pin {
        Pin::Tag(tag) => ("its entity tag", tag, header(headers, ETAG)),
        Pin::Modified(date) => ("its time", date, header(headers, LAST_MODIFIED)),
        Pin::Commit { .. } | Pin::Nothing => return Ok(()),
    };
    match found {
        Some(found) if found == planned => Ok(()),
        Some(found) => {
            let what = format!("{name} was {planned} and is {found}");
            Err(Fault::changed(object.url(), what))
        }
        None => {
            let problem = format!("the reply lacks {name}, which was {planned}");
            Err(Fault::bad_reply(object.url(), problem))
        }
    }
}

/// The object has another length by now.
pub(super) fn length_changed(object: &Object, now: u64) -> Fault {
    let what = format!("it had {} bytes and now has {now}", object.len);
    Fault::changed(object.url(), what)
}

/// The bytes of `response` as they come.
pub(super) fn stream(response: Response) -> Body {
    use futures_util::StreamExt;
    let bytes = response.bytes_stream();
    let bytes = bytes.map(|bytes| bytes.map_err(|e| Fault::of_connection(&e.without_url())));
    bytes.boxed()
}

/// The text of a small reply.
pub(super) async fn text(mut response: Response, max: usize) -> Attempt<Vec<u8>> {
    let mut text = Vec::new();
    let url = response.url().to_string();
    while let Some(bytes) = response
        .chunk()
        .await
        .map_err(|e| Fault::of_connection(&e.without_url()))?
    {
        if text.len() + bytes.len() > max {
            return Err(Fault::bad_reply(
                &url,
                format!("the reply has more than {max} bytes"),
            ));
        }
        text.extend_from_slice(&bytes);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())])
    }

    #[test]
    fn a_busy_server_is_left_alone_for_as_long_as_it_says() {
        let after =
            |name, value| match passing(StatusCode::TOO_MANY_REQUESTS, &headers(name, value)) {
                Some(Fault::Passing { after, .. }) => after.map(|after| after.as_secs()),
                other => panic!("{other:?}"),
            };
        assert_eq!(after("retry-after", "7"), Some(7));
        assert_eq!(after("ratelimit", "\"resolvers\";r=0;t=171"), Some(172));
        assert_eq!(after("retry-after", "99999"), Some(600), "bounded");
        assert_eq!(after("retry-after", "soon"), None);
        assert_eq!(after("x-other", "1"), None);
        assert!(passing(StatusCode::BAD_REQUEST, &HeaderMap::new()).is_none());
        assert!(passing(StatusCode::BAD_GATEWAY, &HeaderMap::new()).is_some());
    }
}
