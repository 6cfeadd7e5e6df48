"""Mounts that end with a `with` block."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable

from ckptfs import _network
from ckptfs._error import Error

StrPath = str | os.PathLike[str]
_SECONDS_TO_UNMOUNT = 10


def program() -> str:
    """The path of the program `ckptfs`: that of this package, or else one in PATH."""
    if named := os.environ.get("CKPTFS_BIN"):
        return named
    schemes = [sysconfig.get_path("scripts"), sysconfig.get_path("scripts", f"{os.name}_user"),
               os.path.join(sys.prefix, "bin")]
    for directory in schemes:
        path = os.path.join(directory, "ckptfs")
        if os.path.isfile(path):
            return path
    found = shutil.which("ckptfs")
    if found is None:
        raise Error("the program ckptfs is not installed", "not-found", hint="install the package again")
    return found


class Mount:
    """A view that is mounted while a `with` block runs, by a process of its own.

    That process answers reads while this one is busy or waits for a page, and it unmounts when this one ends,
    however that comes. Files that are still open after the block stay readable until they are closed.
    """

    def __init__(self, recipe: Callable[[], str], mountpoint: StrPath | None, arguments: tuple[str, ...]) -> None:
        self._recipe = recipe
        self._mountpoint = None if mountpoint is None else os.path.abspath(os.fspath(mountpoint))
        self._arguments = arguments
        self._scratch: str | None = None
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> str:
        if self._process is not None:
            raise RuntimeError("this mount is in use; make another")
        self._scratch = tempfile.mkdtemp(prefix="ckptfs-")
        try:
            return self._mount(self._scratch)
        except BaseException:
            self.__exit__()
            raise

    def _mount(self, scratch: str) -> str:
        recipe, path = os.path.join(scratch, "ckptfs.yml"), self._mountpoint
        if path is None:
            path = os.path.join(scratch, "view")
            os.mkdir(path)
        self._path = path
        with open(recipe, "w", encoding="utf-8") as file:
            file.write(self._recipe())
        log = os.path.join(scratch, "log")
        # The program says here that the mount answers, as a service of systemd does.
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready, open(log, "w", encoding="utf-8") as output:
            ready.bind(os.path.join(scratch, "ready"))
            ready.settimeout(0.05)
            command = [program(), "mount", "--recipe", recipe, path, "--foreground", "--quiet", "--end-with",
                       str(os.getpid()), *_network.arguments(), *self._arguments]
            environment = os.environ | {"NOTIFY_SOCKET": ready.getsockname()}
            # In a session of its own, so that Ctrl-C reaches it through this process alone.
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                             env=environment, start_new_session=True, text=True)
            while True:
                try:
                    if b"READY=1" in ready.recv(65536):
                        return path
                except TimeoutError:
                    if self._process.poll() is not None:
                        raise self._failure(log) from None

    @staticmethod
    def _failure(log: str) -> Error:
        with open(log, encoding="utf-8", errors="replace") as file:
            text = file.read().strip()
        code = "internal"
        if "error[" in text:
            code, _, text = text.partition("error[")[2].partition("]: ")
        return Error(text or "the program ended without a message", code)

    def __exit__(self, *_: object) -> None:
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(_SECONDS_TO_UNMOUNT)
            except subprocess.TimeoutExpired:
                # Files are open yet. It is unmounted all the same, and the process ends when they are closed.
                pass
        if self._scratch is not None:
            scratch, self._scratch = self._scratch, None
            deadline = time.monotonic() + _SECONDS_TO_UNMOUNT
            while os.path.ismount(self._path) and time.monotonic() < deadline:
                time.sleep(0.005)
            if not os.path.ismount(self._path):
                shutil.rmtree(scratch)
