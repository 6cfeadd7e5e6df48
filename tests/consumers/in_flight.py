"""Many reads with `O_DIRECT` in flight at once, by the interfaces of the kernel that loaders use.

InstantTensor reads so: by io_uring where it may be used, else by the older asynchronous I/O, 8 MiB
a read and up to 512 at once. It needs a GPU to be run, so this takes its place.
"""

import ctypes
import errno
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

libc = ctypes.CDLL(None, use_errno=True)
libc.memcmp.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
# Numbers of the system calls, the same on x86_64 and aarch64 for io_uring alone.
IO_URING_SETUP, IO_URING_ENTER = 425, 426
AIO = {"x86_64": (206, 207, 208, 209), "aarch64": (0, 1, 4, 2)}
IORING_OP_READ, IORING_ENTER_GETEVENTS = 22, 1
IORING_OFF_CQ_RING, IORING_OFF_SQES = 0x8000000, 0x10000000
IOCB_CMD_PREAD = 0
MAX_READS = 512
READ = 8 << 20


@dataclass(frozen=True)
class Read:
    file: int
    at: int
    address: int
    length: int


def call(number: int, *arguments) -> int:
    """A system call; an error is an OSError."""
    result = libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def address_of(buffer) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


def same_memory(one: int, other: int, length: int) -> bool:
    return libc.memcmp(one, other, length) == 0


class Uring:
    """An io_uring of so many entries."""

    def __init__(self, entries: int):
        parameters = bytearray(120)
        self.file = call(IO_URING_SETUP, entries, address_of(parameters))
        submitted, completed = struct.unpack_from("<2I", parameters)
        # Offsets of: head, tail, mask, entries, and of what follows these.
        *_, self.sq_tail, self.sq_mask, _, _, _, sq_array = struct.unpack_from("<7I", parameters, 40)
        self.cq_head, self.cq_tail, self.cq_mask, _, _, self.cqes = struct.unpack_from(
            "<6I", parameters, 80
        )
        self.sq = self._map(sq_array + 4 * submitted, 0)
        self.cq = self._map(self.cqes + 16 * completed, IORING_OFF_CQ_RING)
        self.entries = self._map(64 * submitted, IORING_OFF_SQES)
        # Entries are submitted in the order of their places.
        struct.pack_into(f"<{submitted}I", self.sq, sq_array, *range(submitted))

    def _map(self, length: int, at: int) -> mmap.mmap:
        return mmap.mmap(self.file, length, mmap.MAP_SHARED, offset=at)

    def submit(self, number: int, read: Read) -> None:
        """The result will come with this number."""
        (tail,) = struct.unpack_from("<I", self.sq, self.sq_tail)
        (mask,) = struct.unpack_from("<I", self.sq, self.sq_mask)
        entry = struct.pack(
            "<BBHiQQIIQ24x", IORING_OP_READ, 0, 0, read.file, read.at, read.address, read.length, 0, number
        )
        at = 64 * (tail & mask)
        self.entries[at : at + 64] = entry
        struct.pack_into("<I", self.sq, self.sq_tail, tail + 1 & 0xFFFFFFFF)
        call(IO_URING_ENTER, self.file, 1, 0, 0, 0, 0)

    def results(self) -> Iterator[tuple[int, int]]:
        """Waits for one at least. Number and result: bytes read, or an errno below 0."""
        call(IO_URING_ENTER, self.file, 0, 1, IORING_ENTER_GETEVENTS, 0, 0)
        (head,) = struct.unpack_from("<I", self.cq, self.cq_head)
        (tail,) = struct.unpack_from("<I", self.cq, self.cq_tail)
        (mask,) = struct.unpack_from("<I", self.cq, self.cq_mask)
        while head != tail:
            number, result = struct.unpack_from("<Qi", self.cq, self.cqes + 16 * (head & mask))
            head = head + 1 & 0xFFFFFFFF
            struct.pack_into("<I", self.cq, self.cq_head, head)
            yield number, result

    def close(self) -> None:
        os.close(self.file)


class Aio:
    """The kernel's older asynchronous I/O."""

    def __init__(self, entries: int):
        self.setup, self.destroy, self.getevents, self.enter = AIO[os.uname().machine]
        context = ctypes.c_ulong(0)
        call(self.setup, entries, ctypes.addressof(context))
        self.context = context.value
        self.events = bytearray(32 * entries)

    def submit(self, number: int, read: Read) -> None:
        block = bytearray(
            struct.pack(
                "<QIiHhIQQqQII", number, 0, 0, IOCB_CMD_PREAD, 0, read.file, read.address, read.length,
                read.at, 0, 0, 0,
            )  # fmt: skip
        )
        blocks = (ctypes.c_void_p * 1)(address_of(block))
        call(self.enter, self.context, 1, ctypes.addressof(blocks))

    def results(self) -> Iterator[tuple[int, int]]:
        many = len(self.events) // 32
        count = call(self.getevents, self.context, 1, many, address_of(self.events), 0)
        for event in range(count):
            number, _, result, _ = struct.unpack_from("<QQqq", self.events, 32 * event)
            yield number, result

    def close(self) -> None:
        call(self.destroy, self.context)


def is_refused(error: OSError) -> bool:
    """Whether this machine lets nobody use the interface, as many containers do."""
    return error.errno in (errno.EPERM, errno.EACCES, errno.ENOSYS)


def any_queue(entries: int) -> Uring | Aio:
    """The interface that is chosen where nobody asks for one."""
    try:
        return Uring(entries)
    except OSError as error:
        if not is_refused(error):
            raise
        return Aio(entries)


def read_files(paths: list[Path]) -> list[bytes]:
    """The bytes of files that are read all at once."""
    lengths = [path.stat().st_size for path in paths]
    memory = [mmap.mmap(-1, length + mmap.PAGESIZE) for length in lengths]
    with ExitStack() as at_end:
        queue = any_queue(MAX_READS)
        at_end.callback(queue.close)
        reads = []
        for path, length, buffer in zip(paths, lengths, memory):
            file = os.open(path, os.O_RDONLY | os.O_DIRECT)
            at_end.callback(os.close, file)
            start = address_of(buffer)
            for at in range(0, length, READ):
                whole = min(READ, -(-(length - at) // mmap.PAGESIZE) * mmap.PAGESIZE)
                reads.append((Read(file, at, start + at, whole), min(READ, length - at)))
        submitted = done = 0
        while done < len(reads):
            while submitted < len(reads) and submitted - done < MAX_READS:
                queue.submit(submitted, reads[submitted][0])
                submitted += 1
            for number, result in queue.results():
                read, expected = reads[number]
                assert result == expected, f"{read}: {result} instead of {expected}"
                done += 1
    return [buffer[:length] for length, buffer in zip(lengths, memory)]
