"""A view in one file, as `save_pretrained` writes small models, is read without an index."""

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

import ckptfs
from checkpoint import Checkpoint


@pytest.fixture
def directory(checkpoints, tmp_path):
    flags = ["--base", checkpoints / "smollm2-base", "--extra", checkpoints / "smollm2-extra"]
    with ckptfs.mounted([*flags, "--single-file"], tmp_path) as path:
        yield path


@pytest.fixture
def original(checkpoints):
    return checkpoints / "smollm2"


def test_it_has_the_tensors_of_the_original(directory, original):
    assert [file.name for file in directory.glob("model*")] == ["model.safetensors"]
    expected = Checkpoint(original)
    with safe_open(directory / "model.safetensors", "pt") as file:
        assert set(file.keys()) == expected.names()
        for name in file.keys():
            assert torch.equal(file.get_tensor(name), expected[name]), name


def test_transformers_loads_it_as_the_original(directory, original):
    loaded, expected = (
        AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16).state_dict()
        for path in (directory, original)
    )
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], expected[name]) for name in loaded)
