"""`--names` against what transformers itself writes and reads: tiny random models of each family, in both
directions, bit for bit."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import CONFIG_MAPPING, AutoConfig
from transformers.core_model_loading import revert_weight_conversion

import ckptfs
import name_families

# Where save_pretrained, of a model that was not loaded, writes something else than the authors' layout:
# it drops the prefix of vision towers, which it does not know to have been there. What it writes of a model that it
# read from that layout is tested.
READ_FIRST = {
    "llava", "llava_next", "llava_next_video", "llava_onevision", "vipllava", "paligemma", "gemma3",
    "aya_vision",
}
# What it writes even then is not what was read.
NOT_WRITTEN = {"kimi_linear", "deepseek_v4", "kimi_k25", "qwen3_vl_moe"}


def tensors(directory: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for shard in directory.glob("*.safetensors")
            for name, tensor in load_file(shard).items()}


def view(base: Path, *flags) -> Path:
    out = base.parent / f"{base.name}-{flags[-1]}"
    ckptfs.run("materialize", "--base", base, *flags, "--out", out)
    return out


def assert_same(found: Path, expected: Path):
    found, expected = tensors(found), tensors(expected)
    assert found.keys() == expected.keys(), sorted(found.keys() ^ expected.keys())
    for name, tensor in found.items():
        assert tensor.dtype == expected[name].dtype and torch.equal(tensor, expected[name]), name


def loaded(directory: Path, family: type):
    made, info = family.from_pretrained(directory, output_loading_info=True)
    assert not any(info.values()), info
    return made.eval()


def assert_loads_alike(found: Path, expected: Path, family: type) -> None:
    found, expected = loaded(found, family), loaded(expected, family)
    theirs = found.state_dict()
    assert theirs.keys() == expected.state_dict().keys()
    for name, tensor in expected.state_dict().items():
        assert torch.equal(tensor, theirs[name]), name
    assert torch.equal(name_families.logits(found), name_families.logits(expected))


def plan(base: Path, layout: str) -> dict:
    done = ckptfs.run("plan", "--base", base, "--names", layout, "--json")
    return json.loads(done.stdout)


def assert_whole(base: Path, layout: str) -> None:
    """A view in the layout that the base has is the base's files."""
    planned = plan(base, layout)
    assert "no-effect" in [warning["code"] for warning in planned["warnings"]]
    assert all(shard["whole_file"] for shard in planned["shards"])


@pytest.mark.parametrize("model_type", name_families.CONFIGS)
def test_both_layouts_are_those_of_transformers(model_type, tmp_path):
    made = name_families.model(model_type)
    made.save_pretrained(tmp_path / "memory", save_original_format=False)
    made.save_pretrained(tmp_path / "saved")
    memory = tmp_path / "memory"
    assert AutoConfig.from_pretrained(memory).model_type == model_type

    released = view(memory, "--names", "released")
    assert_same(view(released, "--names", "transformers"), memory)
    assert tensors(released).keys() != tensors(memory).keys() or model_type == "qwen3_vl_moe"
    assert_loads_alike(released, memory, type(made))
    if model_type in READ_FIRST:
        # Both are read, and the layout of transformers is made of either.
        assert_same(view(tmp_path / "saved", "--names", "transformers"), memory)
        loaded(released, type(made)).save_pretrained(tmp_path / "again")
        assert_same(released, tmp_path / "again")
    elif model_type in NOT_WRITTEN:
        loaded(released, type(made)).save_pretrained(tmp_path / "again")
        with pytest.raises(AssertionError):
            assert_same(released, tmp_path / "again")
    else:
        assert_same(released, tmp_path / "saved")

    assert_whole(memory, "transformers")
    assert_whole(released, "released")


@pytest.mark.parametrize("model_type", ["mixtral", "qwen3_vl_moe"])
def test_transformers_loads_a_mount_in_either_layout(model_type, tmp_path):
    made = name_families.model(model_type)
    made.save_pretrained(tmp_path / "memory", save_original_format=False)
    released = view(tmp_path / "memory", "--names", "released")
    for base, layout in [(tmp_path / "memory", "released"), (released, "transformers")]:
        flags = ["--base", base, "--names", layout]
        with ckptfs.mounted(flags, tmp_path) as mount:
            assert_loads_alike(mount, tmp_path / "memory", type(made))


PAGE = Path(__file__).resolve().parents[2] / "docs" / "NAMES.md"


def of_the_same_layout() -> list[str]:
    rows = PAGE.read_text().splitlines()
    row = next(row for row in rows if row.startswith("| `") and row.endswith("| the same |"))
    return re.findall(r"`(\w+)`", row)


@pytest.mark.parametrize("model_type", of_the_same_layout())
def test_models_of_one_layout_have_no_other_in_transformers(model_type):
    config = CONFIG_MAPPING[model_type]
    small = {"num_hidden_layers": 2}
    if "text_config" in config.sub_configs:
        small = {"text_config": small}
    settings = {"nemotron": {**small, "num_key_value_heads": 8}, "zamba2": {}}
    with torch.device("meta"):
        made = name_families.auto_model(config(**settings.get(model_type, small)))
    names = made.state_dict()
    assert revert_weight_conversion(made, dict(names)).keys() == names.keys()
