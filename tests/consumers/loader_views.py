"""A small sharded model, views of it that are served in each way, and mounts that are watched."""

import json
import os
import signal
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

import ckptfs

# Far above what any reader here takes: only one that hangs is ended so.
SECONDS_UNTIL_HUNG = 240
SHAPE = {
    "vocab_size": 8192,
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 5,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
}


def save_model(directory: Path) -> Path:
    """48 MB of random bf16 weights in ten shards."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Qwen3ForCausalLM(Qwen3Config(**SHAPE)).to(torch.bfloat16)
    model.save_pretrained(directory, max_shard_size="5MB")
    return directory


@dataclass(frozen=True)
class Kind:
    """How a mount serves the model."""

    name: str
    flags: tuple
    persists: bool = False


# Every file of a source, by the kernel itself where it can.
PASSED_THROUGH = Kind("passed through", ())
# Bytes of the sources behind headers of our own, two shards.
SPLICED = Kind("spliced", ("--repack", "--shard-size-gb", "0.03"))
# Codes and scales computed when they are read, a shard for each of the source.
QUANTISED = Kind("quantised", ("--fp8",))
# The same in two shards, written to a directory while they are read.
PERSISTING = Kind("persisting", ("--fp8", "--repack", "--shard-size-gb", "0.02"), persists=True)
KINDS = [PASSED_THROUGH, SPLICED, QUANTISED, PERSISTING]


class Watched:
    """A mount that is read."""

    def __init__(self, path: Path):
        self.path = path
        self.server = self.stats()["pid"]

    def stats(self) -> dict:
        return json.loads((self.path / ".ckptfs" / "stats.json").read_text())

    def await_persisted(self) -> None:
        """Waits until the view is complete on disk, from where it is then read."""
        while (state := self.stats()["persist"]["state"]) == "writing":
            time.sleep(0.01)
        assert state == "complete"

    def peak_memory(self) -> int:
        """Bytes that the serving process had resident at most."""
        for line in Path(f"/proc/{self.server}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("the serving process has no memory")

    def kill_server(self) -> None:
        """Ends readers that hang, with an error or SIGBUS."""
        os.kill(self.server, signal.SIGKILL)


@contextmanager
def watched(flags: list, scratch: Path):
    """A mount of a view that answers all that it is asked, and has no error to tell of."""
    with ckptfs.mounted(flags, scratch) as path:
        mount = Watched(path)
        hung = threading.Timer(SECONDS_UNTIL_HUNG, mount.kill_server)
        hung.start()
        try:
            yield mount
        finally:
            hung.cancel()
        assert mount.stats()["requests"]["errors"] == 0
    log = (scratch / "mount.log").read_text()
    assert " ERROR " not in log, log
