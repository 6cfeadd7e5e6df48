"""Every merge method, written beside mergekit: checkpoints of one layer of the shape of Qwen3-8B."""

import json
from pathlib import Path

from . import merges
from .bench import Bench
from .report import Goal

SECTION = "Every merge method, materialized, one layer of Qwen3-8B in bf16, sources in the page cache"
WEIGHTED = {"weight": 0.4}
SPARSE = WEIGHTED | {"density": 0.5}
ALL, PAIR, ONE = "abc", "ab", "b"
# Models, base, parameters of each model, parameters of all.
METHODS = {
    "linear": (ALL, None, WEIGHTED, {}),
    "passthrough": ("a", None, {"scale": 0.5}, {}),
    "slerp": (PAIR, "a", {}, {"t": 0.4}),
    "nuslerp": (PAIR, None, WEIGHTED, {}),
    "nearswap": (PAIR, "a", {}, {"t": 0.001}),
    "task_arithmetic": ("bc", "a", WEIGHTED, {}),
    "ties": ("bc", "a", SPARSE, {}),
    "dare_linear": ("bc", "a", SPARSE, {}),
    "dare_ties": ("bc", "a", SPARSE, {}),
    "breadcrumbs": ("bc", "a", SPARSE, {}),
    "breadcrumbs_ties": ("bc", "a", SPARSE, {}),
    "della": ("bc", "a", SPARSE, {}),
    "della_linear": ("bc", "a", SPARSE, {}),
    "model_stock": ("bc", "a", {}, {}),
    "karcher": (ALL, None, {}, {}),
    "multislerp": (ALL, None, WEIGHTED, {}),
    "ram": ("bc", "a", {}, {}),
    "ramplus_tl": ("bc", "a", {}, {}),
    "sce": ("bc", "a", {}, {"select_topk": 0.5}),
    "arcee_fusion": (ONE, "a", {}, {}),
}


def run(bench: Bench) -> None:
    directories = [merges.checkpoint(bench, name, seed, layers=1) for seed, name in enumerate("abc", 1)]
    out = bench.scratch / "out"
    why = why_no_peer(bench)
    for _ in bench.each_round("methods", most=1):
        for method in METHODS:
            file = recipe(bench, method, directories)
            ours = [bench.binary, "materialize", "--recipe", file, "--out"]
            ours = merges.written(bench, ours, directories, out)
            goal = Goal("<=", 0.5)
            if why:
                bench.report.not_run(SECTION, method, why, merges.MERGEKIT, goal)
                continue
            theirs = merges.written(bench, merges.mergekit(bench, file), directories, out)
            note = f"peak memory {ours.peak_memory / 1e6:.0f} MB, its {theirs.peak_memory / 1e6:.0f} MB"
            bench.report.sample(
                SECTION, method, "s", ours.seconds, theirs.seconds, merges.MERGEKIT, goal, note=note
            )


def why_no_peer(bench: Bench) -> str:
    if bench.quick:
        return "--quick leaves it out"
    return bench.why_no_torch() or merges.why_no_mergekit(bench.python) or ""


def recipe(bench: Bench, method: str, directories: list[Path]) -> Path:
    """JSON is YAML."""
    paths = dict(zip(ALL, map(str, directories)))
    models, base, own, parameters = METHODS[method]
    stated = {
        "merge_method": method,
        "models": [{"model": paths[name], "parameters": own} for name in models],
        "parameters": parameters,
        "dtype": "bfloat16",
    }
    if base:
        stated["base_model"] = paths[base]
    file = bench.scratch / f"method-{method}.yml"
    file.write_text(json.dumps(stated))
    return file
