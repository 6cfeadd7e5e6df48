"""Official FP8 rules on models that transformers saves, and what vLLM takes such views for."""

import json
import math
import re
from pathlib import Path

import pytest
import torch

import ckptfs
from checkpoint import Checkpoint
from fp8_families import FAMILIES, save
from vllm_engines import Engines

# What no release quantises of the matrices inside of layers.
KEPT = {
    "gate", "shared_expert_gate", "conv1d", "in_proj_a", "in_proj_b", "in_proj_ba", "weights_proj",
}
# What vLLM 0.32 cannot make on the CPU, or without torchvision, which no other test needs.
NOT_HERE = {
    "deepseek_v32": "sparse attention",
    "glm_moe_dsa": "sparse attention",
    "nemotron_h, sparse": "experts without a gate",
    "qwen3_5_text": "torchvision",
    "qwen3_5_moe_text": "torchvision",
}


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    """The official FP8 view of a model of a family, on disk."""
    made = {}

    def view(family: str) -> Path:
        if family not in made:
            directory = tmp_path_factory.mktemp("family")
            made[family] = directory / "fp8"
            base = save(family, directory / "bf16")
            rules = ["--fp8-rules", "official"]
            ckptfs.run("materialize", "--base", base, *rules, "--out", made[family])
        return made[family]

    return view


@pytest.fixture(scope="module")
def engines():
    with Engines() as engines:
        yield engines


def quantised(view: Checkpoint) -> set[str]:
    return {name for name in view.names() if view[name].dtype == torch.float8_e4m3fn}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_matrix_of_the_layers_is_quantised_but_those_that_releases_keep(family, views):
    view = Checkpoint(views(family))
    matrices = {
        name for name in view.names()
        if re.search(r"(^|\.)layers\.\d+\.", name) and name.endswith(".weight")
        and view[name].dim() > 1
    }
    assert quantised(view) == {name for name in matrices if name.split(".")[-2] not in KEPT}
    assert quantised(view)
    declared = json.loads((views(family) / "config.json").read_text())["quantization_config"]
    listed = set(declared["modules_to_not_convert"])
    assert {name.removesuffix(".weight") for name in matrices - quantised(view)} <= listed
    assert not {name.removesuffix(".weight") for name in quantised(view)} & listed


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in NOT_HERE])
def test_vllm_takes_as_many_numbers_for_fp8_as_the_view_quantises(family, views, engines):
    made = engines.load(views(family))
    assert "error" not in made, made["error"]
    view = Checkpoint(views(family))
    # A name that vLLM did not expect is an error above; what it expected and did not get is here.
    assert made["missing"] == []
    assert made["fp8"] == sum(math.prod(view[name].shape) for name in quantised(view))


@pytest.mark.parametrize("family", NOT_HERE)
def test_what_vllm_cannot_make_here_is_still_so(family, views, engines):
    """If this vLLM can, the family belongs to those above."""
    assert "error" in engines.load(views(family))
