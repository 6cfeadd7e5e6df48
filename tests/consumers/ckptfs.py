"""Runs the ckptfs binary: plain commands, and mounts that never outlive a test."""

import gc
import os
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

TARGET = Path(os.environ.get("CARGO_TARGET_DIR", Path(__file__).resolve().parents[2] / "target"))
SECONDS_TO_MOUNT = 60
SECONDS_TO_STOP = 30


def binary() -> Path:
    """The binary that CKPTFS_BIN names, or else the one last built, release first."""
    if named := os.environ.get("CKPTFS_BIN"):
        candidates = [Path(named)]
    else:
        candidates = [TARGET / "release" / "ckptfs", TARGET / "debug" / "ckptfs"]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(f"no ckptfs binary at {' or '.join(map(str, candidates))}: "
                            "run `cargo build --release` or set CKPTFS_BIN")


def attempt(*arguments) -> subprocess.CompletedProcess:
    """Runs a command to its end, whichever that is."""
    command = [str(argument) for argument in (binary(), *arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def run(*arguments) -> subprocess.CompletedProcess:
    """Runs a command to its end; the test fails with the command's own message."""
    done = attempt(*arguments)
    command = done.args
    assert done.returncode == 0, f"{command} exited {done.returncode}:\n{done.stderr}"
    return done


@contextmanager
def mounted(view: list, scratch: Path):
    """Mounts a view below `scratch`, yields the mountpoint, and unmounts it.

    The mount runs in the foreground as a child of the test, so that its end
    can be awaited, and forced if it does not come.
    """
    mountpoint = scratch / "mount"
    mountpoint.mkdir()
    log = scratch / "mount.log"
    command = [str(argument) for argument in (binary(), "mount", *view, mountpoint, "--foreground")]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        wait_until_mounted(mountpoint, process, log)
        yield mountpoint
        # A mapping that only waits to be collected would keep the mount busy.
        gc.collect()
        run("unmount", mountpoint)
        assert not os.path.ismount(mountpoint), "unmount succeeded, yet the mount is there"
        assert process.wait(SECONDS_TO_STOP) == 0, f"the mount ended badly:\n{log.read_text()}"
    finally:
        if os.path.ismount(mountpoint):
            subprocess.run(["umount", "--lazy", str(mountpoint)], check=False)
        if process.poll() is None:
            process.kill()
            process.wait()
    mountpoint.rmdir()


def wait_until_mounted(mountpoint: Path, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + SECONDS_TO_MOUNT
    while not os.path.ismount(mountpoint):
        assert process.poll() is None, f"mount exited {process.returncode}:\n{log.read_text()}"
        assert time.monotonic() < deadline, f"no mount appeared:\n{log.read_text()}"
        time.sleep(0.005)
