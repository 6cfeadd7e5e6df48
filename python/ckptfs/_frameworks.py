"""Arrays of torch and numpy: memory of the right dtype and shape, to be filled by the extension."""

from __future__ import annotations

import math
import os
from typing import Any, Protocol

from ckptfs._error import Error


class Framework(Protocol):
    def empty(self, dtype: str, shape: list[int]) -> Any:
        """An array with any content."""

    def memory(self, array: Any) -> tuple[int, int]:
        """Address and bytes of a contiguous array."""

    def open(self, path: str) -> Any:
        """The file at `path` in memory; what is written there does not reach the file."""

    def mapped(self, opened: Any, offset: int, length: int, dtype: str, shape: list[int]) -> Any | None:
        """The array at `offset` of an opened file; None if an array cannot begin there."""

    def to(self, array: Any, device: Any) -> Any:
        """The array on a device."""


def _unsupported(dtype: str, framework: str) -> Error:
    return Error(f"{framework} has no dtype for {dtype}", "unsupported-tensor",
                 hint="use another framework or version")


class Torch:
    NAMES = {
        "BOOL": "bool", "U8": "uint8", "I8": "int8", "I16": "int16", "U16": "uint16", "I32": "int32",
        "U32": "uint32", "I64": "int64", "U64": "uint64", "F16": "float16", "BF16": "bfloat16",
        "F32": "float32", "F64": "float64", "C64": "complex64", "F8_E4M3": "float8_e4m3fn",
        "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu", "F8_E4M3FNUZ": "float8_e4m3fnuz",
        "F8_E5M2FNUZ": "float8_e5m2fnuz", "F4": "float4_e2m1fn_x2",
    }

    def __init__(self) -> None:
        import torch

        self.torch = torch

    def dtype(self, dtype: str) -> Any:
        found = getattr(self.torch, self.NAMES.get(dtype, ""), None)
        if found is None:
            raise _unsupported(dtype, "torch")
        return found

    def _shape(self, dtype: str, shape: list[int]) -> list[int]:
        # Two elements are one of torch.
        return [*shape[:-1], shape[-1] // 2] if dtype == "F4" and shape else shape

    def empty(self, dtype: str, shape: list[int]) -> Any:
        return self.torch.empty(self._shape(dtype, shape), dtype=self.dtype(dtype))

    def memory(self, array: Any) -> tuple[int, int]:
        return array.data_ptr(), array.nbytes

    def open(self, path: str) -> Any:
        return self.torch.UntypedStorage.from_file(path, shared=False, nbytes=os.path.getsize(path))

    def mapped(self, opened: Any, offset: int, length: int, dtype: str, shape: list[int]) -> Any | None:
        wanted = self.dtype(dtype)
        if not length or (opened.data_ptr() + offset) % wanted.itemsize:
            return None
        # A storage of its own: what is saved of the tensor is not the whole file.
        flat = self.torch.asarray(opened[offset:offset + length], dtype=self.torch.uint8)
        return flat.view(wanted).view(self._shape(dtype, shape))

    def to(self, array: Any, device: Any) -> Any:
        return array.to(device)


class Numpy:
    NAMES = {
        "BOOL": "bool", "U8": "uint8", "I8": "int8", "I16": "int16", "U16": "uint16", "I32": "int32",
        "U32": "uint32", "I64": "int64", "U64": "uint64", "F16": "float16", "F32": "float32",
        "F64": "float64", "C64": "complex64",
    }
    # Of the package ml_dtypes.
    MORE = {
        "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
        "F8_E8M0": "float8_e8m0fnu", "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
    }

    def __init__(self) -> None:
        import numpy

        self.numpy = numpy

    def dtype(self, dtype: str) -> Any:
        if name := self.NAMES.get(dtype):
            return self.numpy.dtype(name)
        try:
            import ml_dtypes
        except ImportError:
            raise _unsupported(dtype, "numpy without ml_dtypes") from None
        found = getattr(ml_dtypes, self.MORE.get(dtype, ""), None)
        if found is None:
            raise _unsupported(dtype, "numpy")
        return self.numpy.dtype(found)

    def empty(self, dtype: str, shape: list[int]) -> Any:
        return self.numpy.empty(shape, dtype=self.dtype(dtype))

    def memory(self, array: Any) -> tuple[int, int]:
        return array.ctypes.data, array.nbytes

    def open(self, path: str) -> Any:
        return self.numpy.memmap(path, dtype="uint8", mode="c")

    def mapped(self, opened: Any, offset: int, length: int, dtype: str, shape: list[int]) -> Any | None:
        wanted = self.dtype(dtype)
        if not length or (opened.ctypes.data + offset) % wanted.itemsize:
            return None
        part = self.numpy.asarray(opened[offset:offset + length])
        return part.view(wanted).reshape(shape)

    def to(self, array: Any, device: Any) -> Any:
        return array


def framework(name: str) -> Framework:
    if name in ("pt", "torch", "pytorch"):
        return Torch()
    if name in ("np", "numpy"):
        return Numpy()
    raise ValueError(f"framework {name!r} is neither 'pt' nor 'np'")


def elements(shape: list[int]) -> int:
    return math.prod(shape)
