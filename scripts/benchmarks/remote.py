"""Views of a checkpoint on a web server of this machine, beside the server's own rate and local sources."""

import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .bench import Bench, flags_of, warm
from .readers import CHUNK, read_file, shards, size
from .report import Goal
from .system import process_status

SECTION = "A checkpoint on a web server (nginx on loopback), GB/s"
FETCHED = "Bytes that the server sent, to those that were needed"
MEMORY = "Memory of the process that serves a remote view, MB"
IN_FLIGHT, RANGE = 32, 8 << 20
RANKS = 8
CONFIG = """daemon off; worker_processes 1; pid {directory}/pid; error_log stderr crit;
events {{ worker_connections 512; }}
http {{
    log_format bytes '$body_bytes_sent'; access_log {directory}/log bytes;
    sendfile on; keepalive_requests 1000000;
    server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""


class Nginx:
    def __init__(self, port: int, log: Path) -> None:
        self.port, self.log = port, log

    def url(self, directory: Path) -> str:
        return f"http://127.0.0.1:{self.port}/{directory.name}/"

    def sent(self) -> int:
        """Bytes of all bodies so far."""
        return sum(map(int, self.log.read_text().split()))


@contextmanager
def nginx(program: str, root: Path, scratch: Path) -> Iterator[Nginx]:
    directory = scratch / "nginx"
    directory.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (directory / "conf").write_text(CONFIG.format(directory=directory, port=port, root=root))
    command = [program, "-p", directory, "-c", directory / "conf"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        wait_until_it_listens(port, process)
        yield Nginx(port, directory / "log")
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(directory)


def wait_until_it_listens(port: int, process: subprocess.Popen) -> None:
    while process.poll() is None:
        with socket.socket() as probe:
            if not probe.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.01)
    raise RuntimeError("nginx does not start")


def run(bench: Bench) -> None:
    script = Path(__file__).resolve().parents[1] / "nginx"
    program = subprocess.run([script], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    with nginx(program, bench.base.parent, bench.scratch) as server:
        for number in bench.each_round("remote", 3):
            round_of(bench, server, bench.scratch / f"blocks-{number}")


def round_of(bench: Bench, server: Nginx, cache: Path) -> None:
    warm(bench.base)
    files, total = shards(bench.base), size(shards(bench.base))
    own = own_rate(server, files)
    flags = flags_of(server.url(bench.base), "--block-cache", cache, "--block-cache-size", f"{2 * total / 1e9:.0f}GB")
    before = server.sent()
    with bench.view(flags) as mounted:
        first = rate_of(shards(mounted.path))
        peak = process_status(mounted.pid, "VmHWM") / 1e6
    fetched = server.sent() - before
    bench.report.sample(SECTION, "first read, unchanged, mount", "GB/s", first, own,
                        "the server, ranges of 8 MiB, 32 in flight", Goal(">=", 0.9))  # fmt: skip
    bench.report.sample(FETCHED, "all of a checkpoint, read front to back", "", fetched / total, goal=Goal("<=", 1.05))
    bench.report.sample(MEMORY, "read front to back", "MB", peak, goal=Goal("<=", 96 + 64 + 200),
                        note="VmHWM; blocks in memory 96 MB, tiles 64 MB")  # fmt: skip
    spliced = ["--repack", "--shard-size-gb", "0.2"]
    before = server.sent()
    with bench.view([*flags, *spliced]) as mounted:
        cached = rate_of(shards(mounted.path))
    again = server.sent() - before
    with bench.view(flags_of(bench.base, *spliced)) as mounted:
        local = rate_of(shards(mounted.path))
    bench.report.sample(SECTION, "from the block cache, spliced", "GB/s", cached, local, "local, spliced",
                        Goal(">=", 0.9), note=f"{again / 1e6:.1f} MB were asked for again")  # fmt: skip
    rows_of_a_rank(bench, server, bench.scratch / f"{cache.name}-rank")
    shutil.rmtree(cache, ignore_errors=True)


def rate_of(files: list[Path]) -> float:
    start = time.perf_counter()
    total = sum(read_file(path) for path in files)
    return total / (time.perf_counter() - start) / 1e9


def own_rate(server: Nginx, files: list[Path]) -> float:
    """What clients that compute nothing get."""
    ranges = [(path, at) for path in files for at in range(0, path.stat().st_size, RANGE)]
    lock = threading.Lock()

    def fetch() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        buffer = bytearray(CHUNK)
        while True:
            with lock:
                if not ranges:
                    return
                path, at = ranges.pop()
            headers = {"Range": f"bytes={at}-{at + RANGE - 1}"}
            connection.request("GET", f"/{path.parent.name}/{path.name}", headers=headers)
            reply = connection.getresponse()
            assert reply.status == 206
            while reply.readinto(buffer):
                pass

    total = size(files)
    threads = [threading.Thread(target=fetch) for _ in range(IN_FLIGHT)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return total / (time.perf_counter() - start) / 1e9


def rows_of_a_rank(bench: Bench, server: Nginx, cache: Path) -> None:
    """One of eight ranks reads its rows of every matrix."""
    needed = 0
    before = server.sent()
    flags = flags_of(server.url(bench.base), "--block-cache", cache)
    with bench.view(flags) as mounted:
        for path in shards(mounted.path):
            for at, length in rows(path):
                needed += length
                read_range(path, at, length)
    bench.report.sample(FETCHED, "one rank of 8, its rows of each matrix", "", (server.sent() - before) / needed,
                        goal=Goal("<=", 1.2))  # fmt: skip
    shutil.rmtree(cache, ignore_errors=True)


def rows(path: Path) -> Iterator[tuple[int, int]]:
    """Where the rows of rank 3 are: an eighth of each matrix, and all of each vector."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        begin, end = tensor["data_offsets"]
        if len(tensor["shape"]) > 1 and re.search("proj|embed|head", name):
            begin, end = begin + (end - begin) * 3 // RANKS, begin + (end - begin) * 4 // RANKS
        yield 8 + length + begin, end - begin


def read_range(path: Path, at: int, length: int) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        buffer = bytearray(CHUNK)
        while length:
            got = os.preadv(file, [memoryview(buffer)[:min(CHUNK, length)]], at)
            at, length = at + got, length - got
    finally:
        os.close(file)
