//! What the requests do: objects and parts.

use sha2::{Digest, Sha256};

use super::super::web_server::{Request, decoded};
use super::{Kind, Reply, State, Upload, reply};

fn xml(body: String) -> Reply {
    Reply {
        status: 200,
        headers: vec![("content-type", "application/xml".to_owned())],
        body: body.into_bytes(),
    }
}

fn tag(content: &[u8]) -> String {
    let hash = Sha256::digest(content);
    let hash = hash.iter().take(16).map(|byte| format!("{byte:02x}"));
    format!("\"{}\"", hash.collect::<String>())
}

fn with_tag(content: &[u8]) -> Reply {
    let mut reply = reply(200);
    reply.headers.push(("etag", tag(content)));
    reply
}

fn parameter(request: &Request, name: &str) -> Option<String> {
    let mut parts = request.query.split('&');
    parts.find_map(|part| {
        let rest = part.strip_prefix(name)?;
        match rest.strip_prefix('=') {
            Some(value) => Some(decoded(value)),
            None => rest.is_empty().then(String::new),
        }
    })
}

/// The reply to a request in the words of S3.
pub(super) fn answer(state: &State, request: &Request) -> Reply {
    let path = request.path.trim_end_matches('/');
    let upload = parameter(request, "uploadId");
    match (&*request.method, upload) {
        ("GET", _) if parameter(request, "list-type").is_some() => list(state, request, path),
        ("POST", None) if parameter(request, "uploads").is_some() => begin(state, path),
        ("PUT", Some(id)) => put_part(state, request, path, &id),
        ("POST", Some(id)) => complete(state, request, path, &id),
        ("DELETE", Some(id)) => match state.uploads.lock().unwrap().1.remove(&id) {
            Some(_) => reply(204),
            None => reply(404),
        },
        ("DELETE", None) => match state.objects.lock().unwrap().remove(path) {
            None if state.kind != Kind::S3 => reply(404),
            _ => reply(204),
        },
        ("PUT", None) => {
            let mut objects = state.objects.lock().unwrap();
            if state.kind.only_creates(request) && objects.contains_key(path) {
                return reply(412);
            }
            objects.insert(path.to_owned(), request.body.clone());
            with_tag(&request.body)
        }
        ("GET" | "HEAD", _) => match state.objects.lock().unwrap().get(path) {
            Some(content) => object(request, content),
            None => reply(404),
        },
        _ => reply(501),
    }
}

fn object(request: &Request, content: &[u8]) -> Reply {
    let wanted = request.headers.get("if-match");
    if wanted.is_some_and(|wanted| *wanted != tag(content)) {
        return reply(412);
    }
    let mut reply = with_tag(content);
    let date = "Sun, 06 Nov 1994 08:49:37 GMT".to_owned();
    reply.headers.push(("last-modified", date));
    let len = content.len();
    match request.range(len) {
        Some((from, to)) => {
            reply.status = 206;
            let range = format!("bytes {from}-{}/{len}", to - 1);
            reply.headers.push(("content-range", range));
            reply.body = content[from..to].to_vec();
        }
        None if request.method == "HEAD" => {
            reply.headers.push(("content-length", len.to_string()));
        }
        None => reply.body = content.to_vec(),
    }
    reply
}

/// Lists objects, by small pages.
fn list(state: &State, request: &Request, bucket: &str) -> Reply {
    const PAGE: usize = 4;
    let prefix = parameter(request, "prefix").unwrap_or_default();
    let start = parameter(request, "continuation-token");
    let start: usize = start.map_or(0, |token| token.parse().unwrap());
    let objects = state.objects.lock().unwrap();
    let found = objects.iter().filter_map(|(path, content)| {
        let key = path.strip_prefix(bucket)?.strip_prefix('/')?;
        let is_found = key.starts_with(&prefix);
        is_found.then_some((key, content))
    });
    let found: Vec<(&str, &Vec<u8>)> = found.collect();
    let page = found.iter().skip(start).take(PAGE);
    let page = page.map(|(key, content)| (*key, tag(content), content.len()));
    let next = (start + PAGE < found.len()).then_some(start + PAGE);
    xml(state.kind.page(page, next))
}

fn begin(state: &State, path: &str) -> Reply {
    let mut uploads = state.uploads.lock().unwrap();
    uploads.0 += 1;
    let id = format!("upload-{}", uploads.0);
    uploads.1.insert(id.clone(), Upload::of(path));
    xml(format!(
        "<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
    ))
}

fn put_part(state: &State, request: &Request, path: &str, id: &str) -> Reply {
    let mut uploads = state.uploads.lock().unwrap();
    let number = match state.kind {
        Kind::Azure => {
            let uploads = uploads.1.entry(id.to_owned());
            uploads.or_insert_with(|| Upload::of(path));
            parameter(request, "blockid").unwrap()
        }
        _ => parameter(request, "partNumber").unwrap(),
    };
    let Some(upload) = uploads.1.get_mut(id) else {
        return reply(404);
    };
    upload.parts.insert(number, request.body.clone());
    with_tag(&request.body)
}

/// The texts of the elements of this name.
fn elements<'a>(xml: &'a str, name: &str) -> Vec<&'a str> {
    let parts = xml.split(name).skip(1).step_by(2);
    parts
        .map(|text| text.trim_start_matches('>').split('<').next().unwrap())
        .collect()
}

fn complete(state: &State, request: &Request, path: &str, id: &str) -> Reply {
    const MIN_PART: usize = 5 << 20;
    let mut uploads = state.uploads.lock().unwrap();
    let Some(upload) = uploads.1.remove(id) else {
        return reply(404);
    };
    assert_eq!(upload.key, path);
    let wanted = std::str::from_utf8(&request.body).unwrap();
    let names = match state.kind {
        Kind::Azure => elements(wanted, "Uncommitted"),
        _ => elements(wanted, "PartNumber"),
    };
    let parts: Vec<&Vec<u8>> = names.iter().map(|&name| &upload.parts[name]).collect();
    if state.kind != Kind::Azure {
        let (_, others) = parts.split_last().unwrap();
        let is_number = |(at, name): (usize, &&str)| *name == (at + 1).to_string();
        assert!(names.iter().enumerate().all(is_number));
        assert!(others.iter().all(|part| part.len() >= MIN_PART));
        for part in &parts {
            assert!(wanted.contains(tag(part).trim_matches('"')), "{wanted}");
        }
    }
    let content: Vec<u8> = parts.into_iter().flatten().copied().collect();
    let tag = tag(&content);
    let mut reply = xml(format!(
        "<CompleteMultipartUploadResult><Location>x</Location><Bucket>x</Bucket><Key>x</Key><ETag>{}</ETag></CompleteMultipartUploadResult>",
        tag.replace('"', "&quot;")
    ));
    reply.headers.push(("etag", tag));
    let mut objects = state.objects.lock().unwrap();
    objects.insert(path.to_owned(), content);
    reply
}
