"""Tensors of views against safetensors' own reading of a copy that the program wrote."""

import json
import random

import numpy
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import ckptfs
from ckptfs._lazy import LazyTensor

SHARD = "model.safetensors"


def assert_equal(mine: torch.Tensor, theirs: torch.Tensor, name: object = None) -> None:
    assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape), name
    # Bytes: torch does not compare all dtypes, and NaN is not NaN.
    assert torch.equal(as_bytes(mine), as_bytes(theirs)), name


def as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.reshape(-1).clone(memory_format=torch.contiguous_format).view(torch.uint8)


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("threads", [None, 1, 7])
def test_all_tensors_are_those_of_a_copy(fp8, copy, mmap, threads):
    expected = load_file(copy / SHARD)
    state = ckptfs.load_state_dict(fp8, mmap=mmap, threads=threads)
    assert state.keys() == expected.keys()
    for name, tensor in state.items():
        assert_equal(tensor, expected[name], name)
    assert any(tensor.dtype == torch.float8_e4m3fn for tensor in state.values())


def test_a_shard_is_what_safe_open_says(fp8, copy):
    with safe_open(copy / SHARD, "pt") as theirs, fp8.safe_open(SHARD) as mine:
        assert mine.keys() == theirs.keys()
        assert mine.offset_keys() == theirs.offset_keys()
        assert mine.metadata() == theirs.metadata()
        for name in theirs.keys():
            assert_equal(mine.get_tensor(name), theirs.get_tensor(name), name)
            assert mine.get_slice(name).get_shape() == theirs.get_slice(name).get_shape()
            assert mine.get_slice(name).get_dtype() == theirs.get_slice(name).get_dtype()
    with pytest.raises(FileNotFoundError):
        fp8.safe_open("other.safetensors")
    with pytest.raises(ckptfs.Error) as caught:
        mine.get_tensor("other")
    assert (caught.value.code, caught.value.tensor) == ("not-found", "other")


DTYPES = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.uint32, torch.int64,
          torch.uint64, torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64,
          torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e8m0fnu]


@pytest.fixture(scope="session")
def zoo(tmp_path_factory):
    """A checkpoint with a tensor of each dtype, some empty and some without dimensions."""
    directory = tmp_path_factory.mktemp("zoo")
    generator = torch.Generator().manual_seed(3)
    tensors = {}
    for dtype in DTYPES:
        bytes_of = torch.randint(0, 2 if dtype == torch.bool else 256, (3 * 8 * dtype.itemsize,),
                                 dtype=torch.uint8, generator=generator)
        tensors[str(dtype)] = bytes_of.view(dtype).view(3, 8)
    tensors["empty"] = torch.empty(0, 4)
    tensors["scalar"] = torch.tensor(7.5)
    save_file(tensors, directory / SHARD, metadata={"format": "pt"})
    (directory / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return directory


@pytest.mark.parametrize("mmap", [True, False])
def test_every_dtype_is_read(zoo, mmap):
    state = ckptfs.load_state_dict(ckptfs.View(zoo), mmap=mmap)
    for name, tensor in load_file(zoo / SHARD).items():
        assert_equal(state[name], tensor, name)


@pytest.mark.parametrize("mmap", [True, False])
def test_arrays_of_numpy_have_the_same_bytes(zoo, mmap):
    expected = load_file(zoo / SHARD)
    names = [name for name, tensor in expected.items() if "float8" not in name and "bfloat" not in name]
    arrays = ckptfs.View(zoo).tensors("np", mmap=mmap).load(names)
    for name in names:
        theirs = expected[name].numpy()
        assert (arrays[name].dtype, arrays[name].shape) == (theirs.dtype, theirs.shape)
        assert arrays[name].tobytes() == theirs.tobytes(), name


def test_what_is_written_to_a_tensor_does_not_reach_the_source(base):
    before = (base / SHARD).read_bytes()
    name = "model.norm.weight"
    tensors = ckptfs.View(base).tensors()
    tensors.get_tensor(name).zero_()
    assert (base / SHARD).read_bytes() == before
    array = ckptfs.View(base, dtype="f32").tensors("np").get_tensor(name)
    array[:] = 0
    assert isinstance(array, numpy.ndarray)
    assert (base / SHARD).read_bytes() == before


def test_a_source_that_changed_is_an_error(base, tmp_path):
    import shutil

    directory = tmp_path / "base"
    shutil.copytree(base, directory)
    for view in [ckptfs.View(directory), ckptfs.View(directory, fp8=True)]:
        content = (directory / SHARD).read_bytes()
        (directory / SHARD).write_bytes(content[:-2] + b"\0\1")
        with pytest.raises(ckptfs.Error) as caught:
            ckptfs.load_state_dict(view)
        assert caught.value.code == "source-changed"
        assert caught.value.file == str(directory / SHARD)


INDICES = [
    (...,), (0,), (-1,), (slice(None),), (slice(1, 3),), (slice(None), slice(5, 9)), (slice(None), 4), (2, 3),
    (slice(-3, None), slice(None, -250)), (slice(200, 100),), (slice(5, 5), slice(1, 2)), (..., slice(1, 3)), (0, ...),
]


@pytest.mark.parametrize("name", ["model.layers.0.self_attn.q_proj.weight", "model.embed_tokens.weight",
                                  "model.layers.0.mlp.down_proj.weight", "model.norm.weight"])
def test_a_slice_is_that_of_the_tensor(fp8, copy, name):
    expected = load_file(copy / SHARD)[name]
    part = fp8.safe_open(SHARD).get_slice(name)
    for index in INDICES:
        if len([item for item in index if item is not ...]) <= expected.dim():
            index = index[0] if len(index) == 1 else index
            assert_equal(part[index], expected[index], index)


def test_random_slices_of_three_dimensions_are_those_of_the_tensor(tmp_path):
    expected = torch.arange(7 * 300 * 40, dtype=torch.int32).view(7, 300, 40)
    save_file({"t": expected}, tmp_path / SHARD, metadata={"format": "pt"})
    (tmp_path / "config.json").write_text("{}")
    part = ckptfs.View(tmp_path).tensors(mmap=False).get_slice("t")
    generator = random.Random(1)

    def index(length: int):
        a, b = sorted(generator.choices(range(length + 1), k=2))
        return generator.choice([slice(a, b), slice(a, b, 2), slice(None), generator.randrange(-length, length)])

    for _ in range(300):
        wanted = tuple(index(length) for length in expected.shape[:generator.randint(1, 3)])
        assert_equal(part[wanted], expected[wanted], wanted)
    assert_equal(part[None, 1:2], expected[None, 1:2])


@pytest.mark.parametrize("index, error", [(300, IndexError), ((0, 0, 0), IndexError), ((..., ...), IndexError),
                                          (slice(None, None, -1), ValueError), ("a", TypeError), ([0, 1], TypeError)],
                         ids=str)
def test_an_index_that_there_is_not_is_an_error(fp8, index, error):
    with pytest.raises(error):
        fp8.safe_open(SHARD).get_slice("model.embed_tokens.weight")[index]


def test_columns_of_a_stored_tensor_are_all_that_is_read(tmp_path):
    rows, columns = 2000, 8192
    save_file({"t": torch.zeros(rows, columns, dtype=torch.uint8)}, tmp_path / SHARD, metadata={"format": "pt"})
    (tmp_path / "config.json").write_text("{}")
    part = ckptfs.View(tmp_path).tensors(mmap=False).get_slice("t")

    def read() -> int:
        with open("/proc/self/io") as file:
            return int(next(line for line in file if line.startswith("rchar")).split()[1])

    before = read()
    part[:, 100:116]
    assert rows * 16 <= read() - before < rows * columns // 10


def test_lazy_tensors_are_read_as_they_are_used(fp8, copy):
    expected = load_file(copy / SHARD)
    tensors = fp8.tensors()
    for name, theirs in expected.items():
        lazy = LazyTensor(tensors.get_slice(name))
        assert (lazy.shape, lazy.dtype, lazy.device) == (theirs.shape, theirs.dtype, theirs.device)
        target = torch.empty_like(theirs)
        target.copy_(lazy)
        assert_equal(target, theirs, name)
        half = theirs.shape[-1] // 2
        part = lazy.narrow(-1, half, theirs.shape[-1] - half)
        assert isinstance(part, LazyTensor)
        assert_equal(part.clone(), theirs.narrow(-1, half, theirs.shape[-1] - half), name)
        assert_equal(lazy[1:][:1].clone(), theirs[1:][:1], name)
        assert_equal(lazy.to(torch.float32).t() if theirs.dim() == 2 else lazy.float(),
                     theirs.to(torch.float32).t() if theirs.dim() == 2 else theirs.float(), name)
