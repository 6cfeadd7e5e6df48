"""Servers of this machine: moto, which is S3, and Azurite, which is Azure, both in memory; and nginx."""

import base64
import contextlib
import hashlib
import hmac
import http.client
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path

SECONDS_TO_START = 60
# Those that every Azurite has.
AZURE_ACCOUNT = "devstoreaccount1"
AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


class Store:
    """The bucket or container `bucket` of a store at `port`."""

    url: str
    # What is before the bucket in paths.
    root = ""
    settings: dict[str, str]

    def __init__(self, port: int) -> None:
        self.port = port

    def headers(self, method: str, path: str, query: dict[str, str], body: bytes) -> dict[str, str]:
        """Those that a request needs."""
        raise NotImplementedError

    def create(self) -> None:
        """Makes the bucket."""
        raise NotImplementedError

    def put(self, name: str, content: bytes) -> None:
        self.request("PUT", f"/bucket/{name}", {}, content)

    def request(self, method: str, path: str, query: dict[str, str], body: bytes = b"") -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        headers = self.headers(method, path, query, body)
        text = "&".join(f"{name}={value}" for name, value in query.items())
        connection.request(method, f"{self.root}{path}?{text}", body, headers)
        response = connection.getresponse()
        reply = response.read()
        assert response.status < 300, f"{method} {path}: {response.status} {reply[:500]}"


class Moto(Store):
    url = "s3://bucket"

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.settings = {
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ALLOW_HTTP": "true",
        }

    def headers(self, method, path, query, body):
        # Signatures are not checked, but what nobody signed may not replace an object.
        return {"Authorization": "AWS key:signature"}

    def create(self) -> None:
        self.request("PUT", "/bucket", {})


class Azurite(Store):
    url = "az://bucket"
    root = f"/{AZURE_ACCOUNT}"

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.settings = {
            "AZURE_STORAGE_ACCOUNT_NAME": AZURE_ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": AZURE_KEY,
            "AZURE_STORAGE_ENDPOINT": f"http://127.0.0.1:{port}{self.root}",
        }

    def headers(self, method, path, query, body):
        """A signature by the key of the account ("Shared Key")."""
        own = {"x-ms-blob-type": "BlockBlob", "x-ms-date": formatdate(usegmt=True), "x-ms-version": "2023-11-03"}
        lines = [method, "", "", str(len(body) or ""), *[""] * 8]
        lines += [f"{name}:{value}" for name, value in sorted(own.items())]
        lines += [f"/{AZURE_ACCOUNT}{self.root}{path}", *(f"{name}:{query[name]}" for name in sorted(query))]
        digest = hmac.digest(base64.b64decode(AZURE_KEY), "\n".join(lines).encode(), hashlib.sha256)
        return own | {"Authorization": f"SharedKey {AZURE_ACCOUNT}:{base64.b64encode(digest).decode()}"}

    def create(self) -> None:
        self.request("PUT", "/bucket", {"restype": "container"})


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextlib.contextmanager
def running(command: list[str], connect: Callable[[], None]) -> Iterator[None]:
    """Runs `command` from when `connect` has no error to the end of the block."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + SECONDS_TO_START
        while True:
            try:
                connect()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, f"{command} does not start"
                time.sleep(0.05)
        yield
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def started(kind: type[Store], command: list[str]) -> Iterator[Store]:
    """The store that `command`, to which the port is added, serves until the end of the block."""
    store = kind(free_port())
    with running([*command, str(store.port)], store.create):
        yield store


def script(name: str) -> str:
    """The path that a script of this repository prints."""
    path = Path(__file__).parents[2] / "scripts" / name
    return subprocess.run([path], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def moto() -> contextlib.AbstractContextManager[Store]:
    return started(Moto, [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p"])


def azurite() -> contextlib.AbstractContextManager[Store]:
    flags = ["--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--blobHost", "127.0.0.1"]
    return started(Azurite, ["node", script("azurite"), *flags, "--blobPort"])


# What servers of tests present, and the authority that signed it.
CERTIFICATES = Path(__file__).parents[1] / "common" / "certificates"
AUTHORITY = CERTIFICATES / "authority.pem"


@contextlib.contextmanager
def nginx(root: Path, scratch: Path, certificate: Path | None = None) -> Iterator[str]:
    """The URL at which nginx serves the files below `root`, encrypted if it has a `certificate`, with its key."""
    port = free_port()
    encryption = f"ssl_certificate {certificate}; ssl_certificate_key {certificate};" if certificate else ""
    kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    scratches = " ".join(f"{kind}_temp_path {scratch}/nginx-{kind};" for kind in kinds)
    configuration = scratch / "nginx.conf"
    # In one process, which may read what its user may.
    configuration.write_text(
        f"daemon off; master_process off; pid {scratch}/nginx.pid; events {{}}\n"
        f"http {{ access_log off; {scratches} server {{ listen 127.0.0.1:{port}{' ssl' if certificate else ''}; {encryption} root {root}; }} }}\n")
    command = [script("nginx"), "-e", "stderr", "-c", str(configuration)]
    with running(command, lambda: socket.create_connection(("127.0.0.1", port)).close()):
        yield f"https://localhost:{port}" if certificate else f"http://127.0.0.1:{port}"
