"""Views in the schemes of compressed-tensors hold what compressed-tensors makes, and load."""

import json
from pathlib import Path

import pytest
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationConfig
from safetensors.torch import load_file, save_file

import ckptfs
import compressed_definition as definition
from checkpoint import Checkpoint, same_bits

SCHEMES = ["fp8-channel", "int8-channel", "int4", "int4:group=32", "int4:asymmetric", "fp8-block"]
FORMATS = {"fp8": "float-quantized", "int8": "int-quantized", "int4": "pack-quantized"}
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj"]
DTYPES = [torch.bfloat16, torch.float16, torch.float32]


def flags(scheme: str) -> list:
    dialect = ["--dialect", "compressed-tensors"] if scheme == "fp8-block" else []
    return ["--quantize", scheme, *dialect]


def weights(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """One layer for each of several spreads of values, zeros, ties and outliers among them."""
    numbers = torch.Generator().manual_seed(7)

    def normal(*shape):
        return torch.randn(*shape, generator=numbers)

    spreads = [0.02, 1.0, 3e-7, 300.0]
    tensors = {"model.embed_tokens.weight": normal(64, 256)}
    for layer, spread in enumerate(spreads):
        for projection in PROJECTIONS:
            weight = normal(264, 384) * spread
            weight[3] = 0
            weight[5, :128] = 0
            weight[7] = weight[7].abs()
            weight[9, 17] = 40 * spread
            weight[11] = torch.arange(384) % 17 * spread / 2
            tensors[f"model.layers.{layer}.self_attn.{projection}.weight"] = weight
    return {name: tensor.to(dtype) for name, tensor in tensors.items()}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A checkpoint of each dtype, made once."""
    made = {}
    for dtype in DTYPES:
        directory = tmp_path_factory.mktemp("small") / "model"
        directory.mkdir()
        save_file(weights(dtype), directory / "model.safetensors", {"format": "pt"})
        (directory / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": 384}))
        made[dtype] = directory
    return made


def written(base: Path, scheme: str, out: Path) -> Path:
    ckptfs.run("materialize", "--base", base, *flags(scheme), "--out", out)
    ckptfs.run("verify", out)
    return out


def tensors_of(directory: Path) -> dict[str, torch.Tensor]:
    files = sorted(directory.glob("*.safetensors"))
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def differences(view: dict, source: dict, scheme: str) -> list[str]:
    """The names of what is not as compressed-tensors makes it."""
    expected = {}
    for name, tensor in source.items():
        module = name.removesuffix(".weight")
        if module.endswith("_proj"):
            made = definition.quantised(tensor, scheme)
            expected |= {f"{module}.{part}": value for part, value in made.items()}
        else:
            expected[name] = tensor
    assert view.keys() == expected.keys()
    return [name for name, tensor in expected.items() if not same_bits(view[name], tensor)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_codes_and_scales_are_those_of_compressed_tensors_bit_for_bit(
    scheme, dtype, small, tmp_path
):
    view = tensors_of(written(small[dtype], scheme, tmp_path / "out"))
    assert differences(view, weights(dtype), scheme) == []


@pytest.mark.parametrize("scheme", ["fp8-channel", "int8-channel", "int4", "fp8-block"])
def test_a_layer_of_a_real_model_is_quantised_bit_for_bit(scheme, checkpoints, tmp_path):
    out = written(checkpoints / "gemma3", scheme, tmp_path / "out")
    source = tensors_of(checkpoints / "gemma3")
    view, source = (
        {name: tensor for name, tensor in tensors.items() if ".layers.6." in name}
        for tensors in (tensors_of(out), source)
    )
    assert differences(view, source, scheme) == []


@pytest.mark.parametrize("scheme", SCHEMES)
def test_config_is_parsed_and_its_compressor_gives_the_numbers_that_dtype_gives(
    scheme, small, tmp_path
):
    out = written(small[torch.bfloat16], scheme, tmp_path / "out")
    declared = json.loads((out / "config.json").read_text())["quantization_config"]
    config = QuantizationConfig.model_validate(declared)
    [group] = config.config_groups.values()
    preset = definition.arguments(scheme)
    for field in ["num_bits", "type", "strategy", "symmetric", "group_size", "block_structure"]:
        assert getattr(group.weights, field) == getattr(preset, field), field
    assert group.format == config.format == FORMATS[scheme.split("-")[0].split(":")[0]]
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
            if scheme == "fp8-block":
                # Of blocks that are cut off, it takes others than it made.
                rows = parts["weight_scale"].repeat_interleave(128, 0)[:264]
                numbers = parts["weight"].to(torch.bfloat16) * rows.repeat_interleave(128, 1)
            else:
                numbers = compressor.decompress(parts, group)["weight"]
            assert same_bits(back[name], numbers), name


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_dtype_reads_back_as_the_numbers_in_float32(scheme, small, tmp_path):
    out = written(small[torch.float32], scheme, tmp_path / "out")
    ckptfs.run("materialize", "--base", out, "--dtype", "f32", "--out", tmp_path / "back")
    back, view = tensors_of(tmp_path / "back"), tensors_of(out)
    for name, weight in weights(torch.float32).items():
        if name.endswith("_proj.weight"):
            error = (back[name] - weight).abs()
            args = definition.arguments(scheme)
            amax = definition.blocks(weight.abs(), args).amax(-1)
            # Half a step of the largest numbers; codes end half a step before that of integers.
            steps = {"float": 28, "int": 2 ** args.num_bits - 1}[args.type]
            allowed = 1.01 * amax.max() * (1 if args.symmetric else 2) / steps
            assert error.max() <= allowed, name
        else:
            assert same_bits(back[name], weight)
    assert view.keys() >= {"model.embed_tokens.weight"}


def test_columns_that_are_no_groups_stay_by_the_rules_and_are_refused_by_name(tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    names = {f"model.layers.0.mlp.{p}_proj.weight": torch.ones(8, 96) for p in ["up", "gate"]}
    names["model.layers.0.mlp.down_proj.weight"] = torch.ones(96, 128)
    save_file(names, base / "model.safetensors", {"format": "pt"})
    (base / "config.json").write_text("{}")
    plan = ckptfs.run("plan", "--base", base, "--quantize", "int4").stdout
    assert "96 columns are not a multiple of the group of 128" in plan
    written(base, "int4", tmp_path / "out")
    kept = {name for name in tensors_of(tmp_path / "out") if name.endswith(".weight")}
    assert kept == {name for name in names if "down" not in name}
    with pytest.raises(AssertionError, match="it is selected by name, but its 96 columns"):
        ckptfs.run("plan", "--base", base, "--quantize", "int4", "--quantize-pattern", ".*up_proj.*",
                   "--quantize-pattern", ".*gate_proj.*")
