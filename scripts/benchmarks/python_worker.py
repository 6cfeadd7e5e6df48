"""Runs in an environment with torch and the package: reads calls as lines of JSON, and answers each with a line."""

import gc
import json
import mmap
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

import ckptfs

TAKEN = 2 << 30


def touched(state: dict[str, torch.Tensor]) -> None:
    """Has each page of the tensors in memory."""
    for tensor in state.values():
        if tensor.numel():
            tensor.view(-1).view(torch.uint8)[::4096].sum()


def memory(key: str) -> int:
    """Bytes that /proc/self/status gives."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{key}:"))


def take_memory(length: int) -> None:
    """Has the machine find memory that nobody had for a while, which a virtual machine gets from its host first."""
    with mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_HUGEPAGE)
        for at in range(0, length, 4096):
            memory[at] = 1


def measured(load, touch: bool) -> dict:
    take_memory(TAKEN)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    start = time.perf_counter()
    state = load()
    if touch:
        touched(state)
    seconds = time.perf_counter() - start
    tensors = sum(tensor.nbytes for tensor in state.values())
    return {"seconds": seconds, "beyond": memory("VmHWM") - before - tensors, "bytes": tensors}


def load_view(base: str, settings: dict, touch: bool = True) -> dict:
    return measured(lambda: ckptfs.load_state_dict(ckptfs.View(base, **settings)), touch)


def load_copy(directory: str, touch: bool = True) -> dict:
    def load() -> dict[str, torch.Tensor]:
        state = {}
        for file in sorted(Path(directory).glob("*.safetensors")):
            state |= load_file(file)
        return state

    return measured(load, touch)


def load_mount(base: str, settings: dict) -> dict:
    with ckptfs.View(base, **settings).mount() as path:
        return load_copy(path)


def main() -> None:
    for line in sys.stdin:
        call = json.loads(line)
        try:
            answer = {"value": globals()[call["function"]](**call["arguments"])}
        except Exception as error:  # whatever it is, the caller prints it
            answer = {"error": repr(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
