"""Views in one dtype hold what torch makes of the same tensors, and models compute the same."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import ckptfs
import fp8_definition as fp8
import tiny_models
from checkpoint import Checkpoint
from test_moe import EVERY_MODEL_AND_FORM, logits
from test_safetensors import differing_tensors

DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
SCALE_DTYPES = [torch.float32, torch.bfloat16, torch.float8_e8m0fnu]


@pytest.fixture(scope="module", params=EVERY_MODEL_AND_FORM,
                ids=lambda param: f"{param[0].__name__}-{param[1]}")
def quantised(request, tmp_path_factory) -> Path:
    """A saved model in block FP8, as ckptfs writes it."""
    model, form = request.param
    original = tiny_models.save(model, form, tmp_path_factory.mktemp("tiny"))
    directory = tmp_path_factory.mktemp("fp8") / "model"
    ckptfs.run("materialize", "--base", original, "--fp8", "--out", directory)
    return directory


def with_scales(source_dir: Path, dtype: torch.dtype, out: Path) -> Path:
    """A copy whose scales are of another dtype."""
    source = Checkpoint(source_dir)
    tensors = {name: source[name].clone() for name in sorted(source.names())}
    for name in tensors:
        if name.endswith("_scale_inv"):
            tensors[name] = tensors[name].to(dtype)
    return save(tensors, source_dir, out)


def dequantised(source_dir: Path, dtype: torch.dtype, out: Path) -> Path:
    """A copy in which torch has multiplied codes by scales and cast all to `dtype`."""
    source = Checkpoint(source_dir)
    names = {name for name in source.names() if not name.endswith("_scale_inv")}
    tensors = {name: numbers(source, name).to(dtype) for name in sorted(names)}
    copy = save(tensors, source_dir, out)
    config = json.loads((copy / "config.json").read_text())
    assert config.pop("quantization_config")
    (copy / "config.json").write_text(json.dumps(config))
    return copy


def numbers(source: Checkpoint, name: str) -> torch.Tensor:
    if f"{name}_scale_inv" not in source.names():
        return source[name]
    codes, scales = source[name], source[f"{name}_scale_inv"].float()
    if codes.dim() == 3:
        return torch.stack([fp8.dequantise(*matrix) for matrix in zip(codes, scales)])
    return fp8.dequantise(codes, scales)


def save(tensors: dict, source_dir: Path, out: Path) -> Path:
    out.mkdir()
    shutil.copy(source_dir / "config.json", out)
    shard = "model.safetensors"
    save_file(tensors, out / shard, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, shard)}
    (out / f"{shard}.index.json").write_text(json.dumps(index))
    return out


@pytest.mark.parametrize("scales", SCALE_DTYPES, ids=str)
def test_a_dequantised_model_computes_as_what_torch_dequantises(quantised, scales, tmp_path):
    base = with_scales(quantised, scales, tmp_path / "base")
    expected = dequantised(base, torch.bfloat16, tmp_path / "expected")
    assert sum(name.endswith("_scale_inv") for name in Checkpoint(base).names()) >= 8
    with ckptfs.mounted(["--base", base, "--dtype", "bf16"], tmp_path) as path:
        assert differing_tensors(path, expected) == []
        assert torch.equal(logits(path), logits(expected))
        config = json.loads((path / "config.json").read_text())
    assert "quantization_config" not in config
    assert "bfloat16" in (config.get("dtype"), config.get("torch_dtype"))


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dequantised_tensor_equals_torchs(quantised, dtype, tmp_path):
    expected = dequantised(quantised, DTYPES[dtype], tmp_path / "expected")
    with ckptfs.mounted(["--base", quantised, "--dtype", dtype], tmp_path) as path:
        assert differing_tensors(path, expected) == []


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_planted_value_is_rounded_as_torch_rounds_it(dtype, planted_checkpoint, tmp_path):
    source = Checkpoint(planted_checkpoint)
    tensors = {name: source[name].to(DTYPES[dtype]) for name in sorted(source.names())}
    infinite = sum(tensor.isinf().sum().item() for tensor in tensors.values())
    assert (infinite > 0) == (dtype != "f32")
    expected = save(tensors, planted_checkpoint, tmp_path / "expected")
    with ckptfs.mounted(["--base", planted_checkpoint, "--dtype", dtype], tmp_path) as path:
        assert differing_tensors(path, expected) == []
