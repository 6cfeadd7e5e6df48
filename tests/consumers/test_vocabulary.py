"""Tied models through transformers: untied, tied again, and with another number of rows."""

import json
from pathlib import Path

import pytest
import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

import ckptfs
import tiny_models
from checkpoint import Checkpoint
from test_moe import logits

SHAPE = {
    "vocab_size": tiny_models.VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "tie_word_embeddings": True,
    # No token that is cut off.
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"


def qwen3():
    return Qwen3ForCausalLM(Qwen3Config(**SHAPE))


def llama():
    return LlamaForCausalLM(LlamaConfig(**SHAPE))


def gemma3():
    """Its kind is tied where config.json says nothing."""
    return Gemma3ForCausalLM(Gemma3TextConfig(**SHAPE))


@pytest.fixture(scope="module", params=[qwen3, llama, gemma3], ids=lambda param: param.__name__)
def tied(request, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("tied")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = request.param().to(torch.bfloat16)
    made.save_pretrained(directory, max_shard_size="60KB")
    assert HEAD not in Checkpoint(directory).names()
    return directory


def numbers(directory: Path, name: str) -> torch.Tensor:
    """A copy, so that no file of a mount stays mapped."""
    return Checkpoint(directory)[name].clone()


def test_an_untied_model_computes_what_it_did(tied, tmp_path):
    with ckptfs.mounted(["--base", tied, "--untie"], tmp_path) as view:
        assert torch.equal(numbers(view, HEAD), numbers(view, EMBEDDING))
        assert json.loads((view / "config.json").read_text())["tie_word_embeddings"] is False
        assert torch.equal(logits(view), logits(tied))


def test_the_head_of_an_untied_model_can_be_cast_apart(tied, tmp_path):
    cast = ["--base", tied, "--untie", "--cast", "lm_head[.]weight=f32"]
    with ckptfs.mounted(cast, tmp_path) as view:
        dtypes = [numbers(view, name).dtype for name in (EMBEDDING, HEAD)]
        assert dtypes == [torch.bfloat16, torch.float32]
        assert torch.equal(logits(view), logits(tied))


def test_a_model_that_is_untied_and_tied_again_computes_what_it_did(tied, tmp_path):
    untied = tmp_path / "untied"
    ckptfs.run("materialize", "--base", tied, "--untie", "--out", untied)
    with ckptfs.mounted(["--base", untied, "--tie"], tmp_path) as view:
        assert Checkpoint(view).names() == Checkpoint(tied).names()
        assert torch.equal(logits(view), logits(tied))


@pytest.mark.parametrize("tying", [[], ["--untie"]], ids=["tied", "untied"])
@pytest.mark.parametrize("pad", ["zeros", "mean"])
def test_rows_that_are_added_leave_the_scores_of_the_others(tied, tying, pad, tmp_path):
    flags = ["--vocab-size", 320, "--vocab-pad", pad]
    with ckptfs.mounted(["--base", tied, *tying, *flags], tmp_path) as view:
        scores = logits(view)
        assert scores.shape[-1] == 320
        old = logits(tied)
        # A product of other sizes may be summed in another order.
        torch.testing.assert_close(scores[..., :256], old, rtol=0.01, atol=0.01)
        embedding = numbers(view, EMBEDDING).double()
        mean = embedding[:256].mean(0).bfloat16() if pad == "mean" else torch.zeros(64)
        torch.testing.assert_close(embedding[256:], mean.double().expand(64, -1))


def test_rows_that_are_cut_leave_the_scores_of_the_others(tied, tmp_path, monkeypatch):
    # Texts of the tokens that stay.
    monkeypatch.setattr(tiny_models, "VOCABULARY", 192)
    with ckptfs.mounted(["--base", tied, "--vocab-size", 192], tmp_path) as view:
        scores = logits(view)
        assert scores.shape[-1] == 192
        torch.testing.assert_close(scores, logits(tied)[..., :192], rtol=0.01, atol=0.01)
