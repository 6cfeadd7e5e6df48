"""Views as GGUF beside llama.cpp's own tools: written, and loaded by llama.cpp from a mount."""

import shutil
import subprocess
from pathlib import Path

from . import inputs
from .bench import Bench, flags_of, warm
from .disk import Finished, run_measured
from .readers import read_file, size
from .report import Goal
from .system import touch_memory

SECTION = "GGUF of bf16, sources in the page cache"
ROOT = Path(__file__).resolve().parents[2]
LLAMA_CPP = ROOT / "tests" / "consumers" / "llama_cpp.py"
LOAD_GOAL = Goal("<=", 1.5)


def run(bench: Bench) -> None:
    if why := bench.why_no_torch():
        bench.report.not_run(SECTION, "all", why, "llama.cpp", None)
        return
    script = [ROOT / "scripts" / "llama-cpp", bench.python]
    done = subprocess.run(script, check=True, stdout=subprocess.PIPE, text=True)
    llama_cpp = [bench.python, LLAMA_CPP, done.stdout.strip()]
    make = lambda directory: inputs.make_llama(directory, bench.layers)
    base = inputs.cached(bench.work / f"llama-{bench.layers}", make)
    for _ in bench.each_round("gguf"):
        try:
            written_round(bench, base, llama_cpp)
        finally:
            for left in bench.scratch.glob("gguf-*"):
                shutil.rmtree(left)


def written_round(bench: Bench, base: Path, llama_cpp: list) -> None:
    """Files of both, of which ours are then loaded, and the same views mounted."""
    theirs = bench.scratch / "gguf-theirs"
    theirs.mkdir()
    bf16 = theirs / "bf16.gguf"

    def measured(command: list) -> Finished:
        warm(base)
        touch_memory(size(base.glob("*.safetensors")))
        return run_measured(command)

    def row(kind: str, seconds: float, peer: str, goal: Goal) -> None:
        note = "all processors on both sides"
        bench.report.sample(
            SECTION, f"materialize {kind}", "s", ours[kind].seconds, seconds, peer, goal, note=note
        )

    ours, files = {}, {}
    for kind in ("q8_0", "q4_k_m"):
        out = bench.scratch / f"gguf-{kind}"
        flags = flags_of(base, "--gguf", kind)
        ours[kind] = measured([bench.binary, "materialize", *flags, "--out", out])
        (files[kind],) = out.iterdir()
        bench.report.sample(
            SECTION, f"materialize {kind}, peak memory", "MB", ours[kind].peak_memory / 1e6,
            goal=Goal("<=", 100), note="VmHWM",
        )  # fmt: skip
    converted = measured([*llama_cpp, "convert", base, bf16, "bf16"]).seconds
    quantized = {}
    for kind in ours:
        read_file(bf16)
        command = [*llama_cpp, "quantize", bf16, theirs / f"{kind}.gguf", kind]
        quantized[kind] = measured(command).seconds
        (theirs / f"{kind}.gguf").unlink()
    direct = measured([*llama_cpp, "convert", base, theirs / "direct.gguf", "q8_0"]).seconds
    shutil.rmtree(theirs)
    row("q8_0", converted + quantized["q8_0"], "convert to bf16, llama-quantize", Goal("<=", 1 / 3))
    row("q8_0", direct, "convert to q8_0", Goal("<=", 1 / 3))
    row("q4_k_m", quantized["q4_k_m"], "llama-quantize of bf16", Goal("<=", 0.5))

    def load(file: Path) -> float:
        done = subprocess.run(
            [*llama_cpp, "load", file], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        return float(done.stdout)

    for kind, file in files.items():
        read_file(file)
        native = load(file)
        warm(base)
        touch_memory(file.stat().st_size)
        with bench.view(flags_of(base, "--gguf", kind)) as mounted:
            (shown,) = mounted.path.glob("*.gguf")
            for number in ("first", "second"):
                goal = LOAD_GOAL if kind == "q8_0" or number == "second" else None
                bench.report.sample(
                    SECTION, f"{number} load of {kind}, mounted", "s", load(shown), native,
                    "a load of the written file", goal,
                )  # fmt: skip
