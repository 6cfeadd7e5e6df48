"""Views of sources that are on disk alone."""

from .bench import Bench, flags_of
from .readers import rate, read_file, read_file_direct, shards, size
from .report import Goal
from .system import bytes_in_page_cache, drop_from_page_cache

SECTION = "Reads, sources on disk alone, GB/s of the bf16 source"
FP8 = {scale: ["--fp8", "--scale-fmt", scale] for scale in ("ue8m0", "float32")}
SPLICED = ["--repack", "--shard-size-gb", "0.2"]
DIRECT_SOURCES = "--direct-sources"
VIEWS = {
    "FP8 ue8m0": FP8["ue8m0"],
    f"FP8 ue8m0, {DIRECT_SOURCES}": [*FP8["ue8m0"], DIRECT_SOURCES],
    "FP8 ue8m0, direct": [*FP8["ue8m0"], "--direct-io"],
    f"FP8 ue8m0, direct, {DIRECT_SOURCES}": [*FP8["ue8m0"], "--direct-io", DIRECT_SOURCES],
    "FP8 float32": FP8["float32"],
    f"FP8 float32, {DIRECT_SOURCES}": [*FP8["float32"], DIRECT_SOURCES],
    "FP8 float32, direct": [*FP8["float32"], "--direct-io"],
    "spliced": SPLICED,
    f"spliced, {DIRECT_SOURCES}": [*SPLICED, DIRECT_SOURCES],
    "spliced, direct": [*SPLICED, "--direct-io"],
    f"spliced, direct, {DIRECT_SOURCES}": [*SPLICED, "--direct-io", DIRECT_SOURCES],
}


def run(bench: Bench) -> None:
    sources = shards(bench.base)
    total = size(sources)
    for number in bench.each_round("cold sources"):
        # Whatever is under this machine may cache too: nobody is always the first to read.
        disk = {}
        peers = {"O_DIRECT": (read_file_direct, 0), "cold read(2)": (read_file, 1)}
        order = list(peers) if number % 2 else list(reversed(peers))
        for peer in order:
            reader, fresh = peers[peer]
            make_cold(sources)
            disk[peer] = rate(reader, sources, fresh) / 1e9
        for view, flags in VIEWS.items():
            make_cold(sources)
            with bench.view(flags_of(bench.base, *flags)) as mounted:
                files = shards(mounted.path)
                sources_per_byte = total / size(files)
                # The page cache takes the source and what is read, unless these go past it.
                of_source = sources_per_byte * (DIRECT_SOURCES not in flags)
                fresh = of_source + ("--direct-io" not in flags)
                ours = rate(read_file, files, fresh) * sources_per_byte / 1e9
            for peer, theirs in disk.items():
                goal = Goal(">=", 0.9) if peer == "O_DIRECT" else None
                note = "4 MiB at a time into huge pages" if peer == "O_DIRECT" else ""
                name = f"{view}, first read(2)"
                bench.report.sample(
                    SECTION, name, "GB/s", ours, theirs, peer, goal, note=note
                )


def make_cold(sources: list) -> None:
    drop_from_page_cache(sources)
    left = bytes_in_page_cache(sources)
    if left > size(sources) // 100:
        raise RuntimeError(f"{left} bytes of the sources stay in the page cache")
