"""Merge methods against mergekit's, where more is to be said than that a recipe gives the same.

Many models, sums over whole tensors, choices by rank, and random choices.
"""

import json

import mergekit.sparsify
import pytest
import torch

import ckptfs
from checkpoint import Checkpoint, same_bits
from distances import MAY_BE_MOVED, Distances
from mergekit_runs import (
    assert_same_tensors,
    both,
    choose_the_first_of_equal_magnitudes,
    named,
    write,
)

DTYPES = {
    "bfloat16": {"dtype": "bfloat16"},
    "float16": {"dtype": "float16"},
    "float32": {"dtype": "float32"},
}
ROUNDED_ONCE = {"dtype": "float32", "out_dtype": "bfloat16"}


def recipe(method: str, models: dict, base: str | None = "c", **more) -> str:
    """`models`: the parameters of each; `more`: further keys of the recipe."""
    stated = {
        "merge_method": method,
        "models": [{"model": f"ZOO/{name}", "parameters": own} for name, own in models.items()],
    }
    if base:
        stated["base_model"] = f"ZOO/{base}"
    return json.dumps(stated | more)


WEIGHTS = {"a": 0.37, "b": -0.21, "d": 0.83, "e": 0.11, "f": 0.49}
FIVE = {name: {"weight": weight} for name, weight in WEIGHTS.items()}
OF_FIVE = {
    "linear": ("linear", {"normalize": True}),
    "task_arithmetic": ("task_arithmetic", {"lambda": 0.9, "normalize": True}),
    "ties": ("ties", {"lambda": 1.3}),
    "dare_ties": ("dare_ties", {"normalize": True, "int8_mask": True}),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method, parameters", **named(OF_FIVE))
def test_five_models_give_the_same_bits(method, parameters, dtype, zoo, tmp_path):
    stated = recipe(method, FIVE, parameters={"weight": 0.3} | parameters, **DTYPES[dtype])
    assert_same_tensors(*both(stated, zoo, tmp_path))


TWO = {"a": {"weight": 0.3}, "b": {"weight": 0.6}}
OF_WHOLE_TENSORS = {
    "slerp": ("slerp", {"a": {}, "b": {}}, "a", {"t": 0.4}),
    "nuslerp": ("nuslerp", TWO, None, {}),
    "nuslerp of differences": ("nuslerp", TWO, "c", {}),
    "nuslerp by row": ("nuslerp", TWO, None, {"nuslerp_flatten": False}),
    "nuslerp by column": (
        "nuslerp", TWO, "c", {"nuslerp_flatten": False, "nuslerp_row_wise": True}),
    "model_stock": ("model_stock", dict.fromkeys("abdef", {}), "c", {}),
    "model_stock by row": ("model_stock", {"a": {}, "b": {}}, "c", {"filter_wise": True}),
}


@pytest.mark.parametrize("dtypes", [DTYPES["bfloat16"], ROUNDED_ONCE], ids=["bf16", "f32 to bf16"])
@pytest.mark.parametrize("case", OF_WHOLE_TENSORS)
def test_methods_with_sums_over_tensors_agree_but_for_the_last_place(case, dtypes, zoo, tmp_path):
    method, models, base, parameters = OF_WHOLE_TENSORS[case]
    stated = recipe(method, models, base, parameters=parameters, **dtypes)
    merged, shown = [Checkpoint(path) for path in both(stated, zoo, tmp_path)]
    inputs = [Checkpoint(zoo / name) for name in {*models, base or "a"}]
    assert shown.names() == merged.names()
    distances = Distances()
    for name in sorted(merged.names()):
        assert shown[name].dtype == merged[name].dtype == torch.bfloat16
        distances.add(merged[name], shown[name], *(model[name] for model in inputs))
    distances.check(f"{case}, {dtypes}", MAY_BE_MOVED)


DENSE = {"a": {"weight": 0.6, "density": 0.4}, "b": {"weight": 0.3, "density": 0.2}}
OUTLIERS = {
    "a": {"weight": 0.6, "density": 0.7, "gamma": 0.05},
    "b": {"weight": -0.3, "density": 0.95, "gamma": 0.1},
}
BY_RANK = {
    "ties": ("ties", DENSE, {}),
    "ties, not normalized": ("ties", DENSE, {"normalize": False, "lambda": 0.7}),
    "breadcrumbs": ("breadcrumbs", OUTLIERS, {}),
    "breadcrumbs, normalized": ("breadcrumbs", OUTLIERS, {"normalize": True, "lambda": 1.2}),
    "breadcrumbs_ties": ("breadcrumbs_ties", OUTLIERS, {"normalize": True}),
}


def dropped_above(model: dict, count: int) -> tuple[int, int]:
    """How many of the smallest magnitudes are dropped, and where the largest that are kept end."""
    kept = int(model["density"] * count)
    if "gamma" not in model:
        return count - max(1, kept), count
    smallest = max(0, count - kept - int(model["gamma"] * count))
    return smallest, smallest + kept


def undefined(models: dict, name: str, zoo, dtype: torch.dtype) -> torch.Tensor:
    """Where mergekit may choose: differences as large as the last that is kept or dropped."""
    base = Checkpoint(zoo / "c")[name].to(dtype)
    found = torch.zeros_like(base, dtype=torch.bool)
    for model, parameters in models.items():
        magnitudes = (Checkpoint(zoo / model)[name].to(dtype) - base).abs()
        ranked = magnitudes.flatten().float().sort().values
        for cut in dropped_above(parameters, ranked.numel()):
            if 0 < cut < ranked.numel() and ranked[cut - 1] == ranked[cut]:
                found |= magnitudes == ranked[cut]
    return found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", BY_RANK)
def test_the_same_are_kept_but_among_equal_magnitudes(case, dtype, zoo, tmp_path):
    method, models, parameters = BY_RANK[case]
    stated = recipe(method, models, parameters=parameters, **DTYPES[dtype])
    merged, shown = [Checkpoint(path) for path in both(stated, zoo, tmp_path)]
    assert shown.names() == merged.names()
    elements = free = differ = 0
    for name in sorted(merged.names()):
        wanted, found = merged[name], shown[name]
        may_differ = undefined(models, name, zoo, wanted.dtype)
        assert same_bits(wanted[~may_differ], found[~may_differ]), name
        elements += wanted.numel()
        free += may_differ.sum().item()
        differ += (wanted != found).sum().item()
    print(f"\n{case}, {dtype}: {differ / elements:.4%} differ, "
          f"all among {free / elements:.4%} at thresholds")
    assert free < 0.05 * elements


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", BY_RANK)
def test_with_the_same_choice_among_equal_magnitudes_bits_are_the_same(
    case, dtype, zoo, tmp_path, monkeypatch
):
    choose_the_first_of_equal_magnitudes(monkeypatch)
    method, models, parameters = BY_RANK[case]
    stated = recipe(method, models, parameters=parameters, **DTYPES[dtype])
    assert_same_tensors(*both(stated, zoo, tmp_path))


@pytest.mark.parametrize("method", ["ties", "breadcrumbs", "breadcrumbs_ties"])
def test_what_is_kept_is_rescaled(method, zoo, tmp_path):
    """The sums that it is rescaled by are rounded in another order: the last place may differ."""
    models = DENSE if method == "ties" else OUTLIERS
    stated = recipe(method, models, parameters={"rescale": True}, **ROUNDED_ONCE)
    merged, shown = [Checkpoint(path) for path in both(stated, zoo, tmp_path)]
    distances = Distances()
    for name in sorted(merged.names()):
        defined = ~undefined(models, name, zoo, torch.float32)
        inputs = [Checkpoint(zoo / model)[name][defined] for model in "abc"]
        distances.add(merged[name][defined], shown[name][defined], *inputs)
    distances.check(f"{method}, rescaled", MAY_BE_MOVED)


class Masks:
    """What a view chose at random, found out by views that show one model's differences alone."""

    def __init__(self, method: str, densities: dict, zoo, scratch, **more):
        """`more`: further parameters."""
        self.by_difference = {}
        base = Checkpoint(zoo / "c")
        for model in densities:
            alone = {name: {"weight": float(name == model), "density": density}
                     for name, density in densities.items()}
            stated = recipe(
                method, alone, parameters={"rescale": False} | more, dtype="float32")
            file, shown = write(stated, zoo, scratch), scratch / f"alone-{model}"
            ckptfs.run("materialize", "--recipe", file, "--out", shown)
            kept_all, kept, other = 0, 0, Checkpoint(zoo / model)
            for name in base.names():
                start, found = base[name].float(), Checkpoint(shown)[name]
                difference = other[name].float() - start
                mask = found != start
                # What is kept is kept whole.
                assert same_bits(found, start + difference * mask), name
                self.by_difference[self.key(difference)] = mask
                kept += mask.sum().item()
                kept_all += (start + difference != start).sum().item()
            assert_share(kept, kept_all, densities[model])

    @staticmethod
    def key(difference: torch.Tensor) -> bytes:
        return difference.float().numpy().tobytes()

    def bernoulli(self, tensor, density, rescale_norm=None):
        """In place of mergekit's."""
        mask = self.by_difference[self.key(tensor)]
        return mergekit.sparsify.rescaled_masked_tensor(tensor, mask, rescale_norm)


def assert_share(count: int, of: int, share: float) -> None:
    """That `count` is within five standard deviations of so many independent choices."""
    deviation = (of * share * (1 - share)) ** 0.5
    assert abs(count - of * share) <= 5 * deviation, f"{count / of} for {share}"


DENSITIES = {"a": 0.4, "b": 0.7}
DARE = {name: {"weight": 0.5, "density": density} for name, density in DENSITIES.items()}


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
def test_with_the_same_random_choice_dare_gives_the_same(method, zoo, tmp_path, monkeypatch):
    masks = Masks(method, DENSITIES, zoo, tmp_path)
    monkeypatch.setattr(mergekit.sparsify, "bernoulli", masks.bernoulli)
    for rescale in (False, True):
        parameters = {"rescale": rescale, "lambda": 0.8, "normalize": method == "dare_ties"}
        dtypes = ROUNDED_ONCE if rescale else DTYPES["float32"]
        stated = recipe(method, DARE, parameters=parameters, **dtypes)
        scratch = tmp_path / f"rescale-{rescale}"
        scratch.mkdir()
        merged, shown = both(stated, zoo, scratch)
        if not rescale:
            assert_same_tensors(merged, shown)
            continue
        distances, merged, shown = Distances(), Checkpoint(merged), Checkpoint(shown)
        for name in sorted(merged.names()):
            inputs = [Checkpoint(zoo / model)[name] for model in "abc"]
            distances.add(merged[name], shown[name], *inputs)
        distances.check(f"{method}, rescaled", MAY_BE_MOVED)


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
def test_a_random_choice_is_like_mergekits(method, zoo, tmp_path):
    """Another choice with the same probability: as many are changed, by as much, the same way."""
    density = 0.3
    torch.manual_seed(0)  # of mergekit's choice
    stated = recipe(method, {"a": {"weight": 1, "density": density}}, dtype="float32")
    base, model = Checkpoint(zoo / "c"), Checkpoint(zoo / "a")
    changes = []
    for path in both(stated, zoo, tmp_path):
        merged = Checkpoint(path)
        changes.append(torch.cat([(merged[name] - base[name].float()).flatten()
                                  for name in sorted(base.names())]))
    possible = torch.cat([(model[name].float() - base[name].float()).flatten()
                          for name in sorted(base.names())])
    for change in changes:
        changed = change != 0
        assert_share(changed.sum().item(), (possible != 0).sum().item(), density)
        assert torch.equal(change[changed].sign(), possible[changed].sign())
        # Rescaling keeps the sum of magnitudes, and only almost that of the differences.
        assert change.abs().sum().item() == pytest.approx(possible.abs().sum().item(), rel=1e-3)
    theirs, ours = changes
    deviation = (theirs - ours).std() / len(ours) ** 0.5
    print(f"\n{method}: mean {ours.mean():.3e}, mergekit's {theirs.mean():.3e}, "
          f"changed {(ours != 0).double().mean():.4%} and {(theirs != 0).double().mean():.4%}")
    assert (theirs.mean() - ours.mean()).abs() <= 5 * deviation
    both_changed = ((theirs != 0) & (ours != 0)).sum().item()
    assert_share(both_changed, (possible != 0).sum().item(), density * density)
