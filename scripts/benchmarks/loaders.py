"""The loaders of engines: how long each takes from a mount, and from the same view on disk."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import copies
from .bench import Bench, flags_of, warm
from .persist import fresh
from .readers import shards, size
from .system import touch_memory
from .torch_client import Torch

COPIES = "Programs that read all files, first read of a fresh mount, seconds"
SECTION = "Loaders, all tensors into their own memory, first read of a fresh mount, seconds"


@dataclass
class Kind:
    name: str
    view: str  # the copy on disk that it is compared with
    flags: list
    persists: bool = False


def kinds(bench: Bench) -> list[Kind]:
    base, fp8 = flags_of(bench.base), flags_of(bench.base, "--fp8")
    spliced = flags_of(bench.base, "--repack", "--shard-size-gb", "0.2")
    return [
        Kind("passed through", "whole", base),
        Kind("spliced", "spliced", spliced),
        Kind("FP8", "fp8-ue8m0", fp8),
        Kind("FP8, --persist", "fp8-ue8m0", fp8, persists=True),
    ]


def run_copies(bench: Bench) -> None:
    def load(loader: str, directory: Path) -> float:
        start = time.perf_counter()
        copies.run(loader, directory, bench.scratch)
        return time.perf_counter() - start

    for _ in bench.each_round("copies", most=3):
        for kind in kinds(bench):
            for program in copies.PROGRAMS:
                measure(bench, COPIES, load, kind, program)


def run(bench: Bench) -> None:
    if why := bench.why_no_torch():
        bench.report.not_run(SECTION, "each loader, each kind of mount", why, "materialized")
        return
    worker = Torch(bench.python, "loader_worker.py")
    bench.at_end.callback(worker.close)
    for _ in bench.each_round("loaders", most=3):
        for kind in kinds(bench):
            for loader in worker("names"):
                load = lambda loader, directory: worker("load", loader=loader, directory=directory)
                measure(bench, SECTION, load, kind, loader)


def measure(bench: Bench, section: str, load: Callable[[str, Path], float], kind: Kind, loader: str) -> None:
    copy = bench.materialized(kind.view, kind.flags)
    persisted = bench.scratch / "persisted"
    warm(copy)
    theirs = load(loader, copy)
    with fresh(persisted, bench.base):
        more = ["--persist", persisted] if kind.persists else []
        with bench.view([*kind.flags, *more]) as mounted:
            touch_memory(size(shards(mounted.path)))
            ours = load(loader, mounted.path)
    name = f"{loader.replace('_', ' ')}, {kind.name}"
    bench.report.sample(section, name, "s", ours, theirs, "materialized")
