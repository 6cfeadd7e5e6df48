"""Mixtures of experts through transformers: FP8, and experts in either form."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

import ckptfs
import fp8_definition as fp8
import tiny_models
from checkpoint import Checkpoint
from test_safetensors import differing_tensors

OTHER_FORM = {"per-expert": "--fuse-experts", "fused": "--unfuse-experts"}
# Where there is no GPU, transformers dequantises weights whose name ends in `.weight`, and so
# experts only one by one.
FP8 = {"per-expert": ["--fp8"], "fused": ["--fp8", "--unfuse-experts"]}
# What rounding to three bits of mantissa changes in a weight at most, as a share of it.
LARGEST_ERROR = 2**-4
EVERY_MODEL_AND_FORM = [(model, form) for model in tiny_models.MODELS for form in tiny_models.FORMS]


@pytest.fixture(scope="module", params=EVERY_MODEL_AND_FORM,
                ids=lambda param: f"{param[0].__name__}-{param[1]}")
def original(request, tmp_path_factory):
    """Directory and form of a saved model, the same weights in both forms."""
    model, form = request.param
    return tiny_models.save(model, form, tmp_path_factory.mktemp("tiny")), form


def logits(directory: Path) -> torch.Tensor:
    """Of a fixed text; every tensor must have found its place in the model."""
    model, info = AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.bfloat16, output_loading_info=True
    )
    assert not any(info.values()), info
    text = torch.randint(
        tiny_models.VOCABULARY, (2, 48), generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        return model.eval()(text).logits.float()


def saved_with_other_weights(source_dir: Path, change, out: Path) -> Path:
    """A copy in which `change` has been made to every matrix that FP8 is for."""
    source = Checkpoint(source_dir)
    tensors = {name: source[name].clone() for name in sorted(source.names())}
    for name in filter(fp8.is_quantised, tensors):
        matrices = tensors[name].view(-1, *tensors[name].shape[-2:])
        for matrix in matrices:
            matrix.copy_(change(matrix))
    out.mkdir()
    shutil.copy(source_dir / "config.json", out)
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    return out


def rounded_to_fp8(matrix: torch.Tensor) -> torch.Tensor:
    return fp8.dequantise(*fp8.quantise(matrix, "ue8m0"))


def disturbed_at_random(matrix: torch.Tensor) -> torch.Tensor:
    signs = torch.randint(2, matrix.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return matrix * (1 + signs * LARGEST_ERROR)


def test_the_forms_differ_on_disk_as_their_names_say(original):
    directory, form = original
    experts = [name for name in Checkpoint(directory).names() if ".experts." in name]
    layers = tiny_models.SHAPE["num_hidden_layers"]
    assert len(experts) == layers * (3 * tiny_models.EXPERTS if form == "per-expert" else 2)


def test_experts_shown_in_the_other_form_give_the_same_logits(original, tmp_path):
    directory, form = original
    with ckptfs.mounted(["--base", directory, OTHER_FORM[form]], tmp_path) as path:
        assert Checkpoint(path).names() != Checkpoint(directory).names()
        assert torch.equal(logits(path), logits(directory))


def test_fp8_computes_with_exactly_the_weights_of_the_definition(original, tmp_path):
    directory, form = original
    rounded = saved_with_other_weights(directory, rounded_to_fp8, tmp_path / "rounded")
    view = ["--base", directory, *FP8[form]]
    ckptfs.run("materialize", *view, "--out", tmp_path / "written")
    with ckptfs.mounted(view, tmp_path) as path:
        from_view = logits(path)
    assert torch.equal(from_view, logits(tmp_path / "written"))
    assert torch.equal(from_view, logits(rounded))


def test_fp8_disturbs_logits_less_than_errors_of_its_largest_size_in_every_weight(
    original, tmp_path
):
    directory, form = original
    disturbed = saved_with_other_weights(directory, disturbed_at_random, tmp_path / "disturbed")
    expected = logits(directory)
    with ckptfs.mounted(["--base", directory, *FP8[form]], tmp_path) as path:
        error = (logits(path) - expected).norm()
    assert 0 < error < (logits(disturbed) - expected).norm()


def test_fp8_of_fused_experts_is_that_of_the_single_ones(original, tmp_path):
    """Blocks begin anew at each expert, so that it does not matter which was done first."""
    directory, form = original
    for name, flags in (("as they are", []), ("changed", [OTHER_FORM[form]])):
        ckptfs.run("materialize", "--base", directory, "--fp8", *flags, "--out", tmp_path / name)
    again = ["--base", tmp_path / "changed", OTHER_FORM[other(form)]]
    with ckptfs.mounted(again, tmp_path) as path:
        assert differing_tensors(path, tmp_path / "as they are") == []


def other(form: str) -> str:
    return next(name for name in tiny_models.FORMS if name != form)


def test_the_skip_list_names_routers_and_small_projections_by_full_path(original, tmp_path):
    directory, _ = original
    with ckptfs.mounted(["--base", directory, "--fp8"], tmp_path) as path:
        config = json.loads((path / "config.json").read_text())
    listed = set(config["quantization_config"]["modules_to_not_convert"])
    assert {"model.layers.0.mlp.gate", "model.layers.1.mlp.gate", "lm_head"} <= listed
    hybrid = "layer_types" in config and "linear_attention" in config["layer_types"]
    small = {f"model.layers.0.linear_attn.in_proj_{part}" for part in "ab"}
    assert small <= listed if hybrid else not small & listed
    assert not any("experts." in name for name in listed)
