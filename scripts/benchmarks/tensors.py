"""What readers with torch and safetensors see, and torch as a peer of the FP8 kernel."""

import os
import shutil
import time

from .bench import Bench, flags_of, warm
from .readers import rate, read_file, shards, size
from .report import Goal
from .system import touch_memory
from .torch_client import Torch

LOADING = "Tensors through safetensors and torch, first touch, seconds"
QUANTIZING = "The same FP8 definition in torch"
TENSOR = "model.layers.0.mlp.gate_proj.weight"
SCALES = ("ue8m0", "float32")


def run_loading(bench: Bench) -> None:
    if why := bench.why_no_torch():
        bench.report.not_run(LOADING, "all tensors, FP8", why, "materialized", Goal("<=", 1.2))
        bench.report.not_run(LOADING, "halves of columns", why, "whole tensor", Goal("<=", 1.3))
        return
    for _ in bench.each_round("tensors"):
        for scale in SCALES:
            all_tensors(bench, bench.torch, scale)
        halves(bench, bench.torch)


def run_torch(bench: Bench) -> None:
    if why := bench.why_no_torch():
        bench.report.not_run(QUANTIZING, "reading through the mount", why, "torch in memory")
        bench.report.not_run(QUANTIZING, "materialize", why, "torch script")
        return
    check_bits(bench, bench.torch)
    threads = bench.torch("choose_threads", file=shards(bench.base)[0])
    for _ in bench.each_round("torch", most=3):
        for scale in SCALES:
            in_memory(bench, bench.torch, scale, threads)
            as_script(bench, bench.torch, scale)


def fp8_flags(bench: Bench, scale: str) -> list:
    return flags_of(bench.base, "--fp8", "--scale-fmt", scale)


def all_tensors(bench: Bench, torch: Torch, scale: str) -> None:
    flags = fp8_flags(bench, scale)
    copy = bench.materialized(f"fp8-{scale}", flags)
    warm(copy)
    theirs = torch("read_all", directory=copy)
    warm(bench.base)
    with bench.view(flags) as mounted:
        touch_memory(size(shards(mounted.path)))
        ours = torch("read_all", directory=mounted.path)
    with bench.floor(copy) as mounted:
        touch_memory(size(shards(mounted)))
        floor = torch("read_all", directory=mounted)
    name = f"all tensors, FP8 {scale}"
    bench.report.sample(
        LOADING, name, "s", ours, theirs, "materialized", Goal("<=", 1.2), floor,
        note="the goal is meant without the FP8 kernel's time, which is in ours here",
    )  # fmt: skip
    bench.report.sample(
        LOADING, f"{name}, FUSE floor", "s", floor, theirs, "materialized",
        note="not ours: the floor; of other values",
    )  # fmt: skip


def halves(bench: Bench, torch: Torch) -> None:
    """Halves of columns, as tensor parallelism reads them, of a view and of files on disk."""
    flags = fp8_flags(bench, "ue8m0")
    copy = shards(bench.materialized("fp8-ue8m0", flags))[0]

    def fresh(function: str, **arguments) -> float:
        warm(bench.base)
        with bench.view(flags) as mounted:
            file = shards(mounted.path)[0]
            touch_memory(2 * size([file]))
            return torch(function, file=file, name=TENSOR, **arguments)

    whole = fresh("read_whole")
    rate(read_file, [copy])
    whole_copy = torch("read_whole", file=copy, name=TENSOR)
    for what, sides in {"left half": ["left"], "both halves": ["left", "right"]}.items():
        ours = fresh("read_halves", sides=sides)
        name = f"{what} of the columns, FP8 ue8m0"
        bench.report.sample(
            LOADING, name, "s", ours, whole, "whole tensor", Goal("<=", 1.3),
            note="each from a fresh mount",
        )  # fmt: skip
        ours = torch("read_halves", file=copy, name=TENSOR, sides=sides)
        bench.report.sample(
            LOADING, f"{what} of the columns, materialized", "s", ours, whole_copy, "whole tensor",
            note="not ours: for comparison",
        )  # fmt: skip


def check_bits(bench: Bench, torch: Torch) -> None:
    """A peer counts only if it does the same work."""
    shard = shards(bench.base)[0]
    for scale in SCALES:
        copy = shards(bench.materialized(f"fp8-{scale}", fp8_flags(bench, scale)))[0]
        if differing := torch("differing_tensors", file=shard, quantized=copy, scale_fmt=scale):
            raise RuntimeError(f"{differing} tensors differ from what torch makes of them")


def in_memory(bench: Bench, torch: Torch, scale: str, threads: int) -> None:
    """One shard: ours from the page cache through a mount, theirs from memory to memory."""
    flags = fp8_flags(bench, scale)
    shard = shards(bench.base)[0]
    source = size([shard])
    theirs = source / torch("quantize_in_memory", file=shard, scale_fmt=scale)
    warm(bench.base)
    with bench.view(flags) as mounted:
        file = shards(mounted.path)[:1]
        ours = rate(read_file, file, 1) * source / size(file)
    bench.report.sample(
        QUANTIZING, f"FP8 {scale}, reading a mounted shard", "GB/s", ours / 1e9, theirs / 1e9,
        "torch in memory", note=f"of the bf16 source; same bits; torch on {threads} thread(s)",
    )  # fmt: skip


def as_script(bench: Bench, torch: Torch, scale: str) -> None:
    out = bench.scratch / "out"
    written = size(shards(bench.base)) // 2
    try:
        warm(bench.base)
        os.sync()
        touch_memory(written)
        start = time.perf_counter()
        bench.materialize(fp8_flags(bench, scale), out)
        ours = time.perf_counter() - start
        shutil.rmtree(out)
        warm(bench.base)
        os.sync()
        touch_memory(written)
        theirs = torch("script", base=bench.base, out=out, scale_fmt=scale)
    finally:
        shutil.rmtree(out, ignore_errors=True)
    bench.report.sample(
        QUANTIZING, f"FP8 {scale}, materialize", "s", ours, theirs, "torch script",
        note="load, quantize, save_file; sync before, no fsync in the time",
    )  # fmt: skip
