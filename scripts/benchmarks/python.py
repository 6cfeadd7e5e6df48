"""What the Python package gives without a mount."""

import os
import shutil
from pathlib import Path

from .bench import Bench, flags_of, warm
from .report import Goal
from .torch_client import Torch

PYTHON = "All tensors in Python, each page of them touched, seconds"
MEMORY = "Peak memory of these beyond the tensors, MB"


def run(bench: Bench) -> None:
    names = {"FP8": (["--fp8"], {"fp8": True}), "unchanged bf16": ([], {})}
    if why := bench.why_no_torch():
        for name in names:
            bench.report.not_run(PYTHON, name, why, "load_file of a copy", Goal("<=", 1.2))
        return
    environment = package(bench)
    for _ in bench.each_round("python"):
        for name, (flags, settings) in names.items():
            row(bench, environment, name, flags, settings)


def package(bench: Bench) -> dict[str, str]:
    """The environment in which the package of this build is imported."""
    root = bench.scratch / "package"
    if not root.exists():
        shutil.copytree(Path(__file__).resolve().parents[2] / "python" / "ckptfs", root / "ckptfs")
        shutil.copy(bench.binary.with_name("libckptfs_native.so"), root / "ckptfs" / "_native.abi3.so")
    return {"PYTHONPATH": str(root), "CKPTFS_BIN": str(bench.binary)}


def row(bench: Bench, environment: dict[str, str], name: str, flags: list, settings: dict) -> None:
    """Each in a process of its own: memory that is used again is faster."""
    copy = bench.materialized(f"python-{name.replace(' ', '-')}", flags_of(bench.base, *flags))

    def measured(function: str, **arguments) -> dict:
        warm(bench.base, copy)
        torch = Torch(bench.python, "python_worker.py", os.environ | environment)
        try:
            return torch(function, **arguments)
        finally:
            torch.close()

    ours = measured("load_view", base=bench.base, settings=settings)
    theirs = measured("load_copy", directory=copy)
    mounted = measured("load_mount", base=bench.base, settings=settings)
    goal = Goal("<=", 1.2 if settings else 1.1)
    bench.report.sample(PYTHON, name, "s", ours["seconds"], theirs["seconds"], "load_file of a copy", goal,
                        note="with planning; sources in the page cache")  # fmt: skip
    bench.report.sample(PYTHON, f"{name}, a mount as peer", "s", mounted["seconds"], ours["seconds"], "in process",
                        Goal(">=", 3.0) if settings else None,
                        note="load_file through a mount, to ours in process")  # fmt: skip
    untouched = measured("load_view", base=bench.base, settings=settings, touch=False)
    their_untouched = measured("load_copy", directory=copy, touch=False)
    bench.report.sample(PYTHON, f"{name}, nothing touched", "s", untouched["seconds"], their_untouched["seconds"],
                        "load_file of a copy", note="load_file maps files, and reads nothing")  # fmt: skip
    bench.report.sample(MEMORY, name, "MB", ours["beyond"] / 1e6, 200.0, "200 MB", Goal("<=", 1.0))
