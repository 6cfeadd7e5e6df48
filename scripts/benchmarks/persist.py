"""Views that are written to a directory while they are mounted."""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .bench import Bench, flags_of, warm
from .readers import shards, size
from .report import Goal
from .system import touch_memory

SECTION = "Written while mounted (--persist), FP8, seconds"
ALL = "all tensors by safe_open"


def run(bench: Bench) -> None:
    if why := bench.why_no_torch():
        bench.report.not_run(SECTION, ALL, why, "materialized", Goal("<=", 1.05))
        return
    flags = flags_of(bench.base, "--fp8")
    for number in bench.each_round("persist"):
        with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
            for place, parent in {"tmpfs": Path(memory), "disk": bench.scratch}.items():
                # Each comes first in every other round: what comes first may find the disk busy or free.
                ours_first = number % 2 == 0
                loads(bench, flags, place, parent / "persisted", ours_first)
                completing(bench, flags, place, parent / "persisted", ours_first)


@contextmanager
def fresh(directory: Path, *tensors: Path) -> Iterator[None]:
    """Nothing of an earlier run is there, nor is after the block; nor is the disk busy."""
    clear(directory)
    warm(*tensors)
    os.sync()
    try:
        yield
    finally:
        clear(directory)


def clear(directory: Path) -> None:
    for path in directory.parent.glob(f".{directory.name}.*"):
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
    shutil.rmtree(directory, ignore_errors=True)


def load(bench: Bench, directory: Path) -> float:
    touch_memory(size(shards(directory)))
    return bench.torch("read_all", directory=directory)


def await_end(bench: Bench, mountpoint: Path) -> None:
    while (state := status(bench, mountpoint)["state"]) == "writing":
        time.sleep(0.01)
    if state != "complete":
        raise RuntimeError(f"the job is {state}")


def status(bench: Bench, mountpoint: Path) -> dict:
    command = [bench.binary, "status", "--json", mountpoint]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)[0]["stats"]["persist"]


def loads(bench: Bench, flags: list, place: str, directory: Path, ours_first: bool) -> None:
    def row(what: str, ours: float, theirs: float, peer: str, goal: float | None) -> None:
        goal = goal and Goal("<=", goal)
        bench.report.sample(SECTION, f"{what}, {place}", "s", ours, theirs, peer, goal)

    warm(bench.base)
    with bench.view(flags) as mounted:
        plain = load(bench, mounted.path)
    for how, goal in {"wait": 0.5 if place == "tmpfs" else None, "pass": 1.15}.items():
        with fresh(directory, bench.base):
            more = ["--persist", directory, "--persist-open", how]
            with bench.view([*flags, *more]) as mounted:
                first = load(bench, mounted.path)
                await_end(bench, mounted.path)
                two = [mounted.path, directory][:: 1 if ours_first else -1]
                seconds = {path: load(bench, path) for path in two}
        row(f"first load, openings {how}", first, plain, "first load without", goal)
        if how == "pass":
            second, native = seconds[mounted.path], seconds[directory]
            row("second load", second, native, "the directory itself", 1.05)


def completing(bench: Bench, flags: list, place: str, directory: Path, ours_first: bool) -> None:
    def by_mount() -> float:
        start = time.perf_counter()
        with bench.view([*flags, "--persist", directory]):
            while not directory.exists():
                time.sleep(0.001)
            return time.perf_counter() - start

    def by_materialize() -> float:
        start = time.perf_counter()
        bench.materialize(flags, directory)
        return time.perf_counter() - start

    seconds = {}
    for way in [by_mount, by_materialize][:: 1 if ours_first else -1]:
        with fresh(directory, bench.base):
            touch_memory(size(shards(bench.base)) // 2)
            seconds[way] = way()
    bench.report.sample(
        SECTION, f"mount to finished directory, {place}", "s", seconds[by_mount],
        seconds[by_materialize], "materialize", Goal("<=", 1.1),
        note="both force the files to the disk",
    )  # fmt: skip
