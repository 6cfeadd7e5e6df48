"""Views that are brought into the page cache before they are read."""

import time

from .bench import Bench, flags_of, warm
from .persist import ALL, clear, load
from .report import Goal

SECTION = "Prefetched (--prefetch), FP8, seconds"


def run(bench: Bench) -> None:
    goal = Goal("<=", 2.0)
    if why := bench.why_no_torch():
        bench.report.not_run(SECTION, ALL, why, "materialized", goal)
        return
    flags = flags_of(bench.base, "--fp8")
    directory = bench.scratch / "materialized"
    for _ in bench.each_round("prefetch"):
        clear(directory)
        warm(bench.base)
        start = time.perf_counter()
        bench.materialize(flags, directory)
        seconds = time.perf_counter() - start
        native = load(bench, directory)
        clear(directory)

        warm(bench.base)
        with bench.view(flags) as mounted:
            plain = load(bench, mounted.path)
        with bench.view([*flags, "--prefetch"]) as mounted:
            during = load(bench, mounted.path)
        with bench.view([*flags, "--prefetch"]) as mounted:
            time.sleep(seconds)
            later = load(bench, mounted.path)
        bench.report.sample(
            SECTION, "first load, begun at once", "s", during, plain, "first load without", None
        )
        bench.report.sample(
            SECTION, "first load after the time of a materialize", "s", later, native, "materialized", goal
        )
