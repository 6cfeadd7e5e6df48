"""Parts of a model taken out as a model of their own, and put back, as docs/RECIPES.md says."""

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

TEXT_ONLY = [
    "--rename", r"^language_model\.=", "--only", r"model\..*",
    "--promote", "text_config", "--keep", "dtype", "--set", 'architectures=["Gemma3ForCausalLM"]',
]  # fmt: skip
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
