//! A plain directory: files and ranges of them, with entity tags.

use std::sync::atomic::Ordering;

use super::request::Request;
use super::response::{Response, status};
use super::{State, Stored, Trouble};

/// The entity tag of a plain file or an object.
pub(super) fn tag(stored: &Stored) -> String {
    format!("\"{}\"", &stored.hash[..16])
}

/// The range of `content` that is asked for, or all of it.
pub(super) fn file(
    state: &State,
    request: &Request,
    content: &[u8],
    tag: Option<String>,
    trouble: Option<Trouble>,
) -> Response {
    let mut headers = Vec::new();
    if trouble != Some(Trouble::NoPin)
        && !state
            .troubles
            .lock()
            .unwrap()
            .iter()
            .any(|(_, trouble, _)| *trouble == Trouble::NoPin)
        && let Some(tag) = &tag
    {
        if let Some(wanted) = request.header("if-match")
            && wanted != tag
            && !state.ignores_if_match.load(Ordering::Relaxed)
        {
            return status(412, &[]);
        }
        headers.push(("etag".to_owned(), tag.clone()));
        headers.push((
            "last-modified".to_owned(),
            "Sun, 06 Nov 1994 08:49:37 GMT".to_owned(),
        ));
    }
    let len = content.len();
    let range = request
        .range(len)
        .filter(|_| trouble != Some(Trouble::Whole));
    if trouble == Some(Trouble::Compressed) {
        headers.push(("content-encoding".to_owned(), "gzip".to_owned()));
    }
    if request.method == "HEAD" {
        headers.push(("content-length".to_owned(), len.to_string()));
        return Response {
            status: 200,
            headers,
            body: Vec::new(),
            trouble,
        };
    }
    let Some((mut from, mut to)) = range else {
        return Response {
            status: 200,
            headers,
            body: content.to_vec(),
            trouble,
        };
    };
    if from >= len {
        return status(416, &[]);
    }
    if trouble == Some(Trouble::OtherRange) {
        (from, to) = (from + 1, (to + 1).min(len));
    }
    headers.push((
        "content-range".to_owned(),
        format!("bytes {from}-{}/{len}", to - 1),
    ));
    let status = match trouble {
        Some(Trouble::RangeAsWhole) => 200,
        _ => 206,
    };
    Response {
        status,
        headers,
        body: content[from..to].to_vec(),
        trouble,
    }
}
