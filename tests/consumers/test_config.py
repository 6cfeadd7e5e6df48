"""config.json of an FP8 view tells every reader which tensors are FP8, and how."""

import json

import pytest

import fp8_definition as fp8
from checkpoint import Checkpoint
from views import gemma_fp8, gemma_fp8_float32, patched_fp8

COMMON = {
    "quant_method": "fp8",
    "activation_scheme": "dynamic",
    "fmt": "e4m3",
    "weight_block_size": [128, 128],
}


def check(view_dir, source_dir, scale_fmt: dict) -> None:
    config = json.loads((view_dir / "config.json").read_text())
    quantization = config.pop("quantization_config")
    source = json.loads((source_dir / "config.json").read_text())
    assert list(config.items()) == list(source.items()), "other keys or their order changed"

    not_converted = quantization.pop("modules_to_not_convert")
    assert quantization == COMMON | scale_fmt
    assert len(not_converted) == len(set(not_converted))
    assert set(not_converted) == unquantised_modules(Checkpoint(source_dir))


def unquantised_modules(source: Checkpoint) -> set[str]:
    """Modules with a weight of two dimensions that stays as it is; the head also when tied."""
    return {"lm_head"} | {
        name.removesuffix(".weight") for name in source.names()
        if name.endswith(".weight") and not fp8.is_quantised(name) and source[name].dim() >= 2
    }


@pytest.mark.parametrize("view, source, scale_fmt", [
    (gemma_fp8, "gemma3", {"scale_fmt": "ue8m0"}),
    (gemma_fp8_float32, "gemma3", {}),
    (patched_fp8, "smollm2", {"scale_fmt": "ue8m0"}),
])
def test_quantization_config_says_what_the_view_holds(view, source, scale_fmt, mount, checkpoints):
    with mount(view) as path:
        check(path, checkpoints / source, scale_fmt)


def test_routers_embeddings_and_heads_are_listed_and_biases_are_not(
    mount_planted, planted_checkpoint
):
    assert unquantised_modules(Checkpoint(planted_checkpoint)) == {
        "lm_head", "model.embed_tokens", "model.layers.0.mlp.gate",
        "model.layers.0.mlp.shared_expert_gate",
    }
    with mount_planted() as path:
        check(path, planted_checkpoint, {"scale_fmt": "ue8m0"})
