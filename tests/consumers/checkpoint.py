"""Reads a checkpoint directory as loaders do, and compares tensors bit for bit."""

import json
import struct
from pathlib import Path

import torch
from safetensors import safe_open

INDEX = "model.safetensors.index.json"


def read_index(directory: Path) -> dict:
    return json.loads((directory / INDEX).read_text())


def read_header(shard: Path) -> tuple[dict, int]:
    """A shard's header, in its own order, and the offset at which its payload begins."""
    with shard.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return json.loads(file.read(length)), 8 + length


class Checkpoint:
    """Every tensor in the headers of the files that the index names."""

    def __init__(self, directory: Path):
        self.shards = {
            shard: safe_open(directory / shard, "pt")
            for shard in sorted(set(read_index(directory)["weight_map"].values()))
        }
        self.shard_of = {}
        for shard, tensors in self.shards.items():
            for name in tensors.keys():
                assert name not in self.shard_of, f"{name} is in {self.shard_of[name]} and {shard}"
                self.shard_of[name] = shard

    def names(self) -> set[str]:
        return set(self.shard_of)

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.shards[self.shard_of[name]].get_tensor(name)


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether dtype, shape and every bit agree: -0.0 is not 0.0, a NaN is itself."""
    return (
        one.dtype == other.dtype
        and one.shape == other.shape
        and torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8))
    )
