"""Views written to disk."""

import os
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from .bench import Bench, flags_of, warm
from .readers import shards, size
from .report import Goal
from .system import (
    bytes_in_page_cache,
    drop_from_page_cache,
    process_status,
    touch_memory,
)

SECTION = "Writing to disk, seconds"
SYNCED = "sync before each step, no fsync in the time"
TO_DISK = "sync before each step, fsync of each file in the time"


@dataclass
class Finished:
    seconds: float
    peak_memory: int
    bytes_read: int  # by read(2) and the like


def run_measured(command: list, environment: dict[str, str] | None = None) -> Finished:
    """A command run to its end, which must be a good one."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    )
    peak = 0
    ended = threading.Event()

    def watch() -> None:
        # rusage would tell this process's memory, which a child has until it starts the program.
        nonlocal peak
        while not ended.wait(0.005):
            peak = max(peak, process_status(process.pid, "VmHWM"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        seconds = time.perf_counter() - start
        counters = Path(f"/proc/{process.pid}/io").read_text().splitlines()
    finally:
        ended.set()
        watcher.join()
        if process.poll() is None:
            process.kill()
        code = process.wait()
    if code != 0:
        raise subprocess.CalledProcessError(code, command)
    return Finished(seconds, peak, int(dict(line.split(": ") for line in counters)["rchar"]))


def seconds_to_flush(directory: Path) -> float:
    start = time.perf_counter()
    for path in directory.iterdir():
        file = os.open(path, os.O_RDONLY)
        os.fsync(file)
        os.close(file)
    return time.perf_counter() - start


def run(bench: Bench) -> None:
    for _ in bench.each_round("writing to disk"):
        fp8_round(bench)
        hardlink_round(bench)


def fp8_round(bench: Bench) -> None:
    out, copy = bench.scratch / "out", bench.scratch / "copy"
    written = size(shards(bench.base)) // 2
    try:
        warm(bench.base)
        os.sync()
        touch_memory(written)
        command = [bench.binary, "materialize", *flags_of(bench.base, "--fp8"), "--out", out]
        ours = run_measured(command)
        ours_flush = seconds_to_flush(out)

        warm(out)
        os.sync()
        touch_memory(written)
        theirs = run_measured(["cp", "-r", out, copy])
        theirs_flush = seconds_to_flush(copy)
    finally:
        for directory in (out, copy):
            shutil.rmtree(directory, ignore_errors=True)

    def row(what: str, ours: float, theirs: float | None, unit: str, goal, note: str) -> None:
        peer = "cp -r of the result" if theirs is not None else ""
        bench.report.sample(SECTION, what, unit, ours, theirs, peer, goal, note=note)

    name = "materialize FP8 ue8m0"
    row(name, ours.seconds, theirs.seconds, "s", Goal("<=", 1.2), SYNCED)
    to_disk = ours.seconds + ours_flush, theirs.seconds + theirs_flush
    row(f"{name}, to the disk", *to_disk, "s", None, TO_DISK)
    row(f"{name}, peak memory", ours.peak_memory / 1e6, None, "MB", Goal("<=", 300), "VmHWM")


def hardlink_round(bench: Bench) -> None:
    """What a patch reads of a base whose files it links."""
    out = bench.scratch / "linked"
    base = shards(bench.base)
    flags = flags_of(bench.base, "--extra", bench.extra, "--hardlink")
    try:
        warm(bench.extra)
        drop_from_page_cache(base)
        os.sync()
        touch_memory(size(shards(bench.extra)))
        ours = run_measured([bench.binary, "materialize", *flags, "--out", out])
        read = bytes_in_page_cache(base)
    finally:
        shutil.rmtree(out, ignore_errors=True)
    name = "materialize patch, --hardlink"
    bench.report.sample(SECTION, name, "s", ours.seconds, note="the base is cold")
    bench.report.sample(
        SECTION, f"{name}, base read", "MB", read / 1e6, goal=Goal("<=", 0.01 * size(base) / 1e6),
        note="bytes of the base in the page cache afterwards, read-ahead included; goal 1%",
    )  # fmt: skip
    bench.report.sample(
        SECTION, f"{name}, all reads", "MB", ours.bytes_read / 1e6,
        note=f"rchar; what the patch adds is {size(shards(bench.extra)) / 1e6:.0f} MB",
    )  # fmt: skip
