"""The views of the real checkpoints that are tested, as command line flags."""

from pathlib import Path

from real_checkpoints import HUB_SNAPSHOT

# Small enough that what the extra adds takes several shards.
PATCH_SHARD_GIB = 0.01
# Small enough that the repacked checkpoint takes several shards.
REPACK_SHARD_GIB = 0.1


def patched(checkpoints: Path) -> list:
    return ["--base", checkpoints / "smollm2-base", "--extra", checkpoints / "smollm2-extra",
            "--shard-size-gb", PATCH_SHARD_GIB]


def repacked(checkpoints: Path) -> list:
    return ["--base", checkpoints / "smollm2-engine", "--shard-size-gb", REPACK_SHARD_GIB]


def hub(checkpoints: Path) -> list:
    return ["--base", checkpoints / HUB_SNAPSHOT]


def gemma_fp8(checkpoints: Path) -> list:
    return ["--base", checkpoints / "gemma3", "--fp8"]


def gemma_fp8_float32(checkpoints: Path) -> list:
    return [*gemma_fp8(checkpoints), "--scale-fmt", "float32"]


def patched_fp8(checkpoints: Path) -> list:
    return [*patched(checkpoints), "--fp8"]


# Each of these shows the tensors of the original SmolLM2, bit for bit.
SMOLLM2_VIEWS = [patched, repacked, hub]
FP8_VIEWS = [gemma_fp8, gemma_fp8_float32, patched_fp8]
ALL_VIEWS = SMOLLM2_VIEWS + FP8_VIEWS
