"""Mounts that end with the block that they are for: views, and the peer unionfs-fuse."""

import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SECONDS_TO_END = 30
OUR_READ_AHEAD_KB = 4096


@dataclass
class Server:
    """A mounted directory and the process that serves it."""

    path: Path
    pid: int


@contextmanager
def view(binary: Path, flags: list, mountpoint: Path) -> Iterator[Server]:
    """A mounted view. It is gone, and its pages and its process with it, after the block."""
    mountpoint.mkdir(parents=True, exist_ok=True)
    command = [str(part) for part in (binary, "mount", *flags, mountpoint)]
    server = None
    try:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        server = Server(mountpoint, _process_of(command))
        yield server
    finally:
        detach(mountpoint)
        if server:
            _wait_for_end(server.pid)


@contextmanager
def unionfs(directory: Path, mountpoint: Path) -> Iterator[Path]:
    """`directory` through unionfs-fuse, read-only."""
    mountpoint.mkdir(parents=True, exist_ok=True)
    command = ["unionfs", "-o", "ro,fsname=unionfs-bench", f"{directory}=RO", str(mountpoint)]
    try:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        yield mountpoint
    finally:
        detach(mountpoint)


@contextmanager
def floor(program: Path, directory: Path, mountpoint: Path, flags: tuple) -> Iterator[Path]:
    """Files like those of `directory`, but for their bytes: the least that FUSE takes to read them."""
    mountpoint.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen([program, directory, mountpoint, *flags])
    try:
        while not _is_mount(mountpoint):
            if process.poll() is not None:
                raise RuntimeError(f"{program.name} ended without a mount")
            time.sleep(0.01)
        set_read_ahead(mountpoint, OUR_READ_AHEAD_KB)
        yield mountpoint
    finally:
        detach(mountpoint)
        process.wait(SECONDS_TO_END)


def detach(mountpoint: Path) -> None:
    """Unmounts whatever is there, at once if possible and lazily otherwise."""
    for flags in ([], ["-l" if os.geteuid() == 0 else "-z"]):
        if not _is_mount(mountpoint):
            return
        tool = ["umount"] if os.geteuid() == 0 else ["fusermount3", "-u"]
        subprocess.run([*tool, *flags, mountpoint], check=False, stderr=subprocess.DEVNULL)


def detach_below(directory: Path) -> None:
    for path in _mounts():
        if directory in path.parents:
            detach(path)


def _is_mount(path: Path) -> bool:
    return path in _mounts()


def _mounts() -> list[Path]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [Path(line.split()[4]) for line in lines]


def _process_of(command: list[str]) -> int:
    wanted = b"".join(part.encode() + b"\0" for part in command)
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and (process / "cmdline").read_bytes() == wanted:
                return int(process.name)
        except OSError:
            continue  # it has ended
    raise RuntimeError(f"no process serves {command[-1]}")


def _wait_for_end(pid: int) -> None:
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    poll = select.poll()
    poll.register(process, select.POLLIN)
    poll.poll(SECONDS_TO_END * 1000)
    os.close(process)


def set_read_ahead(mountpoint: Path, kilobytes: int) -> bool:
    """Whether the read-ahead of the mount could be set, which needs root."""
    device = os.stat(mountpoint).st_dev
    file = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    try:
        file.write_text(f"{kilobytes}\n")
    except OSError:
        return False
    return True


def find_unionfs() -> str | None:
    """Why unionfs-fuse cannot be run, or None if it can; installed here where that is possible."""
    if shutil.which("unionfs"):
        return None
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return "unionfs-fuse is not installed (as root on Debian it would be now)"
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "-y", "--no-install-recommends", "unionfs-fuse"]):
        done = subprocess.run(
            ["apt-get", "-qq", *command], env=environment, capture_output=True, text=True
        )
    if done.returncode != 0 or not shutil.which("unionfs"):
        return f"apt-get could not install unionfs-fuse: {done.stderr.strip()[-200:]}"
    return None


def unionfs_version() -> str:
    done = subprocess.run(["unionfs", "--version"], capture_output=True, text=True)
    lines = (done.stdout + done.stderr).splitlines()
    line = next((line for line in lines if line.startswith("unionfs-fuse")), "unionfs-fuse")
    return line.replace(" version:", "")
