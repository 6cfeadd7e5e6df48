"""A real model merged with copies of itself that were moved a little: what mergekit writes, and what
transformers reads through a mounted recipe.

Ranking the differences of whole models takes mergekit minutes: methods that do rank those of the
attention alone, and keep the others whole.

Weights are compared, tensor by tensor. What a model computes with the same weights depends on the
processor: products in bf16 are summed in another order with AVX2 than with AVX-512, which moves the
perplexity of these models by 1 %.
"""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

import ckptfs
from checkpoint import Checkpoint, same_bits
from distances import MAY_BE_MOVED, Distances
from mergekit_runs import choose_the_first_of_equal_magnitudes, run, write
from test_transformers import TEXT, load

PROMPT = "The capital of France is"
MOVED_BY = 0.01  # standard deviations of each tensor
# Perplexity: far more than processors and random choices move it, far less than a tensor does that is
# wrong or in the wrong place.
MOST_OFF = 0.2


@pytest.fixture(scope="module")
def family(checkpoints, tmp_path_factory) -> Path:
    """SmolLM2, `a`, and copies of it that were moved at random."""
    directory = tmp_path_factory.mktemp("family")
    (directory / "a").symlink_to(checkpoints / "smollm2")
    for seed, name in enumerate("bc"):
        save_moved(directory / "a", directory / name, seed)
    yield directory
    shutil.rmtree(directory)


def save_moved(original: Path, copy: Path, seed: int) -> None:
    copy.mkdir()
    generator = torch.Generator().manual_seed(seed)
    for path in sorted(original.iterdir()):
        if path.suffix != ".safetensors":
            shutil.copy(path, copy)
            continue
        tensors = load_file(path)
        for name, tensor in sorted(tensors.items()):
            noise = torch.randn(tensor.shape, generator=generator)
            moved = tensor.float() + MOVED_BY * tensor.float().std() * noise
            tensors[name] = moved.to(torch.bfloat16)
        save_file(tensors, copy / path.name, metadata={"format": "pt"})


ATTENTION_HALF = [{"filter": "self_attn", "value": 0.5}, {"value": 1}]
RANKED = {"weight": 0.6, "density": ATTENTION_HALF}
RANDOM = {"weight": 0.6, "density": 0.9}
# Models, and parameters of all: a method of each kind, as test_mergekit_methods.py compares all.
METHODS = {
    "linear": ({"a": {"weight": 0.3}, "b": {"weight": 0.7}}, {}),
    "slerp": ({"a": {}, "b": {}}, {"t": 0.4}),
    "model_stock": ({"b": {}, "c": {}}, {}),
    "ties": ({"b": RANKED, "c": {"weight": 0.4}}, {}),
    "dare_ties": ({"b": RANDOM, "c": RANDOM}, {}),
}
# Sums over tensors differ in their last place, which in bf16 is a 256th of the cosine.
OF_WHOLE_TENSORS = {"slerp", "model_stock"}
# Their choices are others than mergekit's: test_mergekit_methods.py compares them given the same.
RANDOM_METHODS = {"dare_ties"}


def recipe(method: str) -> str:
    models, parameters = METHODS[method]
    stated = {
        "merge_method": method,
        "models": [{"model": f"ZOO/{name}", "parameters": own} for name, own in models.items()],
        "parameters": parameters,
        "dtype": "float32" if method in OF_WHOLE_TENSORS else "bfloat16",
        "out_dtype": "bfloat16",
        "base_model": "ZOO/a",
    }
    return json.dumps(stated)


@pytest.mark.parametrize("method", METHODS)
def test_a_mounted_merge_is_the_model_that_mergekit_writes(method, family, tmp_path, monkeypatch):
    torch.manual_seed(0)  # of mergekit's choices
    choose_the_first_of_equal_magnitudes(monkeypatch)
    merged = run(recipe(method), family, tmp_path / "merged")
    view = ["--recipe", write(recipe(method), family, tmp_path)]
    with ckptfs.mounted(view, tmp_path) as shown:
        compare(merged, shown, family, method)
        wanted, found = [Computed(directory) for directory in (merged, shown)]
    shutil.rmtree(merged)
    print(f"{method}: perplexity {found.perplexity:.4f}, mergekit's {wanted.perplexity:.4f}")
    assert found.perplexity == pytest.approx(wanted.perplexity, rel=MOST_OFF)
    assert " Paris" in found.text


def compare(merged, shown, family, method: str) -> None:
    wanted, found = Checkpoint(merged), Checkpoint(shown)
    assert found.names() == wanted.names()
    if method in OF_WHOLE_TENSORS:
        inputs, distances = [Checkpoint(family / name) for name in "abc"], Distances()
        for name in sorted(wanted.names()):
            distances.add(wanted[name], found[name], *(model[name] for model in inputs))
        return distances.check(method, MAY_BE_MOVED)
    for name in wanted.names():
        assert (found[name].dtype, found[name].shape) == (wanted[name].dtype, wanted[name].shape)
        assert method in RANDOM_METHODS or same_bits(found[name], wanted[name]), name


class Computed:
    """What a model says and how well it knows a text."""

    def __init__(self, directory: Path):
        tokenizer, model = AutoTokenizer.from_pretrained(directory), load(directory)
        prompt = tokenizer(PROMPT, return_tensors="pt")
        generated = model.generate(**prompt, max_new_tokens=12, do_sample=False)
        self.text = tokenizer.decode(generated[0])
        tokens = tokenizer(TEXT, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            self.perplexity = math.exp(model(tokens, labels=tokens).loss.item())
