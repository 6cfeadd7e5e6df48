"""safe_open reads parts of tensors, and from several processes at once."""

import hashlib
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import ckptfs
from checkpoint import Checkpoint, same_bits
from views import gemma_fp8, patched, patched_fp8

PROCESSES = 2


def part(length: int, of: int, parts: int) -> slice:
    """One of several parts of nearly the same length, as tensor-parallel readers cut them."""
    return slice(length * of // parts, length * (of + 1) // parts)


def wrong_slices(directory: Path, whole: Checkpoint, parts: int) -> list[tuple]:
    """Which rows or columns differ from those of the whole tensor on disk."""
    wrong = []
    for shard in whole.shards:
        # Each part through an opening of its own: nothing that one read serves another.
        for of in range(parts):
            with safe_open(directory / shard, "pt") as tensors:
                for name in tensors.keys():
                    rows = part(whole[name].shape[0], of, parts)
                    if not same_bits(tensors.get_slice(name)[rows], whole[name][rows]):
                        wrong.append((name, "rows", rows))
                    if whole[name].dim() == 2:
                        columns = part(whole[name].shape[1], of, parts)
                        read = tensors.get_slice(name)[:, columns]
                        if not same_bits(copy(read), copy(whole[name][:, columns])):
                            wrong.append((name, "columns", columns))
    return wrong


def copy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.clone(memory_format=torch.contiguous_format)


@pytest.mark.parametrize("view", [patched, gemma_fp8])
def test_rows_and_columns_are_those_of_the_whole_tensor(view, mount, checkpoints, tmp_path):
    ckptfs.run("materialize", *view(checkpoints), "--out", tmp_path / "written")
    with mount(view) as path:
        # Three parts begin and end inside of blocks.
        assert wrong_slices(path, Checkpoint(tmp_path / "written"), 3) == []


def digests(directory: Path) -> dict[str, str]:
    torch.set_num_threads(1)
    checkpoint = Checkpoint(directory)
    return {
        name: hashlib.sha256(checkpoint[name].flatten().view(torch.uint8).numpy()).hexdigest()
        for name in checkpoint.names()
    }


def test_processes_that_read_at_once_all_read_what_is_on_disk(mount, checkpoints, tmp_path):
    ckptfs.run("materialize", *patched_fp8(checkpoints), "--out", tmp_path / "written")
    expected = digests(tmp_path / "written")
    spawn = multiprocessing.get_context("spawn")
    with mount(patched_fp8) as path, ProcessPoolExecutor(PROCESSES, mp_context=spawn) as processes:
        for read in processes.map(digests, [path] * PROCESSES):
            assert read == expected
