"""The ways in which programs read the files of a directory: SHA-256 of each file, by name."""

import hashlib
import os
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PART = 8 << 20
PROCESSES = 32


def files(directory: Path) -> dict[str, Path]:
    below = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path for path in below}


def digests(directory: Path) -> dict[str, str]:
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in files(directory).items()
    }


def cp(directory: Path, scratch: Path) -> dict[str, str]:
    subprocess.run(["cp", "-r", directory, scratch / "copy"], check=True)
    return digests(scratch / "copy")


def rsync(directory: Path, scratch: Path) -> dict[str, str]:
    subprocess.run(["rsync", "-a", f"{directory}/", scratch / "copy"], check=True)
    return digests(scratch / "copy")


def tar(directory: Path, _scratch: Path) -> dict[str, str]:
    command = ["tar", "--create", "--directory", directory, "."]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            found = {
                os.path.normpath(member.name): hashlib.sha256(archive.extractfile(member).read())
                for member in archive
                if member.isfile()
            }
        process.stdout.read()  # what pads the last record
    assert process.returncode == 0
    return {name: digest.hexdigest() for name, digest in found.items()}


def upload(directory: Path, _scratch: Path) -> dict[str, str]:
    """10 threads that open the file again for each part of 8 MiB, as uploads to S3 do."""

    def part(path: Path, at: int) -> bytes:
        file = os.open(path, os.O_RDONLY)
        try:
            return os.pread(file, PART, at)
        finally:
            os.close(file)

    found = {}
    with ThreadPoolExecutor(10) as threads:
        for name, path in files(directory).items():
            digest = hashlib.sha256()
            starts = range(0, path.stat().st_size, PART)
            for bytes_read in threads.map(lambda at: part(path, at), starts):
                digest.update(bytes_read)
            found[name] = digest.hexdigest()
    return found


def one_mapping(directory: Path, _scratch: Path) -> dict[str, str]:
    """32 processes that have one mapping of the largest file and fault its pages at once."""
    script = Path(__file__).with_name("one_mapping.py")
    name, path = max(files(directory).items(), key=lambda file: file[1].stat().st_size)
    command = [sys.executable, script, path, str(PROCESSES)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found = done.stdout.split()
    assert len(found) == PROCESSES
    (digest,) = set(found)
    return {name: digest}


COPIES = [cp, rsync, tar, upload]
