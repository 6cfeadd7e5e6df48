"""Views of a checkpoint on a web server of this machine, beside the server's own rate and local sources."""

import http.client
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import inputs, links
from .bench import Bench, flags_of, warm
from .readers import CHUNK, read_file, shards, size
from .report import Goal
from .system import process_status, touch_memory

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
    client_body_temp_path {directory}; proxy_temp_path {directory}; fastcgi_temp_path {directory};
    uwsgi_temp_path {directory}; scgi_temp_path {directory};
    server {{ listen {address}:{port}; root {root}; }}
}}
"""
# Megabits/s of a link that is slower than this machine.
LINK = 4000


class Nginx:
    def __init__(self, address: str, port: int, log: Path) -> None:
        self.address, self.port, self.log = address, port, log

    def url(self, directory: Path) -> str:
        return f"http://{self.address}:{self.port}/{directory.name}/"

    def sent(self) -> int:
        """Bytes of all bodies so far."""
        return sum(map(int, self.log.read_text().split()))


@contextmanager
def nginx(program: str, root: Path, scratch: Path, address: str = "127.0.0.1", within: list = []) -> Iterator[Nginx]:
    directory = scratch / f"nginx-{address}"
    directory.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = CONFIG.format(directory=directory, address=address, port=port, root=root)
    (directory / "conf").write_text(config)
    command = [*within, program, "-p", directory, "-e", "stderr", "-c", directory / "conf"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        wait_until_it_listens((address, port), process)
        yield Nginx(address, port, directory / "log")
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(directory)


def wait_until_it_listens(address: tuple[str, int], process: subprocess.Popen) -> None:
    while process.poll() is None:
        with socket.socket() as probe:
            if not probe.connect_ex(address):
                return
        time.sleep(0.01)
    raise RuntimeError("nginx does not start")


def run(bench: Bench) -> None:
    script = Path(__file__).resolve().parents[1] / "nginx"
    program = subprocess.run([script], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    with nginx(program, bench.base.parent, bench.scratch) as server:
        for number in bench.each_round("remote", 3):
            round_of(bench, server, bench.scratch / f"blocks-{number}")
        # Without a second round: bytes do not vary as times do.
        ranks(bench, server, bench.base, "8B", (rows, columns))
        ranks(bench, server, inputs.cached(bench.work / "wide", inputs.make_wide), "70B", (rows,))
    over_a_link(bench, program)


def over_a_link(bench: Bench, program: str) -> None:
    """First reads where the network is what takes the time."""
    row, peer = f"first read, a link of {LINK // 1000} Gbit/s", "the server, the same ranges and link"
    if reason := links.missing():
        bench.report.not_run(SECTION, row, reason)
        return
    with links.link(LINK) as within, nginx(program, bench.base.parent, bench.scratch, links.FAR, within) as server:
        for number in bench.each_round("remote, a link", 3):
            warm(bench.base)
            cache, files = bench.scratch / f"blocks-{number}", shards(bench.base)
            own = own_rate(server, files)
            touch_memory(3 * size(files))
            with bench.view(flags_of(server.url(bench.base), "--allow-http", "--block-cache", cache)) as mounted:
                first = rate_of(shards(mounted.path))
            bench.report.sample(SECTION, row, "GB/s", first, own, peer, Goal(">=", 0.9))
            shutil.rmtree(cache, ignore_errors=True)


def round_of(bench: Bench, server: Nginx, cache: Path) -> None:
    warm(bench.base)
    files, total = shards(bench.base), size(shards(bench.base))
    own = own_rate(server, files)
    flags = flags_of(server.url(bench.base), "--block-cache", cache, "--block-cache-size", f"{2 * total / 1e9:.0f}GB")
    before = server.sent()
    touch_memory(3 * total)  # for the files of the mount, of the cache, and on their way
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
    touch_memory(total)
    with bench.view([*flags, *spliced]) as mounted:
        cached = rate_of(shards(mounted.path))
    again = server.sent() - before
    touch_memory(total)
    with bench.view(flags_of(bench.base, *spliced)) as mounted:
        local = rate_of(shards(mounted.path))
    bench.report.sample(SECTION, "from the block cache, spliced", "GB/s", cached, local, "local, spliced",
                        Goal(">=", 0.9), note=f"{again / 1e6:.1f} MB were asked for again")  # fmt: skip
    shutil.rmtree(cache, ignore_errors=True)
    unkept = flags_of(server.url(bench.base), "--block-cache-size", 0)
    touch_memory(2 * total)
    with bench.view(unkept) as mounted:
        first = rate_of(shards(mounted.path))
    bench.report.sample(SECTION, "the same without a block cache", "GB/s", first, own, "the server")


def rate_of(files: list[Path]) -> float:
    start = time.perf_counter()
    total = sum(read_file(path) for path in files)
    return total / (time.perf_counter() - start) / 1e9


def own_rate(server: Nginx, files: list[Path]) -> float:
    """What clients that compute nothing get."""
    ranges = [(path, at) for path in files for at in range(0, path.stat().st_size, RANGE)]
    lock = threading.Lock()

    def fetch() -> None:
        connection = http.client.HTTPConnection(server.address, server.port)
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


def ranks(bench: Bench, server: Nginx, base: Path, model: str, ways: tuple) -> None:
    """What ranks of tensor parallelism read of the first shard, each its part of every matrix."""
    cache = bench.scratch / f"ranks-{model}"
    flags = flags_of(server.url(base), "--block-cache", cache)
    one, every = "one rank of 8, its {}, {}", "8 ranks on one machine, their {}, {}"
    for slices in ways:
        for what, numbers, goal in [(one, [3], 1.2 if slices is rows else None), (every, range(RANKS), 1.05)]:
            needed, before = 0, server.sent()
            with bench.view(flags) as mounted:
                for path in shards(mounted.path)[:1]:  # columns take many reads
                    parts = {part for number in numbers for part in slices(path, number)}
                    needed += sum(length for _, length in parts)
                    for at, length in sorted(parts):
                        read_range(path, at, length)
            bench.report.sample(FETCHED, what.format(slices.__name__, model), "", (server.sent() - before) / needed,
                                goal=Goal("<=", goal) if goal else None)  # fmt: skip
            shutil.rmtree(cache, ignore_errors=True)


def rows(path: Path, rank: int) -> Iterator[tuple[int, int]]:
    """Where the rows of a rank are: an eighth of each matrix, and all of each vector."""
    for begin, length, shape in tensors(path):
        part = length // RANKS if len(shape) == 2 else length
        yield begin + (rank * part if len(shape) == 2 else 0), part


def columns(path: Path, rank: int) -> Iterator[tuple[int, int]]:
    """Where the columns of a rank are: an eighth of each row."""
    for begin, length, shape in tensors(path):
        if len(shape) != 2:
            yield begin, length
            continue
        row = length // shape[0]
        part = row // RANKS
        for at in range(begin, begin + length, row):
            yield at + rank * part, part


def tensors(path: Path) -> list[tuple[int, int, list[int]]]:
    """Offset, bytes and shape of each."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    places = [(*tensor["data_offsets"], tensor["shape"]) for tensor in header.values()]
    return [(8 + length + begin, end - begin, shape) for begin, end, shape in places]


def read_range(path: Path, at: int, length: int) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        buffer = bytearray(CHUNK)
        while length:
            got = os.preadv(file, [memoryview(buffer)[:min(CHUNK, length)]], at)
            at, length = at + got, length - got
    finally:
        os.close(file)
