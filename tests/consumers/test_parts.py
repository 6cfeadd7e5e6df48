"""Parts of a model taken out as a model of their own, and put back, as docs/RECIPES.md says."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    SiglipVisionConfig,
)

import ckptfs
import mtp_models
from checkpoint import Checkpoint, same_bits
from vllm_engines import Engines

TEXT_ONLY = [
    "--rename", r"^language_model\.=", "--only", r"model\..*",
    "--promote", "text_config", "--keep", "dtype", "--set", 'architectures=["Gemma3ForCausalLM"]',
]  # fmt: skip
# What a draft model of each family is made of. LAYERS, the number of the first layer that
# num_hidden_layers does not count, is 61 in DeepSeek-V3.
NEXTN = rf"model\.layers\.{mtp_models.LAYERS}\..*"
DRAFTS = {
    "deepseek_v3": NEXTN,
    "glm4_moe": NEXTN,
    "qwen3_next": r"mtp\..*|model\.embed_tokens\..*|lm_head\..*",
}
FORMS = {"bf16": [], "fp8": ["--fp8-rules", "official"]}
IDS = torch.arange(1, 33)[None]


@pytest.fixture(scope="module")
def vision_language(tmp_path_factory):
    """A small random Gemma 3 that sees."""
    text = Gemma3TextConfig(
        vocab_size=256, hidden_size=64, intermediate_size=128, num_hidden_layers=2, head_dim=16,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
    )  # fmt: skip
    vision = SiglipVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        image_size=28, patch_size=14,
    )  # fmt: skip
    config = Gemma3Config(
        text_config=text.to_dict(), vision_config=vision.to_dict(), mm_tokens_per_image=1
    )
    directory = tmp_path_factory.mktemp("parts") / "base"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Gemma3ForConditionalGeneration(config).to(torch.bfloat16)
    model.save_pretrained(directory)
    return directory


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def test_the_language_part_of_a_vision_language_model_is_a_model(vision_language, tmp_path):
    whole = Gemma3ForConditionalGeneration.from_pretrained(vision_language)
    with ckptfs.mounted(["--base", vision_language, *TEXT_ONLY], tmp_path) as mount:
        text = AutoModelForCausalLM.from_pretrained(mount)
        assert type(text).__name__ == "Gemma3ForCausalLM"
        assert text.dtype == whole.dtype == torch.bfloat16
        assert torch.equal(logits(text), logits(whole))
        del text


def test_a_language_part_that_was_trained_is_put_back(vision_language, tmp_path):
    text = tmp_path / "text"
    ckptfs.run("materialize", "--base", vision_language, *TEXT_ONLY, "--out", text, "--yes")
    (shard,) = text.glob("*.safetensors")
    trained = {name: tensor + 0.01 for name, tensor in load_file(shard).items()}
    save_file(trained, shard, {"format": "pt"})
    expected = logits(AutoModelForCausalLM.from_pretrained(text))

    for name in ("renamed", "whole"):
        (tmp_path / name).mkdir()
    renamed = ["--base", text, "--rename", r"^model\.=language_model.model."]
    with ckptfs.mounted(renamed, tmp_path / "renamed") as graft:
        view = ["--base", vision_language, "--graft", graft]
        with ckptfs.mounted(view, tmp_path / "whole") as mount:
            whole = Gemma3ForConditionalGeneration.from_pretrained(mount)
            before = Gemma3ForConditionalGeneration.from_pretrained(vision_language)
            assert torch.equal(logits(whole), expected)
            assert not torch.equal(logits(before), expected)
            for name, tensor in before.model.vision_tower.state_dict().items():
                assert torch.equal(whole.model.vision_tower.state_dict()[name], tensor), name
            del whole


@pytest.fixture(scope="module")
def engines():
    with Engines() as engines:
        yield engines


@pytest.fixture(scope="module")
def with_mtp(tmp_path_factory):
    """A small random model of a family with an MTP block."""
    directory = tmp_path_factory.mktemp("mtp")
    made = {family: mtp_models.save(family, directory / family) for family in DRAFTS}
    return made.__getitem__


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("family", DRAFTS)
def test_vllm_loads_an_mtp_block_of_its_own_as_it_loads_that_of_the_whole(
    family, form, with_mtp, engines, tmp_path
):
    whole, draft = tmp_path / "whole", tmp_path / "draft"
    view = ["--base", with_mtp(family), *FORMS[form]]
    ckptfs.run("materialize", *view, "--out", whole)
    ckptfs.run("materialize", *view, "--only", DRAFTS[family], "--out", draft)
    from_whole = engines.load_draft(whole, whole)
    assert "error" not in from_whole, from_whole["error"]
    assert from_whole["missing"] == []
    assert (from_whole["fp8"] > 0) == (form == "fp8")
    assert engines.load_draft(whole, draft) == from_whole
    sizes = [sum(f.stat().st_size for f in d.glob("*.safetensors")) for d in (draft, whole)]
    assert sizes[0] < sizes[1] * 0.6


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("family", DRAFTS)
def test_an_mtp_block_that_a_fine_tune_lost_is_put_back_bit_for_bit(family, form, with_mtp, tmp_path):
    tuned = mtp_models.save_without_mtp(with_mtp(family), tmp_path / "tuned")
    for name in ("original", "tuned-in-form", "whole"):
        (tmp_path / name).mkdir()
    original = ["--base", with_mtp(family), *FORMS[form]]
    lost = ["--base", tuned, *FORMS[form]]
    put_back = [*lost, "--extra", with_mtp(family), "--set", "num_nextn_predict_layers=1"]
    with (
        ckptfs.mounted(original, tmp_path / "original") as original,
        ckptfs.mounted(lost, tmp_path / "tuned-in-form") as lost,
        ckptfs.mounted(put_back, tmp_path / "whole") as whole,
    ):
        configs = [json.loads((at / "config.json").read_text()) for at in (whole, original)]
        assert configs[0] == configs[1]
        view, before, block = Checkpoint(whole), Checkpoint(lost), Checkpoint(original)
        block_names = block.names() - before.names()
        assert block_names >= {n for n in block.names() if n.startswith(("mtp.", "model.layers.2."))}
        assert view.names() == block.names()
        for name in view.names():
            of = block if name in block_names else before
            assert same_bits(view[name], of[name]), name
        del view, before, block, of
