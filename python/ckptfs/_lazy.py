"""Tensors of torch that are read when they are used, and then only those rows and columns that are."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._pytree import tree_map

from ckptfs._frameworks import Torch
from ckptfs._tensors import Slice

_SLICE = torch.ops.aten.slice.Tensor
_SAME = {torch.ops.aten.detach.default, torch.ops.aten.alias.default}


class LazyTensor(torch.Tensor):
    """A tensor of a view. Slices and narrower parts of it are lazy too; every other operation reads it."""

    _slice: Slice
    _ranges: tuple[tuple[int, int], ...]

    @staticmethod
    def __new__(cls, source: Slice, ranges: tuple[tuple[int, int], ...] | None = None) -> LazyTensor:
        ranges = tuple((0, length) for length in source.get_shape()) if ranges is None else ranges
        shape = [end - start for start, end in ranges]
        dtype = Torch().dtype(source.get_dtype())
        self = torch.Tensor._make_wrapper_subclass(cls, shape, dtype=dtype, device="cpu")
        self._slice, self._ranges = source, ranges
        return self

    def __init__(self, *_: Any) -> None:
        super().__init__()

    def read(self) -> torch.Tensor:
        """The tensor itself."""
        return self._slice[tuple(slice(start, end) for start, end in self._ranges)]

    def __repr__(self, **_: Any) -> str:
        return f"LazyTensor({self._slice._name!r}, {list(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in _SAME:
            return LazyTensor(args[0]._slice, args[0]._ranges)
        if function is _SLICE and not kwargs:
            given: list[Any] = [*args, *[0, None, None, 1][len(args) - 1:]]
            tensor, dimension, start, end, step = given
            if step == 1:
                ranges = list(tensor._ranges)
                before, after = ranges[dimension]
                first, last, _ = slice(start, end).indices(after - before)
                ranges[dimension] = before + first, before + max(first, last)
                return LazyTensor(tensor._slice, tuple(ranges))
        read = lambda value: value.read() if isinstance(value, LazyTensor) else value  # noqa: E731
        return function(*tree_map(read, args), **tree_map(read, kwargs or {}))
