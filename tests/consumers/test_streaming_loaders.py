"""Loaders that stream whole shards, in their own threads and buffers, give safe_open's tensors."""

from pathlib import Path

import pytest
import torch
from fastsafetensors import fastsafe_open
from runai_model_streamer import SafetensorsStreamer

from checkpoint import Checkpoint, same_bits
from views import gemma_fp8, patched


def by_fastsafetensors(shards: list[str]) -> dict[str, torch.Tensor]:
    with fastsafe_open(filenames=shards, nogds=True, device="cpu") as tensors:
        return {name: tensors.get_tensor(name).clone() for name in tensors.keys()}


def by_runai_model_streamer(shards: list[str]) -> dict[str, torch.Tensor]:
    with SafetensorsStreamer() as streamer:
        streamer.stream_files(shards)
        return {name: tensor.clone() for name, tensor in streamer.get_tensors()}


def wrongly_loaded(directory: Path, loader) -> list[str]:
    """Names of the tensors that a loader lacks, invents or gives with other bits."""
    expected = Checkpoint(directory)
    loaded = loader([str(directory / shard) for shard in expected.shards])
    return sorted(loaded.keys() ^ expected.names()) + [
        name for name in loaded.keys() & expected.names()
        if not same_bits(loaded[name], expected[name])
    ]


@pytest.mark.parametrize("loader", [by_fastsafetensors, by_runai_model_streamer])
@pytest.mark.parametrize("view", [patched, gemma_fp8])
def test_every_tensor_is_the_one_that_safe_open_gives(view, loader, mount):
    with mount(view) as path:
        assert wrongly_loaded(path, loader) == []
