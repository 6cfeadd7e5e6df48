"""Runs in an environment with torch: reads calls as lines of JSON, and answers each with a line.

The peer is block FP8 as a careful script would have it: vectorized, in bands that fit the CPU's
caches, into memory that is there already.
"""

import functools
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

BLOCK = 128
E4M3_MAX = 448.0
SMALLEST_SCALE = 2.0**-126
BAND_BYTES = 1 << 20
ALL_THREADS = torch.get_num_threads()


def scales_of(amax: torch.Tensor, scale_fmt: str) -> torch.Tensor:
    if scale_fmt == "float32":
        scales = (amax.double() / E4M3_MAX).float()
    else:
        # amax = mantissa * 2^exponent, mantissa in [0.5, 1); 448 = 0.875 * 2^9.
        mantissa, exponent = torch.frexp(amax)
        scales = torch.ldexp(torch.ones_like(amax), exponent - 9 + (mantissa > 0.875))
    return torch.where(amax == 0, 1.0, scales.clamp(min=SMALLEST_SCALE))


def quantize(
    weight: torch.Tensor, codes: torch.Tensor, scales: torch.Tensor, scale_fmt: str
) -> None:
    """A matrix of whole blocks."""
    rows, columns = weight.shape
    wide = columns // BLOCK
    band = max(1, BAND_BYTES // (2 * BLOCK * columns)) * BLOCK
    memory = torch.empty(band * columns)
    for at in range(0, rows, band):
        high = min(band, rows - at) // BLOCK
        shape = (high, BLOCK, wide, BLOCK)
        blocks = memory[: high * BLOCK * columns].view(shape)
        blocks.copy_(weight[at : at + band].view(shape))
        amax = torch.maximum(blocks.amax((1, 3)), -blocks.amin((1, 3)))
        part = scales_of(amax, scale_fmt)
        scales[at // BLOCK : at // BLOCK + high] = part
        blocks.div_(part[:, None, :, None]).clamp_(-E4M3_MAX, E4M3_MAX)
        codes[at : at + band].view(shape).copy_(blocks)


def version() -> str:
    return torch.__version__


def outputs_for(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    rows, columns = weight.shape
    codes = torch.zeros(rows, columns, dtype=torch.uint8).view(torch.float8_e4m3fn)
    return codes, torch.zeros(rows // BLOCK, columns // BLOCK)


def weights_of(file: str) -> Iterator[tuple[str, torch.Tensor]]:
    with safe_open(file, framework="pt") as opened:
        for name in opened.keys():
            yield name, opened.get_tensor(name)


@functools.cache
def in_memory(file: str) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """The weights of a file and memory for their codes and scales."""
    return [(weight.clone(), *outputs_for(weight)) for _, weight in weights_of(file)]


def quantize_in_memory(file: str, scale_fmt: str, rounds: int = 2, tensors: int | None = None):
    """Seconds for the first so many tensors, or all, at best."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        for weight, codes, scales in in_memory(file)[:tensors]:
            quantize(weight, codes, scales, scale_fmt)
        times.append(time.perf_counter() - start)
    return min(times)


def choose_threads(file: str) -> int:
    """One thread or all, whichever is faster with a tensor, from now on."""
    quantize_in_memory(file, "ue8m0", rounds=1, tensors=1)
    times = {}
    for threads in (ALL_THREADS, 1):
        torch.set_num_threads(threads)
        times[threads] = quantize_in_memory(file, "ue8m0", rounds=3, tensors=1)
    fastest = min(times, key=times.get)
    torch.set_num_threads(fastest)
    return fastest


def differing_tensors(file: str, quantized: str, scale_fmt: str) -> int:
    """In how many tensors this peer and a file of ours differ in any bit."""
    differing = 0
    with safe_open(quantized, framework="pt") as opened:
        for name, weight in weights_of(file):
            codes, scales = outputs_for(weight)
            quantize(weight, codes, scales, scale_fmt)
            differing += not torch.equal(
                codes.view(torch.uint8), opened.get_tensor(name).view(torch.uint8)
            )
            differing += not torch.equal(scales, opened.get_tensor(f"{name}_scale_inv"))
    return differing


def script(base: str, out: str, scale_fmt: str) -> float:
    """Seconds that a script takes to write the FP8 checkpoint, shard by shard."""
    directory = Path(out)
    start = time.perf_counter()
    directory.mkdir()
    for shard in sorted(Path(base).glob("*.safetensors")):
        tensors = {}
        for name, weight in weights_of(str(shard)):
            codes, scales = outputs_for(weight)
            quantize(weight, codes, scales, scale_fmt)
            tensors[name], tensors[f"{name}_scale_inv"] = codes, scales
        save_file(tensors, directory / shard.name, metadata={"format": "pt"})
    seconds = time.perf_counter() - start
    shutil.rmtree(directory)
    return seconds


class Sink:
    """Takes copies of tensors, in memory that was touched before: a tensor that safetensors gives
    is a mapping until somebody reads it."""

    memory = torch.zeros(256 << 20, dtype=torch.uint8)

    @classmethod
    def take(cls, tensor: torch.Tensor) -> None:
        raw = tensor.view(torch.uint8) if tensor.element_size() == 1 else tensor
        count = raw.numel() * raw.element_size()
        cls.memory[:count].view(raw.dtype).view(raw.shape).copy_(raw)


def read_all(directory: str) -> float:
    """Seconds to open all shards and take every tensor."""
    start = time.perf_counter()
    for shard in sorted(Path(directory).glob("*.safetensors")):
        with safe_open(shard, framework="pt") as opened:
            for name in opened.keys():
                Sink.take(opened.get_tensor(name))
    return time.perf_counter() - start


def read_whole(file: str, name: str) -> float:
    start = time.perf_counter()
    with safe_open(file, framework="pt") as opened:
        Sink.take(opened.get_tensor(name))
    return time.perf_counter() - start


def read_halves(file: str, name: str, sides: list[str]) -> float:
    """Seconds to take halves of the columns, one after the other."""
    start = time.perf_counter()
    with safe_open(file, framework="pt") as opened:
        part = opened.get_slice(name)
        half = part.get_shape()[1] // 2
        for side in sides:
            Sink.take(part[:, :half] if side == "left" else part[:, half:])
    return time.perf_counter() - start


FUNCTIONS = (
    version, quantize_in_memory, choose_threads, differing_tensors, script, read_all, read_whole,
    read_halves,
)  # fmt: skip


def serve(functions: Iterable[Callable]) -> None:
    """Answers calls until there are no more."""
    functions = {function.__name__: function for function in functions}
    for line in sys.stdin:
        call = json.loads(line)
        try:
            answer = {"value": functions[call["function"]](**call["arguments"])}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve(FUNCTIONS)
