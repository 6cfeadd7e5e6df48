"""safe_open reads from a mount what the sources hold, bit for bit."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from checkpoint import Checkpoint, same_bits
from real_checkpoints import OVERLAPPING, is_missing
from views import SMOLLM2_VIEWS, patched


def differing_tensors(one: Path, other: Path) -> list[str]:
    """Names of the tensors that are in only one, or not the same in both."""
    left, right = Checkpoint(one), Checkpoint(other)
    either = left.names() ^ right.names()
    return sorted(either) + [
        name for name in sorted(left.names() & right.names())
        if not same_bits(left[name], right[name])
    ]


@pytest.mark.parametrize("view", SMOLLM2_VIEWS)
def test_every_tensor_equals_the_original(view, mount, checkpoints):
    with mount(view) as path:
        assert differing_tensors(path, checkpoints / "smollm2") == []


def test_every_tensor_equals_the_original_when_four_threads_load_at_once(mount, checkpoints):
    original = checkpoints / "smollm2"
    with mount(patched) as path, ThreadPoolExecutor(4) as threads:
        for differing in threads.map(differing_tensors, [path] * 4, [original] * 4):
            assert differing == []


def test_the_patched_sources_really_lack_and_contradict(checkpoints):
    """What makes the comparison with the original able to fail."""
    original = Checkpoint(checkpoints / "smollm2")
    base = Checkpoint(checkpoints / "smollm2-base")
    extra = Checkpoint(checkpoints / "smollm2-extra")
    missing = {name for name in original.names() if is_missing(name)}
    assert len(missing) == 3 * 9 + 2
    assert base.names() == original.names() - missing
    assert extra.names() == missing | set(OVERLAPPING)
    for name in OVERLAPPING:
        assert same_bits(base[name], original[name])
        assert not same_bits(extra[name], original[name])
