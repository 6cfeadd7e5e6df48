"""Every scheme beside llm-compressor's model_free_ptq, and back beside compressed-tensors' convert_checkpoint."""

import os
import shutil
import subprocess
from pathlib import Path

from .bench import Bench, flags_of, warm
from .disk import Finished, run_measured
from .readers import shards, size
from .report import Goal
from .system import touch_memory

SECTION = "Schemes, materialized, seconds; all processors on both sides, sources in the page cache"
MEMORY = "Peak memory of these, MB"
WRITTEN = "Bytes of shards that these wrote, MB"
ROOT = Path(__file__).resolve().parents[2]
CALLS = Path(__file__).resolve().with_name("llm_compressor.py")
PEER, BACK = "llm-compressor 0.14.0.1, model_free_ptq", "compressed-tensors 0.19.0, convert_checkpoint"
FASTER = Goal("<=", 0.05)
PRESETS = {
    "fp8-block": "FP8_BLOCK",
    "fp8-channel": "FP8_DYNAMIC",
    "int8-channel": "INT8",
    "int4": "W4A16",
    "int4:asymmetric": "W4A16_ASYM",
    "nvfp4": "NVFP4A16",
    "mxfp4": "MXFP4A16",
    "mxfp8": "MXFP8",
}


def run(bench: Bench) -> None:
    if why := bench.why_no_torch():
        for scheme in PRESETS:
            bench.report.not_run(SECTION, scheme, why, PEER, FASTER)
        return
    python = [bench.python, CALLS]
    environment = os.environ | {"PYTHONPATH": installed(bench)}
    # Theirs takes minutes, and a hundred times as long as ours.
    for _ in bench.each_round("quantized", most=1):
        for scheme, preset in PRESETS.items():
            flags = ["--quantize", scheme, "--dialect", "compressed-tensors"]
            row(bench, scheme, bench.base, flags, [*python, "quantize"], [preset], PEER, environment)
        quantized = bench.materialized("fp8", flags_of(bench.base, "--fp8"))
        row(bench, "fp8-block to bf16", quantized, ["--dtype", "bf16"], [*python, "dequantize"], [], BACK, environment)


def installed(bench: Bench) -> str:
    script = [ROOT / "scripts" / "llm-compressor", bench.python]
    return subprocess.run(script, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def row(bench: Bench, name: str, source: Path, flags: list, before: list, after: list, peer: str, environment) -> None:
    out = bench.scratch / "out"

    def measured(command: list) -> tuple[Finished, int]:
        warm(source)
        touch_memory(size(shards(source)))
        try:
            return run_measured(command, environment), size(shards(out))
        finally:
            shutil.rmtree(out, ignore_errors=True)

    ours, our_bytes = measured([bench.binary, "materialize", *flags_of(source, *flags), "--out", out])
    theirs, their_bytes = measured([*before, source, out, *after])
    bench.report.sample(SECTION, name, "s", ours.seconds, theirs.seconds, peer, FASTER)
    bench.report.sample(MEMORY, name, "MB", ours.peak_memory / 1e6, theirs.peak_memory / 1e6, peer)
    bench.report.sample(MEMORY, f"{name}, ours alone", "MB", ours.peak_memory / 1e6, goal=Goal("<=", 100))
    bench.report.sample(WRITTEN, name, "MB", our_bytes / 1e6, their_bytes / 1e6, peer)
