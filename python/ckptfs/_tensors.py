"""Tensors of a view, as safetensors' `safe_open` has those of a file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ckptfs._error import Error
from ckptfs._frameworks import Framework

if TYPE_CHECKING:
    from ckptfs._view import View

# Bytes that are on this machine at once on their way to a device.
_STAGED = 1 << 30


class _Header:
    __slots__ = ("dtype", "length", "shape")

    def __init__(self, dtype: str, shape: list[int], length: int) -> None:
        self.dtype = dtype
        self.shape = shape
        self.length = length


class Tensors(Mapping[str, Any]):
    """The tensors of some shards of a view. A context manager, for code that was written for `safe_open`.

    Tensors that a view takes from a local file as they are, in one piece, are mapped: nothing is read
    until they are used. `mmap=False` reads all tensors into memory of their own.
    """

    def __init__(self, view: View, shards: list[str], framework: Framework, device: Any = "cpu", *,
                 mmap: bool = True, threads: int | None = None) -> None:
        self._view = view
        self._native = view._native
        self._shards = shards
        self._framework = framework
        self._device = device
        self._mmap = mmap
        self._threads = threads
        self._opened: dict[str, Any] = {}
        self._headers: dict[str, _Header] = {}
        for shard in shards:
            for name, dtype, shape, length in self._native.tensors(shard):
                self._headers[name] = _Header(dtype, list(shape), length)

    def __enter__(self) -> Tensors:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.clear()

    def __len__(self) -> int:
        return len(self._headers)

    def __iter__(self) -> Iterator[str]:
        return iter(self._headers)

    def __contains__(self, name: object) -> bool:
        return name in self._headers

    def __getitem__(self, name: str) -> Any:
        return self.get_tensor(name)

    def __repr__(self) -> str:
        return f"<{len(self)} tensors of {len(self._shards)} shards>"

    def keys(self) -> list[str]:  # type: ignore[override]
        """The names, in alphabetical order."""
        return sorted(self._headers)

    def offset_keys(self) -> list[str]:
        """The names, in the order in which the tensors are in the shards."""
        return list(self._headers)

    def metadata(self) -> dict[str, str] | None:
        """The metadata in the header of the shard, or of the first of several."""
        with self._view.open(self._shards[0]) as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        return header.get("__metadata__")

    def get_slice(self, name: str) -> Slice:
        """A tensor of which nothing is read until it is indexed."""
        return Slice(self, name, self._header(name))

    def get_tensor(self, name: str) -> Any:
        return self.load([name])[name]

    def load(self, names: Iterable[str] | None = None, *, threads: int | None = None) -> dict[str, Any]:
        """The tensors of these names, or all of them, read in parallel, in the order of the names."""
        names = self.offset_keys() if names is None else list(names)
        tensors: dict[str, Any] = dict.fromkeys(names)
        group: list[str] = []
        staged = 0
        is_here = str(self._device) == "cpu"
        for name in names:
            header = self._header(name)
            group.append(name)
            staged += header.length
            if not is_here and staged >= _STAGED:
                self._load_group(group, tensors, threads)
                group, staged = [], 0
        self._load_group(group, tensors, threads)
        return tensors

    def _load_group(self, names: list[str], tensors: dict[str, Any], threads: int | None) -> None:
        wanted = []
        for name in names:
            header = self._header(name)
            tensor = self._mapped(name, header) if self._mmap else None
            if tensor is None:
                tensor = self._framework.empty(header.dtype, header.shape)
                wanted.append((name, *self._framework.memory(tensor)))
            tensors[name] = tensor
        self._native.fill(wanted, self._threads if threads is None else threads)
        if str(self._device) != "cpu":
            for name in names:
                tensors[name] = self._framework.to(tensors[name], self._device)

    def _mapped(self, name: str, header: _Header) -> Any | None:
        stored = self._native.stored(name)
        if stored is None:
            return None
        path, offset = os.fspath(stored[0]), stored[1]
        if path not in self._opened:
            opened = self._framework.open(path)
            # What is mapped is still the file that was planned.
            self._native.stored(name)
            self._opened[path] = opened
        return self._framework.mapped(self._opened[path], offset, header.length, header.dtype, header.shape)

    def _header(self, name: str) -> _Header:
        try:
            return self._headers[name]
        except KeyError:
            raise Error(f"there is no tensor {name}", "not-found", tensor=name) from None


class Slice:
    """A tensor that is read when it is indexed: rows and columns that are not asked for are not read."""

    def __init__(self, tensors: Tensors, name: str, header: _Header) -> None:
        self._tensors = tensors
        self._name = name
        self._header = header

    def get_shape(self) -> list[int]:
        return list(self._header.shape)

    def get_dtype(self) -> str:
        return self._header.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._header.shape)

    def __len__(self) -> int:
        return self._header.shape[0]

    def __getitem__(self, index: Any) -> Any:
        shape = self._header.shape
        ranges, rest = _ranges(index, shape)
        if all((start, end) == (0, length) for (start, end), length in zip(ranges, shape)):
            return self._tensors.get_tensor(self._name)[rest]
        if self._header.dtype in ("F4", "F6_E2M3", "F6_E3M2"):
            raise TypeError(f"tensor {self._name}: {self._header.dtype} has no slices; its elements are no bytes")
        framework = self._tensors._framework
        part = framework.empty(self._header.dtype, [end - start for start, end in ranges])
        threads = self._tensors._threads
        self._tensors._native.fill_slice(self._name, ranges, *framework.memory(part), threads)
        return framework.to(part[rest], self._tensors._device)


def _ranges(index: Any, shape: list[int]) -> tuple[list[tuple[int, int]], tuple[Any, ...]]:
    """What is read of each dimension, and the index that makes the result of it."""
    items = list(index) if isinstance(index, tuple) else [index]
    if items.count(Ellipsis) > 1:
        raise IndexError("an index can only have a single ellipsis ('...')")
    if Ellipsis not in items:
        items.append(Ellipsis)
    used = sum(item is not None and item is not Ellipsis for item in items)
    if used > len(shape):
        raise IndexError(f"too many indices for a tensor of {len(shape)} dimensions")
    ranges: list[tuple[int, int]] = []
    rest: list[Any] = []
    for item in items:
        if item is Ellipsis:
            whole = len(shape) - used
            ranges += [(0, length) for length in shape[len(ranges):len(ranges) + whole]]
            rest.append(Ellipsis)
        elif item is None:
            rest.append(None)
        elif isinstance(item, slice):
            length = shape[len(ranges)]
            start, end, step = item.indices(length)
            if step < 1:
                raise ValueError("slice step must be positive")
            ranges.append((start, max(start, end)))
            rest.append(slice(None, None, step))
        elif hasattr(item, "__index__") and not isinstance(item, bool):
            length, position = shape[len(ranges)], item.__index__()
            if not -length <= position < length:
                raise IndexError(f"index {position} is out of bounds for dimension {len(ranges)} of size {length}")
            position %= length
            ranges.append((position, position + 1))
            rest.append(0)
        else:
            raise TypeError(f"a number, slice, None or ... is expected in an index, not {item!r}")
    return ranges, tuple(rest)
