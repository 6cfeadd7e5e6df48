"""Loads checkpoints in the ways that `tests/consumers/loaders.py` has, and answers as `torch_worker` does."""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "consumers"))
# What packages print must not be taken for an answer.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

import loaders  # noqa: E402
from torch_worker import serve  # noqa: E402

LOADERS = {load.__name__: load for load in loaders.LOADERS}


def names() -> list[str]:
    return list(LOADERS)


def load(loader: str, directory: str) -> float:
    """Seconds until every tensor is in memory of its own."""
    start = time.perf_counter()
    LOADERS[loader](Path(directory))
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.stdout = answers
    serve((names, load))
