//! In what stores differ. Requests to Azure become those that S3 would have had, and replies become Azure's.

use super::super::web_server::{Request, decoded};
use super::{Reply, State};

/// Which store a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    S3,
    Google,
    Azure,
}

impl Kind {
    pub(crate) const ALL: [Kind; 3] = [Kind::S3, Kind::Google, Kind::Azure];

    /// The scheme of URLs of such a store.
    pub(crate) fn scheme(self) -> &'static str {
        match self {
            Kind::S3 => "s3",
            Kind::Google => "gs",
            Kind::Azure => "az",
        }
    }

    /// The settings with which clients reach a store at `url`.
    pub(crate) fn settings(self, url: &str) -> Vec<(&'static str, String)> {
        // A service account that needs no token.
        let key = format!(
            r#"{{"gcs_base_url": "{url}", "disable_oauth": true, "client_email": "", "private_key": "", "private_key_id": ""}}"#
        );
        let settings = match self {
            Kind::S3 => vec![
                ("AWS_ACCESS_KEY_ID", "key"),
                ("AWS_SECRET_ACCESS_KEY", "secret"),
                ("AWS_REGION", "us-east-1"),
                ("AWS_ENDPOINT_URL", url),
                ("AWS_ALLOW_HTTP", "true"),
            ],
            Kind::Google => vec![("GOOGLE_SERVICE_ACCOUNT_KEY", &*key)],
            Kind::Azure => vec![
                ("AZURE_STORAGE_ACCOUNT_NAME", "account"),
                ("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0"),
                ("AZURE_STORAGE_ENDPOINT", url),
            ],
        };
        let owned = settings.into_iter();
        owned
            .map(|(name, value)| (name, value.to_owned()))
            .collect()
    }

    /// Checks that `request` is signed as this store asks for.
    pub(super) fn check_signed(self, request: &Request) {
        let found = request.headers.get("authorization").map(String::as_str);
        let found = found.unwrap_or_default();
        assert!(match self {
            Kind::S3 => found.starts_with("AWS4-HMAC-SHA256 "),
            // The account needs no token, and some requests have an empty one.
            Kind::Google => matches!(found, "" | "Bearer"),
            Kind::Azure => found.starts_with("SharedKey account:"),
        });
    }

    /// Whether an object is to be created only if there is none.
    pub(super) fn only_creates(self, request: &Request) -> bool {
        match self {
            Kind::S3 | Kind::Azure => request.headers.contains_key("if-none-match"),
            Kind::Google => request.headers.contains_key("x-goog-if-generation-match"),
        }
    }

    /// `request` in the words of S3.
    pub(super) fn translated(self, state: &State, mut request: Request) -> Request {
        if self != Kind::Azure {
            return request;
        }
        let has = |text: &str| request.query.split('&').any(|part| part == text);
        let path = request.path.trim_end_matches('/');
        if has("comp=block") {
            // Blocks have names and no numbers: they are counted. Those of an object are its upload.
            let uploads = state.uploads.lock().unwrap();
            let sent = uploads.1.get(path).map_or(0, |upload| upload.parts.len());
            let query = &request.query;
            request.query = format!("{query}&partNumber={}&uploadId={path}", sent + 1);
        } else if has("comp=blocklist") {
            request.method = "POST".to_owned();
            request.query = format!("uploadId={path}");
        } else if has("comp=list") {
            let query = request.query.replace("marker=", "continuation-token=");
            request.query = format!("{query}&list-type=2");
        } else if has("comp=batch") {
            let body = String::from_utf8(request.body.clone()).unwrap();
            assert_eq!(body.matches("\r\nDELETE ").count(), 1, "{body}");
            let (_, rest) = body.split_once("\r\nDELETE ").unwrap();
            let (path, _) = rest.split_once(' ').unwrap();
            request.method = "DELETE".to_owned();
            request.path = decoded(path.trim_start_matches('/'));
            request.query = "batch".to_owned();
        }
        request
    }

    /// `reply` to `request` as this store has it.
    pub(super) fn reply(self, request: &Request, mut reply: Reply) -> Reply {
        let is_write = matches!(&*request.method, "PUT" | "POST");
        match self {
            Kind::S3 => {}
            Kind::Google => reply.headers.push(("x-goog-generation", "1".to_owned())),
            Kind::Azure if request.method == "DELETE" => {
                let status = match reply.status {
                    204 => 202,
                    status => status,
                };
                let boundary = "multipart/mixed; boundary=b".to_owned();
                reply.status = 202;
                reply.headers.push(("content-type", boundary));
                reply.body = format!(
                    "--b\r\ncontent-type: application/http\r\ncontent-id: 0\r\n\r\nHTTP/1.1 {status} X\r\nserver: x\r\n\r\n--b--\r\n"
                )
                .into_bytes();
            }
            Kind::Azure => {
                if reply.status == 404 && request.method == "POST" {
                    // Blocks that are named and not there.
                    reply.status = 400;
                    reply.body = b"<Error><Code>InvalidBlockList</Code></Error>".to_vec();
                }
                reply.status = match reply.status {
                    200 if is_write => 201,
                    412 if is_write => 409,
                    status => status,
                };
            }
        }
        reply
    }

    /// A page of objects, each with its key, its tag and its length, and where the next page begins.
    pub(super) fn page<'a>(
        self,
        objects: impl Iterator<Item = (&'a str, String, usize)>,
        next: Option<usize>,
    ) -> String {
        let next = next.map_or_else(String::new, |next| next.to_string());
        if self == Kind::Azure {
            let objects = objects.map(|(key, tag, len)| {
                let tag = tag.trim_matches('"');
                format!(
                    "<Blob><Name>{key}</Name><Properties><Last-Modified>Fri, 02 Jan 2026 03:04:05 GMT</Last-Modified><Etag>{tag}</Etag><Content-Length>{len}</Content-Length><Content-Type>application/octet-stream</Content-Type></Properties></Blob>"
                )
            });
            let objects: String = objects.collect();
            return format!(
                "<EnumerationResults><Blobs>{objects}</Blobs><NextMarker>{next}</NextMarker></EnumerationResults>"
            );
        }
        let objects = objects.map(|(key, tag, len)| {
            let tag = tag.replace('"', "&quot;");
            format!(
                "<Contents><Key>{key}</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified><ETag>{tag}</ETag><Size>{len}</Size></Contents>"
            )
        });
        let objects: String = objects.collect();
        let next = match next.is_empty() {
            true => "<IsTruncated>false</IsTruncated>".to_owned(),
            false => format!(
                "<IsTruncated>true</IsTruncated><NextContinuationToken>{next}</NextContinuationToken>"
            ),
        };
        format!("<ListBucketResult>{objects}{next}</ListBucketResult>")
    }
}
