"""The same recipe, carried out by mergekit and shown as a view: the same model.

mergekit writes a model card and a copy of the recipe besides, which a view does not have.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from mergekit_runs import assert_same_tensors, both, named

MADE_BY_MERGEKIT_ALONE = {"README.md", "mergekit_config.yml", "model.safetensors"}


def config(directory: Path) -> dict:
    read = json.loads((directory / "config.json").read_text())
    # Two names of one thing; the version is that of the library that wrote the file.
    read["dtype"] = read.pop("torch_dtype", read.get("dtype"))
    read.pop("transformers_version", None)
    return read


def aux_names(directory: Path) -> set[str]:
    names = {path.name for path in directory.iterdir() if not path.name.startswith("model-")}
    return names - MADE_BY_MERGEKIT_ALONE


LINEAR = {
    "weights": """
merge_method: linear
models:
  - {model: ZOO/a, parameters: {weight: 0.3}}
  - {model: ZOO/b, parameters: {weight: 1}}
  - {model: ZOO/c, parameters: {weight: -0.2}}
base_model: ZOO/a
""",
    "not normalized": """
merge_method: linear
models:
  - {model: ZOO/a, parameters: {weight: 0.3}}
  - {model: ZOO/b, parameters: {weight: 1e-1}}
parameters: {normalize: false}
base_model: ZOO/b
dtype: bfloat16
""",
    "computed in float32, given in bfloat16": """
merge_method: linear
models:
  - {model: ZOO/a, parameters: {weight: 0.37}}
  - {model: ZOO/b, parameters: {weight: 0.61}}
base_model: ZOO/a
dtype: float32
out_dtype: bfloat16
""",
    "given in float16": """
merge_method: linear
models:
  - {model: ZOO/a, parameters: {weight: 0.37}}
  - {model: ZOO/b, parameters: {weight: 0.61}}
base_model: ZOO/a
dtype: float16
""",
    "given in float32": """
merge_method: linear
models:
  - {model: ZOO/a, parameters: {weight: 0.37}}
  - {model: ZOO/b, parameters: {weight: 0.61}}
base_model: ZOO/a
dtype: float32
""",
    "gradients and filters": """
merge_method: linear
models:
  - model: ZOO/a
    parameters:
      weight:
        - {filter: self_attn, value: [0, 0.25, 0.9, 1]}
        - {filter: mlp.down, value: 0.125}
        - value: [0.7, 0.1]
  - model: ZOO/b
    parameters:
      weight:
        - {filter: self_attn, value: [1, 0.3]}
        - {filter: norm, value: 2}
parameters:
  weight: 0.5
base_model: ZOO/b
""",
    "a base that is not among the models": """
merge_method: linear
models:
  - {model: ZOO/a, parameters: {weight: 0.25}}
  - {model: ZOO/b}
base_model: ZOO/c
parameters: {weight: 0.75}
""",
    "slices with parameters of their own": """
merge_method: linear
slices:
  - sources:
      - {model: ZOO/a, layer_range: [0, 3], parameters: {weight: [0, 1]}}
      - {model: ZOO/b, layer_range: [1, 4], parameters: {weight: 0.4}}
  - sources:
      - {model: ZOO/b, layer_range: [3, 6]}
      - {model: ZOO/c, layer_range: [0, 3], parameters: {weight: {filter: mlp, value: 0.9}}}
    parameters: {weight: [0.2, 0.4, 0.8]}
base_model: ZOO/a
""",
    "heads that only some models have of their own": """
merge_method: linear
models:
  - {model: ZOO/a, parameters: {weight: 0.6}}
  - {model: ZOO/tied, parameters: {weight: 0.4}}
base_model: ZOO/a
""",
    "heads that no model has": """
merge_method: linear
models:
  - {model: ZOO/tied, parameters: {weight: 0.6}}
  - {model: ZOO/tied2, parameters: {weight: 0.4}}
base_model: ZOO/tied
""",
}

PASSTHROUGH = {
    "one model": """
merge_method: passthrough
models: [{model: ZOO/a}]
base_model: ZOO/a
""",
    "slices of two models": """
merge_method: passthrough
slices:
  - sources: [{model: ZOO/a, layer_range: [0, 4]}]
  - sources: [{model: ZOO/b, layer_range: [2, 6]}]
dtype: bfloat16
base_model: ZOO/a
""",
    "repeated layers": """
merge_method: passthrough
slices:
  - sources: [{model: ZOO/a, layer_range: [0, 2]}]
  - sources: [{model: ZOO/a, layer_range: [1, 3]}]
  - sources: [{model: ZOO/a, layer_range: [1, 2]}]
base_model: ZOO/a
""",
    "scale": """
merge_method: passthrough
slices:
  - sources: [{model: ZOO/a, layer_range: [0, 3]}]
  - sources:
      - model: ZOO/a
        layer_range: [2, 6]
        parameters:
          scale:
            - {filter: o_proj, value: 0.0}
            - {filter: down_proj, value: [0.5, 1.5]}
            - value: 1.0
base_model: ZOO/a
""",
    "another dtype": """
merge_method: passthrough
models: [{model: ZOO/a}]
base_model: ZOO/a
dtype: float16
""",
}

# Methods whose every operation is on single elements: the same bits.
EXACT = {
    "task_arithmetic": """
merge_method: task_arithmetic
models:
  - {model: ZOO/a, parameters: {weight: 0.6}}
  - {model: ZOO/b, parameters: {weight: [0.2, 0.9]}}
base_model: ZOO/c
parameters: {lambda: 0.7, normalize: true}
""",
    "ties that keeps all": """
merge_method: ties
models:
  - {model: ZOO/a, parameters: {weight: 0.6}}
  - {model: ZOO/c}
  - {model: ZOO/b, parameters: {weight: 0.3, density: 1}}
base_model: ZOO/c
parameters: {int8_mask: true}
dtype: float32
out_dtype: bfloat16
""",
    "dare_linear that keeps all": """
merge_method: dare_linear
models: [{model: ZOO/a}, {model: ZOO/b}]
base_model: ZOO/c
parameters: {weight: 0.4, density: 1.0}
""",
    "nearswap": """
merge_method: nearswap
models: [{model: ZOO/a}]
base_model: ZOO/b
parameters: {t: 0.003}
""",
}

TOKENIZERS = {
    "the tokens of the shorter one": """
merge_method: linear
models:
  - {model: ZOO/a, parameters: {weight: 0.6}}
  - {model: ZOO/longer, parameters: {weight: 0.4}}
base_model: ZOO/a
tokenizer_source: base
""",
    "the tokens of the longer one": """
merge_method: linear
models:
  - {model: ZOO/a, parameters: {weight: 0.6}}
  - {model: ZOO/longer, parameters: {weight: 0.4}}
base_model: ZOO/a
tokenizer_source: ZOO/longer
""",
}


@pytest.mark.parametrize("recipe", **named(LINEAR | PASSTHROUGH | EXACT))
def test_a_recipe_shows_what_mergekit_makes(recipe, zoo, tmp_path):
    merged, shown = both(recipe, zoo, tmp_path)
    assert_same_tensors(merged, shown)
    assert config(shown) == config(merged)
    assert aux_names(shown) == aux_names(merged)
    for name in aux_names(merged) - {"config.json", "model.safetensors.index.json"}:
        assert (shown / name).read_bytes() == (merged / name).read_bytes(), name


@pytest.mark.parametrize("recipe", **named(TOKENIZERS))
def test_rows_follow_the_tokenizer_as_in_mergekit(recipe, zoo, tmp_path):
    merged, shown = both(recipe, zoo, tmp_path)
    assert_same_tensors(merged, shown)
    assert config(shown) == config(merged)


def test_a_stack_of_slices_loads_and_runs(zoo, tmp_path):
    _, shown = both(PASSTHROUGH["slices of two models"], zoo, tmp_path)
    model = AutoModelForCausalLM.from_pretrained(shown, dtype=torch.bfloat16)
    assert model.config.num_hidden_layers == 8
    logits = model(torch.arange(12)[None]).logits
    assert torch.isfinite(logits).all()
    shutil.rmtree(shown)
