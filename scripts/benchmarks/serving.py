"""The process that serves: how soon it is there, its memory, and what it is asked."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from . import inputs, mounts
from .bench import Bench, flags_of, warm
from .readers import CHUNK, shards, size
from .report import Goal
from .system import process_status

PLANNING = "Many tensors"
STREAMING = "Memory of the process that serves, MB"
METADATA = "Without a request, once asked before (the process that serves is stopped)"
READERS = 8
CACHE_MB = 64
FILES = 1000
SECONDS_TO_ANSWER = 1


def run_planning(bench: Bench) -> None:
    """From the start of `mount` to the end of the first `ls`."""
    count = 100 if bench.quick else 1000
    base = inputs.cached(
        bench.work / f"many-{count}", lambda directory: inputs.make_many(directory, count)
    )
    views = {"plain": [], "--repack": ["--repack"], "--fp8": ["--fp8"]}
    for _ in bench.each_round("many tensors"):
        for name, flags in views.items():
            start = time.perf_counter()
            with bench.view(flags_of(base, *flags)) as mounted:
                subprocess.run(["ls", mounted.path], check=True, stdout=subprocess.DEVNULL)
                seconds = time.perf_counter() - start
                memory = process_status(mounted.pid, "VmRSS") / 1e6
                peak = process_status(mounted.pid, "VmHWM") / 1e6
            what = f"{count * 100:,} in {count:,} shards, {name}"
            full = None if bench.quick else Goal("<=", 1)
            bench.report.sample(PLANNING, f"{what}: first ls", "s", seconds, goal=full)
            full = None if bench.quick else Goal("<=", 250)
            bench.report.sample(PLANNING, f"{what}: memory", "MB", memory, goal=full, note="VmRSS")
            bench.report.sample(PLANNING, f"{what}: peak", "MB", peak, note="VmHWM")


def run_streaming(bench: Bench) -> None:
    """Eight readers at once, each of another eighth of a view."""
    base, cache = flags_of(bench.base), ["--cache-size", f"{CACHE_MB}MB"]
    views = {
        "FP8": [*base, "--fp8"],
        "FP8, direct": [*base, "--fp8", "--direct-io"],
        "spliced, direct": [*base, "--repack", "--direct-io"],
    }
    for _ in bench.each_round("memory"):
        for name, flags in views.items():
            warm(bench.base)
            with bench.view([*flags, *cache]) as mounted:
                read_by_many(shards(mounted.path))
                peak = process_status(mounted.pid, "VmHWM") / 1e6
            bench.report.sample(
                STREAMING, f"{READERS} readers of {name}, cache of {CACHE_MB} MB", "MB", peak,
                goal=Goal("<=", CACHE_MB + 100), note="VmHWM",
            )  # fmt: skip


def read_by_many(files: list[Path]) -> None:
    share = -(-size(files) // READERS)
    ranges = [(number * share, (number + 1) * share) for number in range(READERS)]
    threads = [threading.Thread(target=read_range, args=(files, *part)) for part in ranges]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def read_range(files: list[Path], begin: int, end: int) -> None:
    """Reads that range of the files' bytes, taken one after the other."""
    buffer = bytearray(CHUNK)
    for path in files:
        length = path.stat().st_size
        at, stop = max(begin, 0), min(end, length)
        if at < stop:
            file = os.open(path, os.O_RDONLY)
            while at < stop and (count := os.preadv(file, [buffer], at)):
                at += count
            os.close(file)
        begin, end = begin - length, end - length


# Names come from the source, so that nothing but stat or open is asked of the mount.
STAT_ALL = "import os, sys; [os.stat(f'{sys.argv[1]}/{n}') for n in os.listdir(sys.argv[2])]"
OPEN_ALL = "import os, sys; [os.open(f'{sys.argv[1]}/{n}', 0) for n in os.listdir(sys.argv[2])]"


def run_metadata(bench: Bench) -> None:
    base = inputs.cached(
        bench.work / f"small-{FILES}", lambda directory: inputs.make_small_files(directory, FILES)
    )
    python = [sys.executable, "-I", "-c"]
    for name, flags in {"FP8": ["--fp8"], "whole files": []}.items():
        with bench.view(flags_of(base, *flags)) as mounted:
            commands = {
                "stat of each": [*python, STAT_ALL, mounted.path, base],
                "open and close of each": [*python, OPEN_ALL, mounted.path, base],
            }
            for what, command in commands.items():
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                finished = runs_while_stopped(command, mounted)
                bench.report.sample(
                    METADATA, f"{FILES:,} files, {name}: {what}", "y/n", float(finished),
                    goal=Goal(">=", 1) if flags or "open" not in what else None,
                    note="ends without an answer from us",
                )  # fmt: skip
            # A program is told that there are no labels and lists by being answered once.
            ls = ["ls", "-lR", mounted.path]
            for _ in range(2):
                before = reads_of(mounted)
                subprocess.run(ls, check=True, stdout=subprocess.DEVNULL)
                requests = reads_of(mounted) - before
            bench.report.sample(
                METADATA, f"{FILES:,} files, {name}: requests of ls -lR", "", float(requests),
                goal=Goal("<=", 4), note="for labels and access control lists, of the first file",
            )  # fmt: skip


def reads_of(mounted: mounts.Server) -> int:
    """How often the process that serves the mount has read: once for each request."""
    with open(f"/proc/{mounted.pid}/io") as io:
        return next(int(line.split()[1]) for line in io if line.startswith("syscr:"))


def runs_while_stopped(command: list, mounted: mounts.Server) -> bool:
    """Whether a command ends although the process that serves the mount does not."""
    os.kill(mounted.pid, signal.SIGSTOP)
    try:
        subprocess.run(
            command, check=True, stdout=subprocess.DEVNULL, timeout=SECONDS_TO_ANSWER
        )
        return True
    except subprocess.TimeoutExpired:
        return False
    finally:
        os.kill(mounted.pid, signal.SIGCONT)
