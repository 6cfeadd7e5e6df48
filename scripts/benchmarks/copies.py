"""Programs that read all files of a directory, as they read a mount or the same view on disk."""

import mmap
import os
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .readers import shards

PART, THREADS = 8 << 20, 10
PROCESSES = 32


def cp(directory: Path, scratch: Path) -> None:
    subprocess.run(["cp", "-r", directory, scratch / "copied"], check=True)


def rsync(directory: Path, scratch: Path) -> None:
    subprocess.run(["rsync", "-a", f"{directory}/", scratch / "copied"], check=True)


def tar(directory: Path, _scratch: Path) -> None:
    # To /dev/null itself it would read nothing.
    command = 'tar --create --directory "$0" . | cat > /dev/null'
    subprocess.run(["bash", "-o", "pipefail", "-c", command, directory], check=True)


def upload(directory: Path, _scratch: Path) -> None:
    """10 threads that open the file again for each part of 8 MiB, as uploads to S3 do."""

    def part(place: tuple[Path, int]) -> None:
        file = os.open(place[0], os.O_RDONLY)
        try:
            os.pread(file, PART, place[1])
        finally:
            os.close(file)

    parts = [(path, at) for path in shards(directory) for at in range(0, path.stat().st_size, PART)]
    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(part, parts))


def processes(directory: Path, _scratch: Path) -> None:
    """32 processes that have one mapping of each file and fault its pages, each from another place on."""
    for path in shards(directory):
        with open(path, "rb") as file:
            mapping = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        pages = range(0, len(mapping), mmap.PAGESIZE)
        children = []
        for number in range(PROCESSES):
            if (child := os.fork()) == 0:
                start = len(pages) * number // PROCESSES
                for page in (*pages[start:], *pages[:start]):
                    mapping[page]
                os._exit(0)
            children.append(child)
        failed = [child for child in children if os.waitpid(child, 0)[1]]
        assert not failed
        mapping.close()


PROGRAMS: dict[str, Callable[[Path, Path], None]] = {
    "cp -r": cp,
    "rsync -a": rsync,
    "tar": tar,
    "parts of 8 MiB, 10 threads (uploads to S3)": upload,
    "32 processes that fault one mapping": processes,
}


def run(program: str, directory: Path, scratch: Path) -> None:
    try:
        PROGRAMS[program](directory, scratch)
    finally:
        shutil.rmtree(scratch / "copied", ignore_errors=True)
