"""Ways to read files, each as bytes per second.

All copy 4 MiB at a time into a buffer that was touched before, so that the reader itself takes no
fresh memory.
"""

import ctypes
import mmap
import os
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from .system import Mapping, touch_memory

CHUNK = 4 << 20
WARM_SECONDS = 0.2
# Huge pages, because O_DIRECT is twice as fast into long physical ranges.
BUFFER = mmap.mmap(-1, CHUNK, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
BUFFER.madvise(mmap.MADV_HUGEPAGE)
BUFFER.write(bytes(CHUNK))
BUFFER_ADDRESS = ctypes.addressof(ctypes.c_char.from_buffer(BUFFER))

Reader = Callable[[Path], int]


def read_file(path: Path, flags: int = 0) -> int:
    file = os.open(path, os.O_RDONLY | flags)
    try:
        total = 0
        while count := os.readv(file, [BUFFER]):
            total += count
        return total
    finally:
        os.close(file)


def map_file(path: Path) -> int:
    with Mapping(path) as mapping:
        for at in range(0, mapping.length, CHUNK):
            length = min(CHUNK, mapping.length - at)
            ctypes.memmove(BUFFER_ADDRESS, mapping.address + at, length)
        return mapping.length


def read_file_direct(path: Path) -> int:
    """Around the page cache, with one request in flight."""
    return read_file(path, os.O_DIRECT)


READERS: dict[str, Reader] = {"read": read_file, "mmap": map_file}


def rate(reader: Reader, paths: Iterable[Path], fresh: float = 0.0) -> float:
    """Bytes per second over all files.

    `fresh` says how many bytes of page cache a byte of the file will take; as much memory is
    touched before each file, outside of the time measured.
    """
    seconds, total = 0.0, 0
    for path in paths:
        if fresh:
            touch_memory(int(path.stat().st_size * fresh))
        start = time.perf_counter()
        total += reader(path)
        seconds += time.perf_counter() - start
    return total / seconds


def warm_rate(reader: Reader, paths: list[Path]) -> float:
    """The same of files that are in the page cache: a pass to see to that, then the median of
    passes that take long enough together to be measured."""
    rate(reader, paths)
    rates, end = [], time.perf_counter() + WARM_SECONDS
    while not rates or time.perf_counter() < end:
        rates.append(rate(reader, paths))
    return statistics.median(rates)


def warm(paths: Iterable[Path]) -> None:
    for path in paths:
        read_file(path)


def shards(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.safetensors"))


def size(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths)
