//! What the path of a request names. Nothing here looks anything up: a path that no file has is found
//! missing later, and no path is ever handed to the operating system.

use crate::serve::repo::RepoName;

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// A file or directory of the view; the top directory has an empty path.
    Entry {
        /// The revision, if the path names one.
        revision: Option<String>,
        path: Vec<u8>,
    },
    Api(Api),
    /// A repository that is not here.
    OtherRepo,
    Unknown,
    /// Not a path that a file can have.
    Invalid,
}

/// What a path below `/api/models/NAME` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Api {
    /// The repository, at a revision or at its default.
    Model { revision: Option<String> },
    /// The files of a directory.
    Tree { revision: String, path: Vec<u8> },
    /// The files that the body names.
    Paths { revision: String },
    /// Branches and tags.
    Refs,
    /// The history of a revision.
    Commits { revision: String },
    /// Whether the client may read.
    AuthCheck,
}

/// What follows the name of a repository in the path of a file.
const FILES: [&[u8]; 2] = [b"resolve", b"raw"];

/// What the path `raw` of a URL names on a server of the repository `name`.
pub fn route(raw: &str, name: &RepoName) -> Route {
    let Some(segments) = segments(raw) else {
        return Route::Invalid;
    };
    let segments: Vec<&[u8]> = segments.iter().map(Vec::as_slice).collect();
    match &segments[..] {
        [b"api", rest @ ..] => api(rest, name),
        _ => entry(&segments, name),
    }
}

fn api(segments: &[&[u8]], name: &RepoName) -> Route {
    let [b"models", rest @ ..] = segments else {
        return match segments {
            [b"datasets" | b"spaces" | b"kernels", _, ..] => Route::OtherRepo,
            _ => Route::Unknown,
        };
    };
    let rest = match (rest, after_name(rest, name)) {
        ([], _) => return Route::Unknown,
        (_, None) => return Route::OtherRepo,
        (_, Some(rest)) => rest,
    };
    let api = match rest {
        [] => Some(Api::Model { revision: None }),
        [b"revision", revision] => text(revision).map(|revision| Api::Model {
            revision: Some(revision),
        }),
        [b"tree", revision, path @ ..] => match (text(revision), path_of(path)) {
            (Some(revision), Some(path)) => Some(Api::Tree { revision, path }),
            _ => None,
        },
        [b"paths-info", revision] => text(revision).map(|revision| Api::Paths { revision }),
        [b"refs"] => Some(Api::Refs),
        [b"commits", revision] => text(revision).map(|revision| Api::Commits { revision }),
        [b"auth-check"] => Some(Api::AuthCheck),
        _ => return Route::Unknown,
    };
    api.map_or(Route::Invalid, Route::Api)
}

fn entry(segments: &[&[u8]], name: &RepoName) -> Route {
    let (revision, path) = match after_name(segments, name) {
        Some([]) => (None, &[][..]),
        Some([kind, revision, path @ ..]) if FILES.contains(kind) => match text(revision) {
            Some(revision) => (Some(revision), path),
            None => return Route::Invalid,
        },
        _ => {
            // As in `org/model/resolve` and `datasets/org/model/resolve`.
            let mut of_repo = segments.iter().take(4).skip(1);
            if of_repo.any(|segment| FILES.contains(segment)) {
                return Route::OtherRepo;
            }
            (None, segments)
        }
    };
    match path_of(path) {
        Some(path) => Route::Entry { revision, path },
        None => Route::Invalid,
    }
}

/// What follows `name` in `segments`, if they begin with it.
fn after_name<'a, 'b>(segments: &'a [&'b [u8]], name: &RepoName) -> Option<&'a [&'b [u8]]> {
    let mut rest = segments;
    for part in name.parts() {
        let (first, others) = rest.split_first()?;
        if *first != part.as_bytes() {
            return None;
        }
        rest = others;
    }
    Some(rest)
}

/// The decoded segments of an absolute path, without the empty one after a slash at the end.
fn segments(raw: &str) -> Option<Vec<Vec<u8>>> {
    let raw = raw.strip_prefix('/')?;
    let raw = raw.strip_suffix('/').unwrap_or(raw);
    if raw.is_empty() {
        return Some(Vec::new());
    }
    raw.split('/').map(decoded).collect()
}

/// `text` with its percent-encoded bytes decoded; none if an encoding is not valid.
pub fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || (bytes.next()? as char).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        decoded.push((high * 16 + low) as u8);
    }
    Some(decoded)
}

/// The path that `segments` make, which may themselves hold slashes that were encoded; none if no file
/// can have it.
fn path_of(segments: &[&[u8]]) -> Option<Vec<u8>> {
    let path = segments.join(&b'/');
    if path.is_empty() {
        return segments.is_empty().then_some(path);
    }
    let mut parts = path.split(|&byte| byte == b'/');
    let is_name = |part: &[u8]| !matches!(part, b"" | b"." | b"..") && !part.contains(&0);
    parts.all(is_name).then_some(path)
}

/// A revision.
fn text(segment: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(segment).ok()?;
    let is_one = !text.is_empty() && !text.chars().any(char::is_control);
    is_one.then(|| text.to_owned())
}
