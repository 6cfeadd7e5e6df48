"""First reads of every scheme through a mount, beside block FP8."""

from .bench import Bench, flags_of, warm
from .quantized import PRESETS
from .readers import READERS, rate, shards, size
from .report import Goal

SECTION = "First read of a scheme through a mount, GB/s of bf16, sources in the page cache"
BLOCK = "fp8-block"
OTHER_DIALECTS = ["nvfp4", "mxfp4", "mxfp8"]


def run(bench: Bench) -> None:
    schemes = {scheme: ["--quantize", scheme] for scheme in [*PRESETS, "int4:group=32"] if scheme != BLOCK}
    schemes |= {f"{scheme}, modelopt": [*schemes[scheme], "--dialect", "modelopt"] for scheme in OTHER_DIALECTS}
    for _ in bench.each_round("schemes"):
        for name, flags in schemes.items():
            # Each beside its own: machines grow slower and faster meanwhile.
            block = first_read(bench, ["--quantize", BLOCK])
            figure = first_read(bench, flags)
            bench.report.sample(SECTION, name, "GB/s", figure, block, BLOCK, Goal(">=", 0.8))


def first_read(bench: Bench, flags: list) -> float:
    """Of all of the base; in bytes of the base, which are the same for all schemes."""
    warm(bench.base)
    with bench.view(flags_of(bench.base, *flags)) as mounted:
        files = shards(mounted.path)
        seconds = size(files) / rate(READERS["read"], files, 1)
    return size(shards(bench.base)) / seconds / 1e9
