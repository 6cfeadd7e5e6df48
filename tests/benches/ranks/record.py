#!/usr/bin/env python3
"""Records what loaders of a rank ask a mount for: the reads that the kernel sends to ckptfs, in their order.

    tests/benches/ranks/record.py CKPTFS NGINX DIRECTORY > tests/benches/ranks/recorded.txt

needs strace, and Python with safetensors, torch and vLLM (scripts/python-env). The checkpoint is a layer of the shapes of
Llama 3.1 405B in two sparse files in DIRECTORY, which nginx serves. A rank reads a quarter of each tensor, as main.rs reads it,
through a mount whose page cache is empty, and strace shows what the process of the mount reads from /dev/fuse.

Output: lines `loader WAYS LOADER RANK NEEDED ASKED SENT` of bytes: what the rank needs, what the kernel asked the mount for,
and what the mount asked the server for. After that of `get_slice`, the reads in their order, as runs
`SHARD OFFSET LENGTH COUNT STRIDE`: COUNT reads of LENGTH bytes of a shard, the first at OFFSET, each STRIDE after the last.
Lines `node WAYS ORDER NEEDED SENT` are of 8 ranks that share a mount with its page cache, without strace.
"""

import json
import re
import struct
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "scripts"))

from benchmarks import mounts, remote  # noqa: E402

HIDDEN, INNER, KEYS = 16_384, 53_248, 1_024
LAYER = "model.layers.77."
SHARDS = [
    {"mlp.gate_proj": (INNER, HIDDEN), "self_attn.k_proj": (KEYS, HIDDEN), "self_attn.o_proj": (HIDDEN, HIDDEN),
     "self_attn.q_proj": (HIDDEN, HIDDEN), "self_attn.v_proj": (KEYS, HIDDEN)},
    {"mlp.down_proj": (HIDDEN, INNER), "mlp.up_proj": (INNER, HIDDEN)},
]
COLUMNS = ("o_proj", "down_proj")
PARTS = 4
RANKS = 8
LOADERS = ("get_slice", "vllm")
READ = 15
NAMES = [f"model-{number:05}-of-00002.safetensors" for number in (1, 2)]


def make(directory: Path) -> None:
    """The checkpoint, whose weights are holes."""
    directory.mkdir()
    weight_map = {}
    for name, tensors in zip(NAMES, SHARDS):
        header, at = {}, 0
        for module, (rows, columns) in tensors.items():
            end = at + 2 * rows * columns
            tensor = f"{LAYER}{module}.weight"
            header[tensor] = {"dtype": "BF16", "shape": [rows, columns], "data_offsets": [at, end]}
            weight_map[tensor] = name
            at = end
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with open(directory / name, "wb") as shard:
            shard.write(struct.pack("<Q", len(text)) + text)
            shard.truncate(8 + len(text) + at)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (directory / "config.json").write_text('{"model_type": "llama", "num_hidden_layers": 78, "torch_dtype": "bfloat16"}')


def load(loader: str, directory: Path, rank: int, ways: int) -> int:
    """Reads what `rank` takes of the first part of each tensor; returns how many bytes that are."""
    import torch

    needed = 0
    # Where the weights go: a loader fills memory that it has.
    target = torch.empty(2 * max(INNER * HIDDEN // ways // PARTS, HIDDEN * INNER // ways // PARTS), dtype=torch.bfloat16)
    if loader == "vllm":
        from vllm.model_executor.model_loader.weight_utils import safetensors_weights_iterator
        from vllm.model_executor.parameter import ModelWeightParameter

        files = [str(directory / name) for name in NAMES]
        for name, weight in safetensors_weights_iterator(files, False):
            weight = weight[:weight.shape[0] // PARTS]
            is_columns = any(part in name for part in COLUMNS)
            shape = list(weight.shape)
            shape[is_columns] //= ways
            data = target[:shape[0] * shape[1]].view(shape)
            # As a layer of `ways` ranks makes it, without the group of processes that it belongs to.
            parameter = torch.Tensor._make_subclass(ModelWeightParameter, data, False)
            parameter._input_dim, parameter._output_dim = 1, 0
            parameter.tp_rank, parameter.tp_size = rank, ways
            if is_columns:
                parameter.load_row_parallel_weight(weight)
            else:
                parameter.load_column_parallel_weight(weight)
            needed += data.nbytes
        return needed
    from safetensors import safe_open

    for name in NAMES:
        with safe_open(directory / name, "pt") as shard:
            for tensor in shard.keys():
                part = shard.get_slice(tensor)
                rows, columns = part.get_shape()
                rows //= PARTS
                if any(module in tensor for module in COLUMNS):
                    width = columns // ways
                    data = part[:rows, rank * width:(rank + 1) * width]
                else:
                    height = rows // ways
                    data = part[rank * height:(rank + 1) * height]
                target[:data.numel()].view(data.shape).copy_(data)
                needed += data.nbytes
    return needed


@contextmanager
def traced(server: mounts.Server, trace: Path):
    """Has strace note what the process of a mount reads."""
    command = ["strace", "-f", "-q", "-xx", "-s", "80", "-e", "trace=read,readv", "-o", trace, "-p", str(server.pid)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        while not (trace.exists() and trace.stat().st_size > 0):
            assert process.poll() is None, "strace does not run"
            (server.path / f"none-{time.monotonic_ns()}").exists()
        yield
    finally:
        process.terminate()
        process.wait()


def requests(trace: Path, files: dict[int, int]) -> list[tuple[int, int, int]]:
    """Shard, offset and length of the reads of `files`, whose keys are inodes."""
    found = []
    for line in trace.read_text().splitlines():
        match = re.search(r'"((?:\\x[0-9a-f]{2})+)"', line)
        data = bytes.fromhex(match[1].replace("\\x", "")) if match else b""
        if len(data) < 60:
            continue
        _, opcode, _, node = struct.unpack_from("<IIQQ", data)
        if opcode == READ and node in files:
            offset, length = struct.unpack_from("<QI", data, 48)
            found.append((files[node], offset, length))
    return found


def runs(reads: list[tuple[int, int, int]]) -> list[str]:
    lines, at = [], 0
    while at < len(reads):
        shard, offset, length = reads[at]
        count, stride = 1, 0
        while at + count < len(reads):
            next_shard, next_offset, next_length = reads[at + count]
            step = next_offset - reads[at + count - 1][1]
            if (next_shard, next_length) != (shard, length) or step < 0 or count > 1 and step != stride:
                break
            stride, count = step, count + 1
        lines.append(f"{shard} {offset} {length} {count} {stride}")
        at += count
    return lines


def started(loader: str, directory: Path, rank: int, ways: int) -> subprocess.Popen:
    command = [sys.executable, __file__, "load", loader, directory, str(rank), str(ways)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen) -> int:
    """How many bytes a rank needed."""
    output, _ = process.communicate()
    assert process.returncode == 0, process.args
    return int(output.split()[-1])


def record(binary: str, web: remote.Nginx, served: Path, scratch: Path) -> None:
    """What a rank by itself reads."""
    for ways, rank in ((8, 3), (64, 27)):
        for loader in LOADERS:
            trace = scratch / f"{loader}-{ways}"
            with mounts.view(binary, view(web, served), scratch / "mount") as server:
                files = {(server.path / name).stat().st_ino: shard for shard, name in enumerate(NAMES)}
                before = web.sent()
                with traced(server, trace):
                    needed = finished(started(loader, server.path, rank, ways))
                sent = web.sent() - before
            reads = requests(trace, files)
            asked = sum(length for _, _, length in reads)
            print(f"loader {ways} {loader} {rank} {needed} {asked} {sent}")
            if loader == LOADERS[0]:
                print(*runs(reads), sep="\n", flush=True)


def share(binary: str, web: remote.Nginx, served: Path, scratch: Path) -> None:
    """What the ranks of a node read together."""
    for ways in (8, 64):
        for order in ("in-step", "one-after-the-other"):
            with mounts.view(binary, view(web, served), scratch / "mount") as server:
                before = web.sent()
                if order == "in-step":
                    needed = sum(map(finished, [started(LOADERS[0], server.path, rank, ways) for rank in range(RANKS)]))
                else:
                    needed = sum(finished(started(LOADERS[0], server.path, rank, ways)) for rank in range(RANKS))
                print(f"node {ways} {order} {needed} {web.sent() - before}", flush=True)


def view(web: remote.Nginx, served: Path) -> list[str]:
    return ["--base", web.url(served / "m"), "--block-cache-size", "0"]


def main() -> None:
    if sys.argv[1] == "load":
        print(load(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])))
        return
    binary, program, scratch = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    served = scratch / "served"
    served.mkdir()
    make(served / "m")
    with remote.nginx(program, served, scratch) as web:
        record(binary, web, served, scratch)
        share(binary, web, served, scratch)


if __name__ == "__main__":
    main()
