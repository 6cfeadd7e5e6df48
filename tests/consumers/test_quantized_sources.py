"""Checkpoints that other tools quantized, given back as numbers, are what these tools' own code gives."""

import importlib.util
import json
import sys
from pathlib import Path

import bitsandbytes.functional as functional
import pytest
import torch
from safetensors.torch import load_file, save_file

import ckptfs
import gptq_definition
from checkpoint import same_bits

DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
NAME = "model.layers.0.mlp.up_proj"


def package_file(package: str, path: str):
    """A module of an installed package, without what the package imports besides."""
    root = Path(importlib.util.find_spec(package).submodule_search_locations[0])
    spec = importlib.util.spec_from_file_location(f"{package}_{Path(path).stem}", root / path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def save(directory: Path, tensors: dict, quantization: dict) -> Path:
    directory.mkdir()
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    config = {"model_type": "llama", "hidden_size": 256, "quantization_config": quantization}
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def read(base: Path, dtype: str) -> dict[str, torch.Tensor]:
    out = base.parent / f"{base.name}-{dtype}"
    ckptfs.run("materialize", "--base", base, "--dtype", dtype, "--out", out)
    ckptfs.run("verify", base)
    assert "quantization_config" not in json.loads((out / "config.json").read_text())
    return {k: v for f in sorted(out.glob("*.safetensors")) for k, v in load_file(f).items()}


def integers(shape: tuple, levels: int, seed: int) -> torch.Tensor:
    numbers = torch.Generator().manual_seed(seed)
    return torch.randint(0, levels, shape, generator=numbers, dtype=torch.int32)


def words(shape: tuple, seed: int) -> torch.Tensor:
    numbers = torch.Generator().manual_seed(seed)
    return torch.randint(-(2**31), 2**31 - 1, shape, generator=numbers).to(torch.int32)


def scales(shape: tuple, seed: int) -> torch.Tensor:
    numbers = torch.Generator().manual_seed(seed)
    return (torch.rand(shape, generator=numbers) * 0.02 + 1e-3).half()


@pytest.mark.parametrize("group", [32, 128, -1])
def test_awq_is_what_autoawq_dequantizes(group, tmp_path):
    packing = package_file("awq", "utils/packing_utils.py")
    rows, columns = 96, 256
    size = columns if group == -1 else group
    parts = {
        "qweight": words((columns, rows // 8), 1),
        "qzeros": words((columns // size, rows // 8), 2),
        "scales": scales((columns // size, rows), 3),
    }
    declared = {"quant_method": "awq", "bits": 4, "group_size": group, "version": "gemm"}
    base = save(tmp_path / "awq", {f"{NAME}.{k}": v for k, v in parts.items()}, declared)
    exact = packing.dequantize_gemm(
        parts["qweight"], parts["qzeros"], parts["scales"].float(), 4, size
    )
    # Of F16, the package's own multiplication rounds once as well.
    half = packing.dequantize_gemm(parts["qweight"], parts["qzeros"], parts["scales"], 4, size)
    assert same_bits(half, exact.half())
    for name, dtype in DTYPES.items():
        found = read(base, name)
        assert found.keys() == {f"{NAME}.weight"}
        assert same_bits(found[f"{NAME}.weight"], exact.T.to(dtype).contiguous()), name


@pytest.mark.parametrize("version", ["gptq", "gptq_v2"])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_gptq_is_what_its_formulas_give(bits, version, tmp_path):
    rows, columns, group = 96, 256, 64
    codes = integers((columns, rows), 2**bits, bits)
    zero_points = integers((columns // group, rows), 2**bits - 1, bits + 10) + 1
    of_group = scales((columns // group, rows), bits + 20)
    order = torch.randperm(columns, generator=torch.Generator().manual_seed(bits))
    index = (torch.arange(columns, dtype=torch.int32) // group)[order]
    stored = zero_points - int(version == "gptq")
    tensors = {
        "qweight": gptq_definition.packed_down(codes, bits),
        "qzeros": gptq_definition.packed_down(stored.T, bits).T,
        "scales": of_group,
        "g_idx": index,
    }
    declared = {
        "quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": True,
        "checkpoint_format": version,
    }
    base = save(tmp_path / "gptq", {f"{NAME}.{k}": v for k, v in tensors.items()}, declared)
    groups = index.long()
    exact = of_group.float()[groups] * (codes - zero_points[groups])
    for name, dtype in DTYPES.items():
        found = read(base, name)
        assert found.keys() == {f"{NAME}.weight"}
        assert same_bits(found[f"{NAME}.weight"], exact.T.to(dtype).contiguous()), name


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_four_bits_are_what_bitsandbytes_dequantizes(kind, nested, tmp_path):
    weight = torch.randn(96, 256, generator=torch.Generator().manual_seed(5)) * 0.02
    codes, state = functional.quantize_4bit(
        weight.to(torch.bfloat16), quant_type=kind, compress_statistics=nested
    )
    parts = state.as_dict(packed=True)
    tensors = {f"{NAME}.weight": codes} | {f"{NAME}.weight.{k}": v for k, v in parts.items()}
    declared = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": kind}
    base = save(tmp_path / "bnb", tensors, declared)
    state.dtype = torch.float32
    exact = functional.dequantize_4bit(codes, state)
    for name, dtype in DTYPES.items():
        found = read(base, name)
        assert found.keys() == {f"{NAME}.weight"}
        numbers = found[f"{NAME}.weight"]
        # A zero of FP4 may have another sign than the package gives it.
        same = same_bits if kind == "nf4" else torch.equal
        assert numbers.dtype == dtype and same(numbers, exact.to(dtype)), name


def test_eight_bits_are_what_bitsandbytes_dequantizes(tmp_path):
    weight = torch.randn(96, 256, generator=torch.Generator().manual_seed(6)).half()
    codes, of_rows, _ = functional.int8_vectorwise_quant(weight)
    tensors = {
        f"{NAME}.weight": codes,
        f"{NAME}.SCB": of_rows.float(),
        f"{NAME}.weight_format": torch.tensor(0, dtype=torch.uint8),
    }
    declared = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    base = save(tmp_path / "bnb", tensors, declared)
    exact = functional.int8_vectorwise_dequant(codes, of_rows.float())
    for name, dtype in DTYPES.items():
        assert same_bits(read(base, name)[f"{NAME}.weight"], exact.to(dtype)), name
