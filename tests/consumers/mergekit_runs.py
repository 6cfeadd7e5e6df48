"""Recipes carried out by mergekit, and the views of the same recipes.

Every model is a tiny Llama with random weights in bf16. mergekit runs on the CPU.
"""

import json
from pathlib import Path

import mergekit.merge_methods.sce
import mergekit.sparsify
import torch
import yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import MergeOptions, run_merge
from safetensors import safe_open
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import ckptfs
from checkpoint import Checkpoint, same_bits

LAYERS = 6
VOCABULARY = 96


def save_model(directory: Path, seed: int, tied: bool = False, tokens: int = VOCABULARY) -> Path:
    config = LlamaConfig(
        vocab_size=tokens, hidden_size=64, intermediate_size=160, num_hidden_layers=LAYERS,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
        tie_word_embeddings=tied,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config).to(torch.bfloat16)
        for norm in (p for name, p in model.named_parameters() if "norm" in name):
            torch.nn.init.normal_(norm, 1.0, 0.1)
    model.save_pretrained(directory, max_shard_size="200KB")
    vocabulary = {f"t{i}": i for i in range(tokens)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="t0"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="t0").save_pretrained(directory)
    return directory


def save_zoo(directory: Path) -> Path:
    """The models that recipes name."""
    for seed, name in enumerate("abcdef"):
        save_model(directory / name, seed)
    save_model(directory / "tied", 7, tied=True)
    save_model(directory / "tied2", 8, tied=True)
    save_model(directory / "longer", 9, tokens=VOCABULARY + 8)
    return directory


def both(recipe: str, zoo: Path, scratch: Path) -> tuple[Path, Path]:
    """What mergekit makes of a recipe, and what the view of it shows."""
    merged, shown = run(recipe, zoo, scratch / "merged"), scratch / "shown"
    ckptfs.run("materialize", "--recipe", write(recipe, zoo, scratch), "--out", shown)
    return merged, shown


def write(recipe: str, zoo: Path, scratch: Path) -> Path:
    file = scratch / "recipe.yml"
    file.write_text(recipe.replace("ZOO", str(zoo)))
    return file


def run(recipe: str, zoo: Path, merged: Path, **options) -> Path:
    """What mergekit makes of a recipe."""
    recipe = recipe.replace("ZOO", str(zoo))
    run_merge(
        MergeConfiguration.model_validate(yaml.safe_load(recipe)),
        str(merged),
        MergeOptions(device="cpu", quiet=True, clone_tensors=True, **options),
        config_source=recipe,
    )
    if not (merged / "model.safetensors.index.json").exists():
        with_index(merged)
    return merged


class FirstOfEqual:
    """torch, but its sorts order equal numbers by position, as a view does, instead of anyhow."""

    def __getattr__(self, name: str):
        return getattr(torch, name)

    def argsort(self, values: torch.Tensor, descending: bool) -> torch.Tensor:
        order = torch.argsort(values, descending=True, stable=True)
        return order if descending else order.flip(0)

    def sort(self, values: torch.Tensor, descending: bool):
        order = self.argsort(values, descending)
        return torch.return_types.sort((values[order], order))

    def topk(self, values: torch.Tensor, k: int, largest: bool):
        order = self.argsort(values, descending=largest)[:k]
        return torch.return_types.topk((values[order], order))


def choose_the_first_of_equal_magnitudes(monkeypatch) -> None:
    """mergekit's own choice is undefined: its sorts are unstable."""
    for module in (mergekit.sparsify, mergekit.merge_methods.sce):
        monkeypatch.setattr(module, "torch", FirstOfEqual())


def with_index(directory: Path) -> None:
    with safe_open(directory / "model.safetensors", "pt") as file:
        weight_map = {name: "model.safetensors" for name in file.keys()}
    index = {"metadata": {}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


def assert_same_tensors(merged: Path, shown: Path) -> None:
    expected, found = Checkpoint(merged), Checkpoint(shown)
    assert found.names() == expected.names()
    different = [name for name in sorted(expected.names())
                 if not same_bits(expected[name], found[name])]
    assert not different, different


def named(recipes: dict) -> dict:
    """Arguments of `pytest.mark.parametrize`."""
    return {"argvalues": list(recipes.values()), "ids": list(recipes)}
