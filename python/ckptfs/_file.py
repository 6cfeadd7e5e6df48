"""Files of a view."""

from __future__ import annotations

import ctypes
import io
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ckptfs._native import View


class ViewFile(io.RawIOBase):
    """A file of a view: binary, read-only, and seekable. `io.BufferedReader` makes a buffered one of it."""

    def __init__(self, view: View, path: str, length: int) -> None:
        super().__init__()
        self._view = view
        self._length = length
        self._position = 0
        self.name = path
        self.mode = "rb"

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._check_open()
        bases = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._length}
        if whence not in bases:
            raise ValueError(f"whence is {whence}, none of {sorted(bases)}")
        position = bases[whence] + offset
        if position < 0:
            raise ValueError(f"{position} is before the beginning of the file")
        self._position = position
        return position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        self._check_open()
        view = memoryview(buffer).cast("B")
        if view.readonly:
            raise TypeError("a writable buffer is expected")
        # It keeps the buffer from being moved or freed while it is filled.
        memory = (ctypes.c_char * len(view)).from_buffer(view)
        count = self._view.read(self.name, self._position, ctypes.addressof(memory), len(view))
        self._position += count
        return count

    def write(self, buffer: object) -> int:
        raise io.UnsupportedOperation("not writable")

    def readall(self) -> bytes:
        content = bytearray(max(0, self._length - self._position))
        self.readinto(content)
        return bytes(content)

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("the file is closed")
