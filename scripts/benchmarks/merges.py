"""Merges of two checkpoints, written and mounted, beside mergekit, native reads and each other."""

import json
import os
import shutil
import subprocess
from pathlib import Path

from . import inputs
from .bench import Bench, warm
from .disk import Finished, run_measured
from .readers import rate, read_file, shards, size, warm_rate
from .report import Goal
from .system import process_status, touch_memory

SECTION = "Merges of two checkpoints in bf16, sources in the page cache"
METHODS = {
    "linear": {"models": {"a": {"weight": 0.4}, "b": {"weight": 0.6}}},
    "slerp": {"models": {"a": {}, "b": {}}, "base_model": "a", "parameters": {"t": 0.4}},
    "ties": {"models": {"b": {"weight": 0.5, "density": 0.5}}, "base_model": "a"},
}
MERGEKIT = "mergekit"
AS_FAST_AS_IT_GETS = ["--quiet", "--no-copy-tokenizer", "--no-write-model-card"]
PEAK = Goal("<=", 500)


def run(bench: Bench) -> None:
    directories = [checkpoint(bench, name, seed) for seed, name in enumerate("ab", 1)]
    recipes = {method: recipe(bench, method, directories) for method in METHODS}
    with_mergekit = 2
    for number in bench.each_round("merges"):
        mounted_round(bench, recipes, directories)
        materialized_round(bench, recipes["linear"], directories, peer=number < with_mergekit)


def checkpoint(bench: Bench, name: str, seed: int, layers: int | None = None) -> Path:
    """One that mergekit takes too: layers of an architecture that it does not know."""
    layers = layers or bench.layers

    def make(directory: Path) -> None:
        inputs.make_base(directory, layers, seed)
        config = {
            "model_type": "qwen3",
            "architectures": ["Layers"],
            "num_hidden_layers": layers,
            "torch_dtype": "bfloat16",
        }
        (directory / "config.json").write_text(json.dumps(config))

    return inputs.cached(bench.work / f"merge-{name}-{layers}", make)


def recipe(bench: Bench, method: str, directories: list[Path]) -> Path:
    """JSON is YAML."""
    paths = dict(zip("ab", map(str, directories)))
    stated = METHODS[method]
    models = [{"model": paths[name], "parameters": own} for name, own in stated["models"].items()]
    stated = stated | {"merge_method": method, "models": models, "dtype": "bfloat16"}
    if "base_model" in stated:
        stated["base_model"] = paths[stated["base_model"]]
    file = bench.scratch / f"{method}.yml"
    file.write_text(json.dumps(stated))
    return file


def mounted_round(bench: Bench, recipes: dict[str, Path], directories: list[Path]) -> None:
    """The first read of every shard, with what methods find out about whole tensors before it."""
    warm(*directories)
    native = warm_rate(read_file, shards(directories[0]))
    ways = {"": [], ", direct": ["--direct-io"]}
    floors, rates = {}, {}
    for way, flags in ways.items():
        with bench.floor(directories[0], *(flag.lstrip("-") for flag in flags)) as mounted:
            floors[way] = rate(read_file, shards(mounted), 0 if flags else 1)
    for method, file in recipes.items():
        for way, flags in ways.items():
            warm(*directories)
            with bench.view(["--recipe", file, *flags]) as mounted:
                files = shards(mounted.path)
                rates[method + way] = rate(read_file, files, 0 if flags else 1)
                peak = process_status(mounted.pid, "VmHWM") / 1e6
            name = f"{method}{way}, first read(2)"
            bench.report.sample(
                SECTION, name, "GB/s", rates[method + way] / 1e9, native / 1e9,
                "native, one source", Goal(">=", 0.25) if method == "linear" else None,
                floors[way] / 1e9,
            )  # fmt: skip
            bench.report.sample(SECTION, f"{name}: memory", "MB", peak, goal=PEAK, note="VmHWM")
    length = size(shards(directories[0]))
    for method in [method for method in recipes if method != "linear"]:
        for way in ways:
            bench.report.sample(
                SECTION, f"{method}{way}, first read(2)", "s", length / rates[method + way],
                length / rates["linear" + way], f"linear{way}", Goal("<=", 3),
            )  # fmt: skip


def materialized_round(bench: Bench, file: Path, directories: list[Path], peer: bool) -> None:
    name, out = "linear, materialize", bench.scratch / "out"
    ours = written(bench, [bench.binary, "materialize", "--recipe", file, "--out"], directories, out)
    bench.report.sample(
        SECTION, f"{name}: memory", "MB", ours.peak_memory / 1e6, goal=PEAK, note="VmHWM"
    )
    goal = Goal("<=", 0.1)
    if bench.quick:
        bench.report.not_run(SECTION, name, "--quick leaves it out", MERGEKIT, goal)
    elif why := bench.why_no_torch() or why_no_mergekit(bench.python):
        bench.report.not_run(SECTION, name, why, MERGEKIT, goal)
    elif peer:
        theirs = written(bench, mergekit(bench, file), directories, out)
        bench.report.sample(
            SECTION, name, "s", ours.seconds, theirs.seconds, MERGEKIT, goal,
            note=f"its peak memory: {theirs.peak_memory / 1e6:.0f} MB",
        )  # fmt: skip


def mergekit(bench: Bench, file: Path) -> list:
    """The command that carries a recipe out, without the directory that it writes."""
    return [bench.python, "-m", "mergekit.scripts.run_yaml", *AS_FAST_AS_IT_GETS, file]


def written(bench: Bench, command: list, directories: list[Path], out: Path) -> Finished:
    try:
        warm(*directories)
        os.sync()
        touch_memory(2 * size(shards(directories[0])))
        return run_measured([*command, out])
    finally:
        shutil.rmtree(out, ignore_errors=True)


def why_no_mergekit(python: Path) -> str | None:
    done = subprocess.run([python, "-c", "import mergekit"], capture_output=True)
    return "the Python environment has no mergekit" if done.returncode else None
