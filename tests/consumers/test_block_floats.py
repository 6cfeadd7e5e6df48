"""Views in MXFP4, MXFP8 and NVFP4 hold what compressed-tensors, ModelOpt and OpenAI's kernels make, and load."""

import json
from pathlib import Path

import pytest
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationConfig
from safetensors.torch import load_file, save_file

import block_definition as definition
import ckptfs
from checkpoint import same_bits

SCHEMES = [
    (scheme, dialect)
    for scheme in ["mxfp4", "mxfp8", "nvfp4"]
    for dialect in ["compressed-tensors", "modelopt"]
]
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj"]
DTYPES = [torch.bfloat16, torch.float16, torch.float32]


def weights(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """One layer for each of several spreads of values, zeros, ties and outliers among them."""
    numbers = torch.Generator().manual_seed(7)
    tensors = {"model.embed_tokens.weight": torch.randn(64, 256, generator=numbers)}
    for layer, spread in enumerate([0.02, 1.0, 3e-7, 300.0]):
        for projection in PROJECTIONS:
            weight = torch.randn(96, 384, generator=numbers) * spread
            weight[3] = 0
            weight[4] = -0.0
            weight[5, :128] = 0
            weight[9, 17] = 40 * spread
            # Multiples of a quarter and a half of a power of two: ties of every code.
            weight[11] = (torch.arange(384) % 29 - 14) / 4
            weight[12] = (torch.arange(384) % 57 - 28) / 4
            weight[13] = (torch.arange(384) % 49 - 24) / 4
            tensors[f"model.layers.{layer}.self_attn.{projection}.weight"] = weight
    return {name: tensor.to(dtype) for name, tensor in tensors.items()}


def write(directory: Path, tensors: dict, config: dict) -> Path:
    directory.mkdir()
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    (directory / "config.json").write_text(json.dumps(config))
    return directory


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A checkpoint of each dtype, made once."""
    config = {"model_type": "llama", "hidden_size": 384}
    at = tmp_path_factory.mktemp("small")
    return {dtype: write(at / str(dtype), weights(dtype), config) for dtype in DTYPES}


def written(base: Path, scheme: str, dialect: str, out: Path) -> Path:
    ckptfs.run(
        "materialize", "--base", base, "--quantize", scheme, "--dialect", dialect, "--out", out
    )
    ckptfs.run("verify", out)
    return out


def tensors_of(directory: Path) -> dict[str, torch.Tensor]:
    files = sorted(directory.glob("*.safetensors"))
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def differences(view: dict, source: dict, scheme: str, dialect: str) -> list[str]:
    """The names of what is not as its own quantiser makes it."""
    largest: dict[str, float] = {}

    def shared(name: str) -> str:
        kinds = {"q": "qkv", "k": "qkv", "v": "qkv", "gate": "gate_up", "up": "gate_up"}
        parent, module = name.removesuffix(".weight").rsplit(".", 1)
        return f"{parent}.{kinds.get(module.removesuffix('_proj'), module)}"

    quantised = {name for name in source if name.endswith("_proj.weight")}
    for name in quantised:
        amax = source[name].float().abs().max().item()
        largest[shared(name)] = max(largest.get(shared(name), 0.0), amax)
    expected = {}
    for name, tensor in source.items():
        if name in quantised:
            made = definition.quantised(tensor, scheme, dialect, largest[shared(name)])
            module = name.removesuffix(".weight")
            expected |= {f"{module}.{part}": value for part, value in made.items()}
        else:
            expected[name] = tensor
    assert view.keys() == expected.keys()
    return [name for name, tensor in expected.items() if not same_bits(view[name], tensor)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scheme, dialect", SCHEMES)
def test_codes_and_scales_are_those_of_the_dialect_bit_for_bit(
    scheme, dialect, dtype, small, tmp_path
):
    view = tensors_of(written(small[dtype], scheme, dialect, tmp_path / "out"))
    assert differences(view, weights(dtype), scheme, dialect) == []


@pytest.mark.parametrize("scheme, dialect", SCHEMES)
def test_a_layer_of_a_real_model_is_quantised_bit_for_bit(scheme, dialect, checkpoints, tmp_path):
    out = written(checkpoints / "gemma3", scheme, dialect, tmp_path / "out")
    view, source = (
        {name: tensor for name, tensor in tensors.items() if ".layers.6." in name}
        for tensors in (tensors_of(out), tensors_of(checkpoints / "gemma3"))
    )
    assert differences(view, source, scheme, dialect) == []


@pytest.mark.parametrize("scheme", ["mxfp4", "mxfp8", "nvfp4"])
def test_compressed_tensors_reads_the_declaration_and_gives_the_numbers_that_dtype_gives(
    scheme, small, tmp_path
):
    out = written(small[torch.bfloat16], scheme, "compressed-tensors", tmp_path / "out")
    declared = json.loads((out / "config.json").read_text())["quantization_config"]
    config = QuantizationConfig.model_validate(declared)
    [group] = config.config_groups.values()
    preset = definition.preset_name_to_scheme(definition.PRESETS[scheme], ["Linear"])
    for field in ["num_bits", "type", "strategy", "symmetric", "group_size", "scale_dtype"]:
        assert getattr(group.weights, field) == getattr(preset.weights, field), field
    assert (group.input_activations is None) == (preset.input_activations is None)
    assert set(config.ignore) == {"model.embed_tokens", "lm_head"}
    ckptfs.run("materialize", "--base", out, "--dtype", "bf16", "--out", tmp_path / "back")
    back, view = tensors_of(tmp_path / "back"), tensors_of(out)
    assert back.keys() == weights(torch.bfloat16).keys()
    assert "quantization_config" not in json.loads((tmp_path / "back" / "config.json").read_text())
    compressor = BaseCompressor.get_value_from_registry(group.format)
    for name in back:
        module = name.removesuffix("weight")
        if module.endswith("_proj."):
            parts = {key.removeprefix(module): view[key] for key in view if key.startswith(module)}
            numbers = compressor.decompress(parts, group)["weight"].to(torch.bfloat16)
            assert torch.equal(back[name], numbers), name


def test_experts_of_gpt_oss_are_those_of_its_kernels_and_transformers_gives_their_numbers(tmp_path):
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    numbers = torch.Generator().manual_seed(3)
    experts = "model.layers.0.mlp.experts"
    source = {
        f"{experts}.gate_up_proj": torch.randn(3, 64, 96, generator=numbers).bfloat16(),
        f"{experts}.down_proj": torch.randn(3, 32, 64, generator=numbers).bfloat16(),
        f"{experts}.gate_up_proj_bias": torch.randn(3, 96, generator=numbers).bfloat16(),
    }
    source[f"{experts}.down_proj"][1, :, 5] = (torch.arange(32) - 14) / 4
    base = write(tmp_path / "base", source, {"model_type": "gpt_oss", "hidden_size": 64})
    view = tensors_of(written(base, "mxfp4", "gpt-oss", tmp_path / "out"))
    ckptfs.run("materialize", "--base", tmp_path / "out", "--dtype", "bf16", "--out", tmp_path / "back")
    back = tensors_of(tmp_path / "back")
    assert back.keys() == source.keys()
    for projection in ["gate_up_proj", "down_proj"]:
        name = f"{experts}.{projection}"
        blocks, scales = definition.of_gpt_oss(source[name])
        assert torch.equal(view[f"{name}_blocks"].flatten(-2), blocks.flatten(-2)), name
        assert torch.equal(view[f"{name}_scales"], scales), name
        dequantised = convert_moe_packed_tensors(view[f"{name}_blocks"], view[f"{name}_scales"])
        assert torch.equal(back[name], dequantised), name


VLLM_CONFIGS = {
    ("mxfp4", "compressed-tensors"): "compressed-tensors",
    ("mxfp8", "compressed-tensors"): "compressed-tensors",
    ("nvfp4", "compressed-tensors"): "compressed-tensors",
    ("mxfp8", "modelopt"): "modelopt_mxfp8",
    ("nvfp4", "modelopt"): "modelopt_fp4",
}


@pytest.mark.parametrize("scheme, dialect", VLLM_CONFIGS)
def test_vllm_parses_the_declaration(scheme, dialect, small, tmp_path):
    from vllm.model_executor.layers.quantization import get_quantization_config
    from vllm.model_executor.layers.quantization.modelopt import (
        ModelOptMxFp8Config,
        ModelOptNvFp4Config,
    )

    out = written(small[torch.bfloat16], scheme, dialect, tmp_path / "out")
    declared = json.loads((out / "config.json").read_text())["quantization_config"]
    expected = VLLM_CONFIGS[scheme, dialect]
    if dialect == "modelopt":
        methods = [
            config.override_quantization_method(declared, None)
            for config in (ModelOptNvFp4Config, ModelOptMxFp8Config)
        ]
        assert expected in methods
    config = get_quantization_config(expected).from_config(declared)
    assert config.get_name() == expected
    if dialect == "compressed-tensors":
        [weights] = {id(group["weights"]): group["weights"] for group in config.target_scheme_map.values()}.values()
        checks = {"mxfp4": config._is_mxfp4, "mxfp8": config._is_mxfp8, "nvfp4": config._is_nvfp4_format}
        assert [name for name, check in checks.items() if check(weights)] == [scheme]
