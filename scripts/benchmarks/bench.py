"""What all groups of rows share: the inputs, the scratch space and the report."""

import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from . import inputs, mounts, readers
from .report import Report
from .torch_client import Torch


@dataclass
class Bench:
    binary: Path
    fuse_floor: Path  # the program that mounts a floor
    work: Path  # kept between runs: inputs
    scratch: Path  # gone after the run
    layers: int
    rounds: int
    quick: bool
    python: Path | str  # of an environment with torch, or why there is none
    at_end: ExitStack
    report: Report = field(default_factory=Report)

    @property
    def mountpoint(self) -> Path:
        return self.scratch / "mount"

    @cached_property
    def base(self) -> Path:
        make = lambda directory: inputs.make_base(directory, self.layers)
        return inputs.cached(self.work / f"base-{self.layers}", make)

    @cached_property
    def extra(self) -> Path:
        return inputs.cached(self.work / "extra", inputs.make_extra)

    @cached_property
    def unionfs_missing(self) -> str | None:
        return mounts.find_unionfs()

    def view(self, flags: list):
        return mounts.view(self.binary, flags, self.mountpoint)

    def floor(self, directory: Path, *flags):
        return mounts.floor(self.fuse_floor, directory, self.mountpoint, flags)

    def materialize(self, flags: list, out: Path) -> None:
        command = [self.binary, "materialize", *flags, "--out", out]
        subprocess.run(command, check=True, capture_output=True)

    def materialized(self, name: str, flags: list) -> Path:
        """The view as files on disk, made once a run."""
        out = self.scratch / name
        if not out.exists():
            self.materialize(flags, out)
        return out

    def each_round(self, section: str, most: int = 100) -> Iterator[int]:
        rounds = min(self.rounds, most)
        for number in range(rounds):
            progress(f"{section}: round {number + 1} of {rounds}")
            yield number

    @cached_property
    def torch(self) -> Torch:
        """A process with torch; only for a `python` that is a path."""
        torch = Torch(self.python)
        self.at_end.callback(torch.close)
        return torch

    def peers(self) -> str:
        """Those that were run, with their versions."""
        versions = []
        if "unionfs_missing" in vars(self) and not self.unionfs_missing:
            versions.append(mounts.unionfs_version())
        if "torch" in vars(self):
            versions.append(f"torch {self.torch('version')}")
        return ", ".join(versions) or "none"

    def why_no_torch(self) -> str | None:
        return self.python if isinstance(self.python, str) else None


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextmanager
def scratch_directory(work: Path) -> Iterator[Path]:
    """A directory of this run alone; nothing is mounted in it any more when it is removed."""
    work.mkdir(parents=True, exist_ok=True)
    for left in work.glob("run-*"):  # by a run that was killed
        remove_scratch(left)
    directory = Path(tempfile.mkdtemp(prefix="run-", dir=work))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        yield directory
    finally:
        remove_scratch(directory)


def remove_scratch(directory: Path) -> None:
    mounts.detach_below(directory)
    shutil.rmtree(directory, ignore_errors=True)


def flags_of(base: Path, *more) -> list:
    return ["--base", base, *more]


def warm(*directories: Path) -> None:
    """Sources that nobody has read for a while may have left the page cache."""
    for directory in directories:
        readers.warm(readers.shards(directory))
