"""Memory, page cache and machine, through libc and /proc."""

import ctypes
import mmap
import os
import platform
import time
from collections.abc import Iterable
from pathlib import Path

MADV_POPULATE_WRITE = 23
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]

first_touches: list[float] = []
"""Bytes per second of every `touch_memory`, for the row that says how fast fresh memory was."""


def touch_memory(length: int) -> None:
    """Takes that much memory and gives it back at once.

    Under some hypervisors memory that was free for long is slow to touch, up to ten times slower
    than a read; memory that was just freed is not. So a first read that follows measures the read.
    """
    start = time.perf_counter()
    with mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        try:
            memory.madvise(MADV_POPULATE_WRITE)
        except OSError:  # before Linux 5.14
            block = bytes(1 << 20)
            for at in range(0, length - len(block) + 1, len(block)):
                memory[at : at + len(block)] = block
        first_touches.append(length / (time.perf_counter() - start))


class Mapping:
    """A file mapped for reading, as an address that `ctypes.memmove` can copy from."""

    def __init__(self, path: Path):
        file = os.open(path, os.O_RDONLY)
        try:
            self.length = os.fstat(file).st_size
            address = libc.mmap(None, self.length, mmap.PROT_READ, mmap.MAP_SHARED, file, 0)
        finally:
            os.close(file)
        if address == ctypes.c_void_p(-1).value:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))
        self.address = address

    def __enter__(self) -> "Mapping":
        return self

    def __exit__(self, *_) -> None:
        libc.munmap(self.address, self.length)


def drop_from_page_cache(paths: Iterable[Path]) -> None:
    for path in paths:
        file = os.open(path, os.O_RDONLY)
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def bytes_in_page_cache(paths: Iterable[Path]) -> int:
    pages = 0
    for path in paths:
        with Mapping(path) as mapping:
            resident = (ctypes.c_ubyte * -(-mapping.length // mmap.PAGESIZE))()
            if libc.mincore(mapping.address, mapping.length, resident) != 0:
                raise OSError(ctypes.get_errno(), "mincore", str(path))
            pages += sum(page & 1 for page in resident)
    return pages * mmap.PAGESIZE


def process_status(pid: int, field: str) -> int:
    """A field in kB of /proc/PID/status, such as VmHWM, in bytes; 0 when the process has ended."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0


def memory_info() -> dict[str, int]:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}


def file_system(path: Path) -> str:
    """The type of the file system that `path` is on."""
    device = os.stat(path).st_dev
    name = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        if fields.split()[2] == name:
            return rest.split()[0]
    return "unknown"


def setting(path: str) -> str:
    """The chosen word of a file such as `always [madvise] never`."""
    try:
        text = Path(path).read_text().strip()
    except OSError:
        return "unknown"
    return text.partition("[")[2].partition("]")[0] or text


def describe_machine(work: Path) -> dict[str, str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = dict(line.split("\t", 1)[0:2] for line in lines if "\t" in line)
    values = {key.strip(): value.strip(": \t") for key, value in cpu.items()}
    vectors = [flag for flag in ("avx2", "avx512f") if flag in values.get("flags", "").split()]
    memory = memory_info()
    return {
        "cpu": values.get("model name", platform.machine()),
        "vector units": ", ".join(vectors) or "neither avx2 nor avx512f",
        "cores": str(os.cpu_count()),
        "memory": f"{memory['MemTotal'] / 1e9:.0f} GB, {memory['MemFree'] / 1e9:.0f} GB free, "
        f"{memory['Cached'] / 1e9:.1f} GB in the page cache",
        "huge pages": f"{setting('/sys/kernel/mm/transparent_hugepage/enabled')}, "
        f"shmem {setting('/sys/kernel/mm/transparent_hugepage/shmem_enabled')}",
        "kernel": platform.release(),
        "file system": file_system(work),
        "user": "root" if os.geteuid() == 0 else "not root",
        "load": f"{os.getloadavg()[0]:.1f} at the start",
        "python": platform.python_version(),
    }
