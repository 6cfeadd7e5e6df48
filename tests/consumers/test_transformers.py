"""transformers loads views as it loads any checkpoint, and computes the same with them."""

import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import ckptfs
import fp8_definition as fp8
from checkpoint import Checkpoint
from views import gemma_fp8, gemma_fp8_float32, patched, repacked

GEMMA_BOS = 2
TEXT = """\
A lighthouse is a tower with a bright light at the top, built on the coast or on
a small island to guide ships at night. In the past the light came from a fire,
later from lamps that burned oil, and today it is almost always electric. The
keeper of the lighthouse lived next to the tower with his family. Every evening
he climbed the stairs, cleaned the glass, and made sure that the lamp would burn
until the morning. When there was fog, the light could not be seen from the sea,
so a horn or a bell was used instead. Most lighthouses now work without a keeper:
a computer turns the light on when it gets dark and calls for help when something
is broken. Many of the old towers are open to visitors, who like to walk up to
the top and look out over the water.
"""


def load(directory: Path):
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16).eval()


def greedy_text(directory: Path, prompt: str) -> str:
    tokenizer = AutoTokenizer.from_pretrained(directory)
    tokens = tokenizer(prompt, return_tensors="pt")
    generated = load(directory).generate(**tokens, max_new_tokens=24, do_sample=False)
    return tokenizer.decode(generated[0])


def perplexity(directory: Path, text: str) -> float:
    tokens = AutoTokenizer.from_pretrained(directory)(text, return_tensors="pt")["input_ids"]
    assert tokens[0, 0] == GEMMA_BOS
    with torch.no_grad():
        return math.exp(load(directory)(tokens, labels=tokens).loss.item())


def logits(directory: Path, text: str) -> torch.Tensor:
    tokens = AutoTokenizer.from_pretrained(directory)(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return load(directory)(tokens).logits


@pytest.fixture(scope="module")
def gemma_perplexity(checkpoints) -> float:
    """Of the bf16 original: what an FP8 view is measured against."""
    return perplexity(checkpoints / "gemma3", TEXT)


@pytest.mark.parametrize("view", [patched, repacked])
def test_smollm2_generates_the_same_text_as_the_original(view, mount, checkpoints):
    prompt = "The capital of France is"
    expected = greedy_text(checkpoints / "smollm2", prompt)
    assert " Paris" in expected
    with mount(view) as path:
        assert greedy_text(path, prompt) == expected


@pytest.mark.parametrize("view", [gemma_fp8, gemma_fp8_float32])
def test_gemma_in_fp8_knows_the_text_as_well_as_the_original(view, mount, gemma_perplexity):
    """As far as one can say anywhere: on another processor the same weights are 1 % off, and FP8 costs as much."""
    with mount(view) as path:
        assert perplexity(path, TEXT) == pytest.approx(gemma_perplexity, rel=0.2)


def test_logits_of_gemma_in_fp8_are_exactly_those_from_disk(mount, checkpoints, tmp_path):
    ckptfs.run("materialize", *gemma_fp8(checkpoints), "--out", tmp_path / "written")
    with mount(gemma_fp8) as path:
        assert torch.equal(logits(path, TEXT), logits(tmp_path / "written", TEXT))


def test_the_weights_loaded_from_fp8_are_codes_times_scales(mount):
    """So that the perplexity is that of FP8, not of weights read in some other way."""
    with mount(gemma_fp8) as path:
        assert wrongly_loaded(path) == []


def wrongly_loaded(directory: Path) -> list[str]:
    view = Checkpoint(directory)
    quantised = [name for name in view.names() if fp8.is_quantised(name)]
    assert len(quantised) == 7 * 18
    loaded = load(directory).state_dict()
    return [
        name for name in quantised
        if not torch.equal(
            loaded[name],
            fp8.dequantise(view[name], view[f"{name}_scale_inv"]).to(torch.bfloat16),
        )
    ]
