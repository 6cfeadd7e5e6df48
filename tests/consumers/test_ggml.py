"""Blocks of every GGUF type equal those of ggml's own library, bit for bit, with and without an
importance matrix, on every CPU path; and are decoded as that library decodes them."""

import ctypes
import functools
import importlib.util
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

import ckptfs
from checkpoint import Checkpoint

REPOSITORY = Path(__file__).resolve().parents[2]

# Type: elements and bytes of a block.
ENCODED = {
    "Q4_0": (32, 18), "Q4_1": (32, 20), "Q5_0": (32, 22), "Q5_1": (32, 24), "Q8_0": (32, 34),
    "Q2_K": (256, 84), "Q3_K": (256, 110), "Q4_K": (256, 144), "Q5_K": (256, 176),
    "Q6_K": (256, 210), "MXFP4": (32, 17),
}
DECODED = ENCODED | {
    "IQ4_NL": (32, 18), "IQ4_XS": (256, 136), "TQ1_0": (256, 54), "TQ2_0": (256, 66),
}
# Switched off, so that each of the paths is the best one left.
CPU_PATHS = ["", "avx512", "avx512,avx2"]
FLOATS = ctypes.POINTER(ctypes.c_float)


def library() -> ctypes.CDLL:
    package = Path(importlib.util.find_spec("libggml").submodule_search_locations[0])
    return ctypes.CDLL(next(package.rglob("libggml-base.so")))


GGML = library()


def function(name: str):
    return getattr(GGML, name.lower().replace("_k", "_K"))


def quantised(kind: str, rows: np.ndarray, weights: np.ndarray | None) -> bytes:
    """The blocks that ggml makes."""
    elements, size = ENCODED[kind]
    blocks = np.zeros(rows.size // elements * size, np.uint8)
    quantise = function(f"quantize_{kind}")
    quantise.restype = ctypes.c_size_t
    length = quantise(
        rows.ctypes.data_as(FLOATS), ctypes.c_void_p(blocks.ctypes.data),
        ctypes.c_int64(len(rows)), ctypes.c_int64(rows.shape[1]),
        None if weights is None else weights.ctypes.data_as(FLOATS),
    )
    assert length == blocks.size
    return blocks.tobytes()


def dequantised(kind: str, blocks: bytes, count: int) -> bytes:
    """The f32 that ggml makes of blocks."""
    values = np.zeros(count, np.float32)
    dequantise = function(f"dequantize_row_{kind}")
    dequantise.restype = None
    dequantise(ctypes.c_char_p(blocks), values.ctypes.data_as(FLOATS), ctypes.c_int64(count))
    return values.tobytes()


@functools.cache
def rows_program() -> Path:
    """Built here, since only these tests need it. Of the tests' build: an example depends on what tests do."""
    subprocess.run(
        ["cargo", "build", "--locked", "--quiet", "--package", "ckptfs", "--example", "ggml_rows"],
        cwd=REPOSITORY, check=True,
    )
    target = Path(os.environ.get("CARGO_TARGET_DIR", "target"))
    return REPOSITORY / target / "debug" / "examples" / "ggml_rows"


def ggml_rows(*arguments, data: bytes, disable: str = "") -> bytes:
    """What `tests/ggml/rows.rs` makes of `data`."""
    done = subprocess.run(
        [rows_program(), *map(str, arguments)], input=data, capture_output=True,
        env=os.environ | {"CKPTFS_DISABLE": disable},
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def normal(shape, random) -> np.ndarray:
    return random.standard_normal(shape).astype(np.float32)


def random_rows(random) -> dict[str, np.ndarray]:
    """Rows of many kinds; more super-blocks than lanes, and not a multiple of them."""
    shape = (2, 19 * 256)
    rows = normal(shape, random)
    sizes = np.exp(6 * normal((2, shape[1] // 32), random)).repeat(32, 1)
    return {
        "normal": 0.02 * rows,
        "bf16": ((0.05 * rows).view(np.uint32) & 0xFFFF0000).view(np.float32),
        "sparse": np.where(random.random(shape) < 0.7, 0, rows),
        "tails": rows**5,
        "whole": np.round(3 * rows),
        "positive": np.abs(rows),
        "negative": -np.abs(rows),
        "nearly constant": 0.37 + np.where(random.random(shape) < 0.02, 1e-7 * rows, 0),
        "zeros": np.where(random.random(shape) < 0.5, -0.0, 0.0),
        "tiny": 1e-17 * rows,
        "subnormal": 1e-40 * rows,
        "of many sizes": np.clip(rows * sizes, -3e4, 3e4),
    }


def random_weights(columns: int, random) -> dict[str, np.ndarray | None]:
    weights = random.random(columns)
    return {
        "no matrix": None,
        "even": weights,
        "of many sizes": np.exp(5 * random.standard_normal(columns)),
        "half of them zero": np.where(random.random(columns) < 0.5, 0, weights),
    }


def differing(kind: str, rows: np.ndarray, weights: np.ndarray | None, scratch: Path) -> list:
    """The CPU paths whose blocks or whose values of them are not ggml's."""
    rows = np.ascontiguousarray(rows, np.float32)
    columns = rows.shape[1]
    extra = []
    if weights is not None:
        weights = np.ascontiguousarray(weights, np.float32)
        weights.tofile(scratch / "weights")
        extra = [scratch / "weights"]
    blocks = quantised(kind, rows, weights)
    values = dequantised(kind, blocks, rows.size)
    wrong = []
    for disable in CPU_PATHS:
        encode = ["encode", kind, columns, *extra]
        if ggml_rows(*encode, data=rows.tobytes(), disable=disable) != blocks:
            wrong.append(f"blocks without {disable}")
        if ggml_rows("decode", kind, columns, data=blocks, disable=disable) != values:
            wrong.append(f"values without {disable}")
    return wrong


@pytest.mark.parametrize("kind", ENCODED)
def test_random_rows_are_quantised_as_ggml_does_it(kind, tmp_path):
    random = np.random.default_rng(7)
    wrong = {}
    for rows_name, rows in random_rows(random).items():
        for weights_name, weights in random_weights(rows.shape[1], random).items():
            if found := differing(kind, rows, weights, tmp_path):
                wrong[rows_name, weights_name] = found
    assert not wrong


@pytest.mark.parametrize("kind", ENCODED)
def test_real_weights_are_quantised_as_ggml_does_it(kind, checkpoints, tmp_path):
    checkpoint = Checkpoint(checkpoints / "gemma3")
    random = np.random.default_rng(8)
    wrong = {}
    for part in ["mlp.down_proj", "self_attn.q_proj"]:
        name = f"model.layers.3.{part}.weight"
        rows = checkpoint[name].float().numpy()[:16]
        columns = rows.shape[1] // 256 * 256
        for weights in [None, random.random(columns) ** 4]:
            if found := differing(kind, rows[:, :columns], weights, tmp_path):
                wrong[name, weights is not None] = found
    assert not wrong


@pytest.mark.parametrize("kind", DECODED)
def test_any_bytes_are_dequantised_as_ggml_does_it(kind):
    elements, size = DECODED[kind]
    random = np.random.default_rng(9)
    columns = 768
    blocks = random.integers(0, 256, 64 * columns // elements * size, np.uint8).tobytes()
    expected = np.frombuffer(dequantised(kind, blocks, 64 * columns), np.float32)
    for disable in CPU_PATHS:
        found = ggml_rows("decode", kind, columns, data=blocks, disable=disable)
        # Which NaN a NaN becomes is nobody's promise.
        np.testing.assert_array_equal(np.frombuffer(found, np.float32), expected)
