"""Sequential reads of views whose sources are in the page cache."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from . import mounts
from .bench import Bench, flags_of, progress, warm
from .readers import READERS, Reader, rate, read_file_direct, shards, warm_rate
from .report import Goal

SECTION = "Reads, sources in the page cache, GB/s"
SMALL_READ_AHEAD_KB = 128
SPLICED = {"read": Goal(">=", 0.45), "mmap": Goal(">=", 0.25)}
NATIVE = "native, source"
CACHED = "FUSE floor"
DIRECT_IO = f"{CACHED}, direct"
O_DIRECT = f"{CACHED}, O_DIRECT"
HOW = {"read": "read(2)", "mmap": "mmap"}


@dataclass
class View:
    name: str
    flags: list
    source: Path
    native: list[Path]  # what its reads are compared with
    native_is: str
    goals: dict[str, Goal]  # of first reads, by reader
    fresh: float = 1  # bytes of page cache that a byte of the view takes
    read_ahead_kb: int | None = None
    second: dict[str, Goal] = field(
        default_factory=lambda: dict.fromkeys(READERS, Goal(">=", 0.8))
    )
    floor: str = CACHED  # what is read as this view is, from a filesystem that does nothing else
    reader: Reader | None = None  # of the view, if it is not that of what it is compared with
    of_mount: Callable[[Path], list[Path]] = shards


def stored_views(bench: Bench) -> list[View]:
    base, source = flags_of(bench.base), shards(bench.base)
    whole = {"read": Goal(">=", 0.95), "mmap": Goal(">=", 0.95)}
    patched = View(
        "spliced (patch)", [*base, "--extra", bench.extra], bench.extra, shards(bench.extra),
        NATIVE, SPLICED, of_mount=lambda directory: shards(directory)[bench.layers :],
    )  # fmt: skip
    repacked = repacked_view(bench)
    return [
        View("whole file", base, bench.base, source, NATIVE, whole, fresh=0, floor=""),
        repacked,
        patched,
        small_read_ahead(repacked),
        *past_page_cache(repacked),
    ]


def repacked_view(bench: Bench) -> View:
    flags = flags_of(bench.base, "--repack", "--shard-size-gb", "0.2")
    return View("spliced", flags, bench.base, shards(bench.base), NATIVE, SPLICED)


def fp8_views(bench: Bench) -> list[View]:
    goals = {"read": Goal(">=", 0.4), "mmap": Goal(">=", 0.4)}
    views = []
    for scale in ("ue8m0", "float32"):
        flags = flags_of(bench.base, "--fp8", "--scale-fmt", scale)
        copy = shards(bench.materialized(f"fp8-{scale}", flags))
        views.append(View(f"FP8 {scale}", flags, bench.base, copy, "native, materialized", goals))
    direct = [view for cached in views for view in past_page_cache(cached)]
    return [*views, small_read_ahead(views[0]), *direct]


def small_read_ahead(view: View) -> View:
    """A mount as it is where nobody may raise the read-ahead: read front to back."""
    name = f"{view.name}, read-ahead {SMALL_READ_AHEAD_KB} kB"
    goals = {"read": view.goals["read"]}
    return replace(
        view, name=name, goals=goals, read_ahead_kb=SMALL_READ_AHEAD_KB, second={},
        floor=f"{CACHED}, read-ahead {SMALL_READ_AHEAD_KB} kB",
    )  # fmt: skip


def past_page_cache(view: View) -> list[View]:
    """The same by a reader that goes past the page cache of the mount, in both ways."""
    goals = {"read": view.goals["read"]}
    direct = replace(view, name=f"{view.name}, direct", goals=goals, second=goals, fresh=0)
    o_direct = f"{view.name}, O_DIRECT"
    return [
        replace(direct, flags=[*view.flags, "--direct-io"], floor=DIRECT_IO),
        replace(direct, name=o_direct, second={}, reader=read_file_direct, floor=O_DIRECT),
    ]


def run_stored(bench: Bench) -> None:
    run(bench, "reads", stored_views(bench))


def run_fp8(bench: Bench) -> None:
    run(bench, "FP8 reads", fp8_views(bench))


def run_unionfs(bench: Bench) -> None:
    for _ in bench.each_round("unionfs-fuse", most=1 if bench.quick else 5):
        for how in READERS:
            measure_unionfs(bench, repacked_view(bench), how)


def run(bench: Bench, title: str, views: list[View]) -> None:
    if bench.quick:
        views = [view for view in views if not view.read_ahead_kb]
    for _ in bench.each_round(title):
        floors = {}
        for view in views:
            for how in view.goals:
                key = (view.floor, how)
                if view.floor and key not in floors:
                    floors[key] = floor_rows(bench, view, how)
                measure(bench, view, how, floors.get(key, {}))


def floor_rows(bench: Bench, view: View, how: str) -> dict[str, float]:
    """The same reads, of a filesystem that answers at once whatever is asked: by "first" and "second"."""
    warm(bench.base)
    native = warm_rate(READERS[how], shards(bench.base)) / 1e9
    reader = view.reader or READERS[how]
    with bench.floor(bench.base, *(["direct-io"] if view.floor == DIRECT_IO else [])) as mounted:
        if view.read_ahead_kb:
            mounts.set_read_ahead(mounted, view.read_ahead_kb)
        files = shards(mounted)
        rates = {"first": rate(reader, files, 1 if view.fresh else 0) / 1e9}
        if how in view.second:
            rates["second"] = warm_rate(reader, files) / 1e9
    for what, figure in rates.items():
        name = f"{view.floor}, {what} {HOW[how]}"
        bench.report.sample(SECTION, name, "GB/s", figure, native, NATIVE, note="not ours: the floor")
    return rates


def measure(bench: Bench, view: View, how: str, floors: dict[str, float]) -> None:
    reader = READERS[how]
    warm(view.source)
    native = warm_rate(reader, view.native) / 1e9
    with bench.view(view.flags) as mounted:
        if view.read_ahead_kb and not mounts.set_read_ahead(mounted.path, view.read_ahead_kb):
            progress("the read-ahead of mounts cannot be set here: it is what the kernel gives")
        files = view.of_mount(mounted.path)
        ours = view.reader or reader
        first = rate(ours, files, view.fresh) / 1e9
        second = warm_rate(ours, files) / 1e9 if how in view.second else 0

    def row(what: str, figure: float, goal: Goal | None) -> None:
        name, floor = f"{view.name}, {what} {HOW[how]}", floors.get(what)
        bench.report.sample(SECTION, name, "GB/s", figure, native, view.native_is, goal, floor)

    row("first", first, view.goals[how])
    if how in view.second:
        row("second", second, view.second[how])


def measure_unionfs(bench: Bench, view: View, how: str) -> None:
    """The same files, on disk, through another user-space filesystem, and ours beside them."""
    reader = READERS[how]
    directory = bench.materialized("repacked", view.flags)
    name = f"{view.name}, first {HOW[how]}"
    peers = {"unionfs-fuse": None, "unionfs-fuse, our read-ahead": mounts.OUR_READ_AHEAD_KB}
    for peer, read_ahead_kb in peers.items():
        goal = Goal(">=", 2)
        if bench.unionfs_missing:
            bench.report.not_run(SECTION, name, bench.unionfs_missing, peer, goal)
            continue
        warm(view.source)
        with bench.view(view.flags) as mounted:
            ours = rate(reader, shards(mounted.path), 1)
        warm(directory)
        with mounts.unionfs(directory, bench.mountpoint) as mounted:
            if read_ahead_kb and not mounts.set_read_ahead(mounted, read_ahead_kb):
                bench.report.not_run(SECTION, name, "read-ahead cannot be set", peer)
                continue
            theirs = rate(reader, shards(mounted), 1)
        bench.report.sample(SECTION, name, "GB/s", ours / 1e9, theirs / 1e9, peer, goal)
