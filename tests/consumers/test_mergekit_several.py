"""The merge methods that take any number of models, and Arcee Fusion, against mergekit's.

All arithmetic in float32: sums of bfloat16 are coarse there.
"""

import mergekit.sparsify
import pytest
import torch
from click.testing import CliRunner
from mergekit.scripts import multimerge

import ckptfs
from checkpoint import Checkpoint
from mergekit_runs import assert_same_tensors, both, named, with_index, write
from test_mergekit_methods import DENSITIES, Masks, recipe

FLOAT32 = {"dtype": "float32"}
WEIGHTED = {"a": {"weight": 0.37}, "b": {"weight": 0.21}, "d": {"weight": 0.42}}
PLAIN = {name: {} for name in "abd"}

# Every operation is on single elements, and counts are exact: the same bits.
EXACT = {
    "ram": ("ram", PLAIN, {}),
    "ram, most differences too small": ("ram", PLAIN, {"epsilon": 0.02}),
    "ramplus_tl": ("ramplus_tl", PLAIN, {"r": 0.3, "alpha": 1.5, "epsilon": 0.02}),
}


@pytest.mark.parametrize("method, models, parameters", **named(EXACT))
def test_differences_that_models_share_or_not_give_the_same_bits(
    method, models, parameters, zoo, tmp_path
):
    stated = recipe(method, models, parameters=parameters, **FLOAT32)
    assert_same_tensors(*both(stated, zoo, tmp_path))


# Coefficients follow from sums over whole tensors, which are rounded in another order. Tolerances are
# shares of a tensor's largest element.
OF_SUMS = {
    "karcher": ("karcher", PLAIN, None, {}),
    "karcher with a base, one step": ("karcher", PLAIN, "c", {"max_iter": 1}),
    "multislerp": ("multislerp", WEIGHTED, None, {}),
    "multislerp of differences": ("multislerp", WEIGHTED, "c", {}),
    "multislerp, not normalized": (
        "multislerp", WEIGHTED, "c", {"normalize_weights": False, "eps": 1e-6}),
    "sce": ("sce", PLAIN, "c", {}),
    "sce, half of the elements": ("sce", PLAIN, "c", {"select_topk": 0.5, "int8_mask": True}),
}


@pytest.mark.parametrize("method, models, base, parameters", **named(OF_SUMS))
def test_methods_with_sums_over_tensors_are_near(method, models, base, parameters, zoo, tmp_path):
    stated = recipe(method, models, base, parameters=parameters, **FLOAT32)
    merged, shown = [Checkpoint(path) for path in both(stated, zoo, tmp_path)]
    assert shown.names() == merged.names()
    most = 0.0
    for name in sorted(merged.names()):
        wanted, found = merged[name], shown[name]
        assert found.dtype == wanted.dtype == torch.float32
        off = (found - wanted).abs().max().item() / wanted.abs().max().item()
        most = max(most, off)
        assert off <= 2e-6, name
    print(f"\n{method}: at most {most:.2e} of a tensor's largest element")


def test_arcee_fusion_takes_the_same_elements_but_near_the_threshold(zoo, tmp_path):
    stated = recipe("arcee_fusion", {"a": {}}, **FLOAT32)
    merged, shown = [Checkpoint(path) for path in both(stated, zoo, tmp_path)]
    base, model = Checkpoint(zoo / "c"), Checkpoint(zoo / "a")
    differ = taken = elements = 0
    for name in sorted(merged.names()):
        wanted, found = merged[name], shown[name]
        start, end = base[name].float(), model[name].float()
        for tensor in (wanted, found):
            is_base, is_model = tensor == start, tensor == start + (end - start)
            assert (is_base | is_model).all(), name
        differ += (wanted != found).sum().item()
        taken += (found != start).sum().item()
        elements += found.numel()
    print(f"\narcee_fusion: {taken / elements:.3%} taken, {differ / elements:.4%} differ")
    assert 0.01 < taken / elements < 0.5
    assert differ / elements < 0.002


RANKED = {name: {"weight": 0.5, "density": density, "epsilon": 0.2}
          for name, density in DENSITIES.items()}


@pytest.mark.parametrize("method", ["della", "della_linear"])
def test_with_the_same_random_choice_della_gives_the_same(method, zoo, tmp_path, monkeypatch):
    masks = Masks(method, DENSITIES, zoo, tmp_path, epsilon=0.2, normalize=False)

    def chosen(tensor, density, epsilon, rescale_norm=None):
        assert epsilon == 0.2
        return masks.bernoulli(tensor, density, rescale_norm)

    monkeypatch.setattr(mergekit.sparsify, "della_magprune", chosen)
    parameters = {"rescale": False, "lambda": 0.8}
    stated = recipe(method, RANKED, parameters=parameters, **FLOAT32)
    assert_same_tensors(*both(stated, zoo, tmp_path))


def test_della_keeps_more_of_the_larger_like_mergekit(zoo, tmp_path):
    density, epsilon = 0.4, 0.3
    torch.manual_seed(0)  # of mergekit's choice
    models = {"a": {"weight": 1, "density": density, "epsilon": epsilon}}
    stated = recipe("della_linear", models, parameters={"rescale": False}, **FLOAT32)
    base, model = Checkpoint(zoo / "c"), Checkpoint(zoo / "a")
    for path in both(stated, zoo, tmp_path):
        merged = Checkpoint(path)
        kept = {"lower": [], "upper": []}
        for name in merged.names():
            start = base[name].float()
            if start.dim() < 2:
                continue
            change = (model[name].float() - start).abs()
            ranks = change.argsort(dim=1).argsort(dim=1)
            changed = (merged[name] != start) | (change == 0)
            half = start.shape[1] // 2
            kept["lower"].append(changed[ranks < half])
            kept["upper"].append(changed[ranks >= start.shape[1] - half])
        for half, share in (("lower", density - epsilon / 2), ("upper", density + epsilon / 2)):
            found = torch.cat(kept[half]).double().mean().item()
            print(f"\n{path.name}, {half} half: {found:.4f} of {share}")
            assert found == pytest.approx(share, abs=0.01)


def test_a_mean_of_models_in_bfloat16_is_nearer_to_the_formula_than_mergekits(zoo, tmp_path):
    wide = recipe("karcher", PLAIN, None, **FLOAT32)
    exact, _ = [Checkpoint(path) for path in both(wide, zoo, tmp_path)]
    scratch = tmp_path / "narrow"
    scratch.mkdir()
    narrow = recipe("karcher", PLAIN, None, dtype="bfloat16")
    merged, shown = [Checkpoint(path) for path in both(narrow, zoo, scratch)]
    for name in sorted(merged.names()):
        ours, theirs = [(tensor[name].float() - exact[name]).abs().mean().item()
                        for tensor in (shown, merged)]
        assert ours <= theirs * 1.0001, name


MULTI = """
name: first
merge_method: linear
models:
  - {model: ZOO/a, parameters: {weight: 0.3}}
  - {model: ZOO/b, parameters: {weight: 0.7}}
base_model: ZOO/a
dtype: float32
---
name: second
merge_method: task_arithmetic
models: [{model: first, parameters: {weight: 0.5}}]
base_model: ZOO/c
dtype: float32
---
merge_method: linear
models:
  - {model: second, parameters: {weight: 0.4}}
  - {model: first, parameters: {weight: 0.6}}
base_model: ZOO/d
parameters: {weight: 0.1}
dtype: float32
"""


def test_documents_that_build_on_each_other_are_what_mergekit_multi_writes(zoo, tmp_path):
    file = write(MULTI, zoo, tmp_path)
    merged, shown = tmp_path / "merged", tmp_path / "shown"
    arguments = [str(file), "--out-path", str(merged), "-I", str(tmp_path / "steps"),
                 "--no-write-model-card", "--quiet", "--clone-tensors"]
    done = CliRunner().invoke(multimerge.main, arguments)
    assert done.exception is None, (done.output, done.exception)
    if not (merged / "model.safetensors.index.json").exists():
        with_index(merged)
    ckptfs.run("materialize", "--recipe", file, "--out", shown)
    assert_same_tensors(merged, shown)
