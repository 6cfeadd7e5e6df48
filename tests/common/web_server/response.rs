//! Replies, and how they are sent.

use std::io::Write;
use std::sync::atomic::Ordering;
use std::thread;

use super::request::Request;
use super::{State, Trouble};

pub(super) struct Response {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    pub(super) trouble: Option<Trouble>,
}

pub(super) fn status(status: u16, headers: &[(&str, &str)]) -> Response {
    let headers = headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Response {
        status,
        headers: headers.collect(),
        body: Vec::new(),
        trouble: None,
    }
}

pub(super) fn write_response(
    state: &State,
    writer: &mut impl Write,
    request: &Request,
    response: Response,
) -> bool {
    let Response {
        status,
        headers,
        body,
        trouble,
    } = response;
    let mut head = format!("HTTP/1.1 {status} X\r\n");
    if !headers.iter().any(|(name, _)| name == "content-length") {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    if writer.write_all(head.as_bytes()).is_err() || request.method == "HEAD" {
        return request.method == "HEAD";
    }
    match trouble {
        Some(Trouble::Cut(bytes)) => {
            let _ = writer.write_all(&body[..bytes.min(body.len())]);
            false
        }
        Some(Trouble::Stall(bytes)) => {
            let _ = writer.write_all(&body[..bytes.min(body.len())]);
            let ended = state.ended.lock().unwrap();
            let released = || state.released.load(Ordering::SeqCst);
            let before = released();
            state.stalled.fetch_add(1, Ordering::SeqCst);
            let goes_on = |ended: &mut bool| !*ended && released() == before;
            drop(state.end.wait_while(ended, goes_on).unwrap());
            state.stalled.fetch_sub(1, Ordering::SeqCst);
            false
        }
        Some(Trouble::Slow(pieces, pause)) => {
            let len = body.len().div_ceil(pieces as usize).max(1);
            body.chunks(len).all(|piece| {
                thread::sleep(pause);
                writer.write_all(piece).is_ok()
            })
        }
        _ => writer.write_all(&body).is_ok(),
    }
}
