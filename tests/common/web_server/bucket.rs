//! S3: the listing of a bucket.

use super::files::tag;
use super::request::{Request, decoded};
use super::response::{Response, status};
use super::{State, Stored, page};

/// `ListObjectsV2`, by pages.
pub(super) fn list_objects(state: &State, request: &Request) -> Response {
    let parameter = |name: &str| {
        let mut parts = request.query.split('&');
        let found = parts.find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        decoded(found.unwrap_or_default())
    };
    let (bucket, prefix) = (request.path.trim_end_matches('/'), parameter("prefix"));
    let start: usize = parameter("continuation-token").parse().unwrap_or(0);
    let files = state.files.lock().unwrap();
    let of_bucket = files.iter().filter_map(|(path, content)| {
        let key = path.strip_prefix(bucket)?.strip_prefix('/')?;
        key.starts_with(&prefix).then_some((key, content))
    });
    let found: Vec<(&str, &Stored)> = of_bucket.collect();
    let page = page(found.len());
    let contents = found.iter().skip(start).take(page).map(|(key, content)| {
        format!(
            "<Contents><Key>{key}</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified><ETag>{}</ETag><Size>{}</Size></Contents>",
            tag(content).replace('"', "&quot;"),
            content.content.len()
        )
    });
    let contents = contents.collect::<String>();
    let next = if start + page < found.len() {
        format!(
            "<IsTruncated>true</IsTruncated><NextContinuationToken>{}</NextContinuationToken>",
            start + page
        )
    } else {
        "<IsTruncated>false</IsTruncated>".to_owned()
    };
    let mut response = status(200, &[("content-type", "application/xml")]);
    response.body = format!("<ListBucketResult>{contents}{next}</ListBucketResult>").into_bytes();
    response
}
