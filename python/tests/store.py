"""A store with the API of S3 in memory, on this machine. It can be told to keep senders of parts waiting."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

MODIFIED = "2026-01-02T03:04:05.000Z"


class Store(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        # By bucket and key.
        self.objects: dict[str, bytes] = {}
        # What was begun and neither completed nor aborted: parts by number, by upload.
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.begun = 0
        # Parts are taken as long as it is set; it is noted when one waits.
        self.takes_parts = threading.Event()
        self.takes_parts.set()
        self.part_waits = threading.Event()

    @property
    def settings(self) -> dict[str, str]:
        """The variables by which clients reach it."""
        return {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1",
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.server_port}", "AWS_ALLOW_HTTP": "true"}

    def handle_error(self, request, client_address) -> None:
        """Clients that are stopped close connections."""


def tag(content: bytes) -> str:
    return f'"{hashlib.md5(content).hexdigest()}"'


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Store

    def log_message(self, *_) -> None:
        pass

    def reply(self, status: int, body: bytes = b"", headers: dict[str, str] = {}) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def asked(self) -> tuple[str, dict[str, str], bytes]:
        """The path, the query, and the body."""
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return unquote(url.path).strip("/"), query, body

    def do_GET(self) -> None:
        path, query, _ = self.asked()
        if "list-type" in query:
            self.list_objects(path, query.get("prefix", ""))
        elif (content := self.server.objects.get(path)) is None:
            self.reply(404)
        elif self.headers.get("If-Match", tag(content)) != tag(content):
            self.reply(412)
        else:
            headers = {"ETag": tag(content), "Last-Modified": "Fri, 02 Jan 2026 03:04:05 GMT"}
            if asked := self.headers.get("Range"):
                first, _, last = asked.removeprefix("bytes=").partition("-")
                part = content[int(first):int(last or len(content)) + 1]
                headers["Content-Range"] = f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}"
                self.reply(206, part, headers)
            else:
                self.reply(200, content, headers | {"Content-Length": str(len(content))})

    do_HEAD = do_GET

    def list_objects(self, bucket: str, prefix: str) -> None:
        found = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>{MODIFIED}</LastModified>"
            f"<ETag>{escape(tag(content))}</ETag><Size>{len(content)}</Size></Contents>"
            for path, content in sorted(self.server.objects.items())
            if path.startswith(f"{bucket}/") and (key := path[len(bucket) + 1:]).startswith(prefix))
        listing = f"<ListBucketResult>{found}<IsTruncated>false</IsTruncated></ListBucketResult>"
        self.reply(200, listing.encode())

    def do_PUT(self) -> None:
        path, query, body = self.asked()
        if "uploadId" in query:
            if not self.server.takes_parts.is_set():
                self.server.part_waits.set()
                self.server.takes_parts.wait()
            if (parts := self.server.uploads.get(query["uploadId"])) is None:
                self.reply(404)
                return
            parts[int(query["partNumber"])] = body
        elif "If-None-Match" in self.headers and path in self.server.objects:
            self.reply(412)
            return
        else:
            self.server.objects[path] = body
        self.reply(200, headers={"ETag": tag(body)})

    def do_POST(self) -> None:
        path, query, _ = self.asked()
        if "uploads" in query:
            self.server.begun += 1
            upload = str(self.server.begun)
            self.server.uploads[upload] = {}
            result = f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
        elif (parts := self.server.uploads.pop(query["uploadId"], None)) is None:
            self.reply(404)
            return
        else:
            content = b"".join(parts[number] for number in sorted(parts))
            self.server.objects[path] = content
            result = (f"<CompleteMultipartUploadResult><Location>x</Location><Bucket>x</Bucket><Key>x</Key>"
                      f"<ETag>{escape(tag(content))}</ETag></CompleteMultipartUploadResult>")
        self.reply(200, result.encode())

    def do_DELETE(self) -> None:
        path, query, _ = self.asked()
        if "uploadId" in query:
            self.server.uploads.pop(query["uploadId"], None)
        else:
            self.server.objects.pop(path, None)
        self.reply(204)


@contextmanager
def running() -> Iterator[Store]:
    """A store until the end of the block."""
    with Store() as store:
        threading.Thread(target=store.serve_forever, daemon=True).start()
        try:
            yield store
        finally:
            store.takes_parts.set()
            store.shutdown()
