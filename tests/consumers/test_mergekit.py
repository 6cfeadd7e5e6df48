"""The same recipe, carried out by mergekit and shown as a view: the same model.

Every model is a tiny Llama with random weights in bf16. mergekit runs on the CPU and writes a
model card and a copy of the recipe besides, which a view does not have.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import MergeOptions, run_merge
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import ckptfs
from checkpoint import Checkpoint, same_bits

LAYERS = 6
VOCABULARY = 96
MADE_BY_MERGEKIT_ALONE = {"README.md", "mergekit_config.yml", "model.safetensors"}


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


@pytest.fixture(scope="module")
def zoo(tmp_path_factory) -> Path:
    """A directory with the models that recipes name."""
    directory = tmp_path_factory.mktemp("zoo")
    for seed, name in enumerate("abc"):
        save_model(directory / name, seed)
    save_model(directory / "tied", 7, tied=True)
    save_model(directory / "tied2", 8, tied=True)
    save_model(directory / "longer", 9, tokens=VOCABULARY + 8)
    return directory


def both(recipe: str, zoo: Path, scratch: Path) -> tuple[Path, Path]:
    """What mergekit makes of a recipe, and what the view of it shows."""
    recipe = recipe.replace("ZOO", str(zoo))
    merged, shown = scratch / "merged", scratch / "shown"
    run_merge(
        MergeConfiguration.model_validate(yaml.safe_load(recipe)),
        str(merged),
        MergeOptions(device="cpu", quiet=True, clone_tensors=True),
        config_source=recipe,
    )
    if not (merged / "model.safetensors.index.json").exists():
        with_index(merged)
    file = scratch / "recipe.yml"
    file.write_text(recipe)
    ckptfs.run("materialize", "--recipe", file, "--out", shown)
    return merged, shown


def with_index(directory: Path) -> None:
    from safetensors import safe_open

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

CLOSE = {
    "slerp": """
merge_method: slerp
models: [{model: ZOO/a}, {model: ZOO/b}]
base_model: ZOO/a
parameters:
  t:
    - {filter: self_attn, value: [0, 0.5, 0.3, 0.7, 1]}
    - value: 0.5
""",
    "nuslerp": """
merge_method: nuslerp
models:
  - {model: ZOO/a, parameters: {weight: 0.3}}
  - {model: ZOO/b, parameters: {weight: 0.6}}
dtype: float32
out_dtype: bfloat16
parameters: {nuslerp_flatten: false}
""",
    "model_stock": """
merge_method: model_stock
models: [{model: ZOO/a}, {model: ZOO/b}]
base_model: ZOO/c
dtype: float32
out_dtype: bfloat16
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


def named(recipes: dict) -> dict:
    return {"argvalues": list(recipes.values()), "ids": list(recipes)}


@pytest.mark.parametrize("recipe", **named(LINEAR | PASSTHROUGH | EXACT))
def test_a_recipe_shows_what_mergekit_makes(recipe, zoo, tmp_path):
    merged, shown = both(recipe, zoo, tmp_path)
    assert_same_tensors(merged, shown)
    assert config(shown) == config(merged)
    assert aux_names(shown) == aux_names(merged)
    for name in aux_names(merged) - {"config.json", "model.safetensors.index.json"}:
        assert (shown / name).read_bytes() == (merged / name).read_bytes(), name


@pytest.mark.parametrize("recipe", **named(CLOSE))
def test_methods_with_sums_over_whole_tensors_agree_but_for_rounding(recipe, zoo, tmp_path):
    merged, shown = both(recipe, zoo, tmp_path)
    expected, found = Checkpoint(merged), Checkpoint(shown)
    assert found.names() == expected.names()
    for name in sorted(expected.names()):
        one, other = expected[name].float(), found[name].float()
        # Operations in bf16 round to 8 bits each.
        tolerance = one.abs().max() * 2**-6
        assert (one - other).abs().max() <= tolerance, name
        assert (one == other).float().mean() > 0.5, name


DENSITIES = {"a": 0.4, "b": 0.2}
TIES = """
merge_method: ties
models:
  - {model: ZOO/a, parameters: {weight: 0.6, density: 0.4}}
  - {model: ZOO/b, parameters: {weight: 0.3, density: 0.2}}
base_model: ZOO/c
dtype: float32
"""


def test_ties_keeps_the_same_but_among_equal_magnitudes(zoo, tmp_path):
    """mergekit's choice among differences as large as the smallest that is kept is not defined."""
    merged, shown = both(TIES, zoo, tmp_path)
    expected, found = Checkpoint(merged), Checkpoint(shown)
    models = {name: Checkpoint(zoo / name) for name in "abc"}
    assert found.names() == expected.names()
    for name in sorted(expected.names()):
        undefined = torch.zeros_like(expected[name], dtype=torch.bool)
        for model, density in DENSITIES.items():
            magnitudes = (models[model][name].float() - models["c"][name].float()).abs()
            kept = max(1, int(density * magnitudes.numel()))
            undefined |= magnitudes == magnitudes.flatten().sort(descending=True).values[kept - 1]
        assert undefined.float().mean() < 0.05 or expected[name].dim() == 1, name
        same = expected[name].view(torch.int32) == found[name].view(torch.int32)
        assert (same | undefined).all(), name


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
