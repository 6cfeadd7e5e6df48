"""The checkpoints that the pages of the documentation name, as a directory of links to real ones."""

import os
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from peft import LoraConfig, get_peft_model

import ckptfs
import fp8_families
from tiny_models import qwen3_moe, save

MERGE = """\
merge_method: linear
models:
  - {model: org/base, parameters: {weight: 0.7}}
  - {model: B-tuned, parameters: {weight: 0.3}}
dtype: bfloat16
"""
VIEW = """\
view:
  base: A
  extra: [B]
  fp8: true
"""


def build(directory: Path, checkpoints: Path) -> Path:
    """What lies in /srv/models while a page runs.

    SmolLM2-135M, gemma-3-270m    real models; the first as GGUF, too
    gemma-3-tuned      the latter without its last layer
    A, A-fused         a tiny mixture of experts in bf16, its experts single and fused
    B                  an MTP block that A lacks, and a tensor that both have
    A-FP8              A in block FP8
    A-INT4             A in 4 bits
    A-bin              A as pytorch_model.bin
    Qwen3-Next         a tiny one, whose linear attention is joined
    adapter            a LoRA adapter for A, made by PEFT
    B-tuned, base      models of A's shape; merge.yml merges them
    """
    directory.mkdir()
    link_all(checkpoints / "smollm2", directory / "SmolLM2-135M")
    whole = link_all(checkpoints / "gemma3", directory / "gemma-3-270m")
    ckptfs.run("materialize", "--base", whole, "--drop", r"model\.layers\.17\..*", "--hardlink",
               "--out", directory / "gemma-3-tuned")
    ckptfs.run("materialize", "--base", directory / "SmolLM2-135M", "--gguf", "q4_0", "--out",
               directory / "gguf")
    (file,) = (directory / "gguf").iterdir()
    file.rename(directory / file.name)
    (directory / "gguf").rmdir()
    model = save(qwen3_moe, "per-expert", directory / "A")
    save(qwen3_moe, "fused", directory / "A-fused")
    fp8_families.save("qwen3_next", directory / "Qwen3-Next")
    save_adapter(model, directory / "adapter")
    save_extra(directory / "A", directory / "B")
    ckptfs.run("materialize", "--base", directory / "A", "--fp8", "--out", directory / "A-FP8")
    ckptfs.run("materialize", "--base", directory / "A", "--quantize", "int4:group=32",
               "--out", directory / "A-INT4")
    save_pickled(directory / "A", directory / "A-bin")
    for name in ("base", "B-tuned", "Qwen3-30B-A3B"):
        link_all(directory / "A", directory / name)
    link_all(directory / "B", directory / "mtp-block")
    (directory / "merge.yml").write_text(MERGE)
    (directory / "view.yml").write_text(VIEW)
    return directory


def link_all(source: Path, to: Path) -> Path:
    """Hard links where the file system has them, so that a page sees ordinary files."""
    to.mkdir()
    for file in source.iterdir():
        try:
            os.link(file.resolve(), to / file.name)
        except OSError:
            (to / file.name).write_bytes(file.read_bytes())
    return to


def save_adapter(model: Path, to: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16)
        adapted = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.02)
    adapted.save_pretrained(to)


def save_pickled(base: Path, to: Path) -> None:
    to.mkdir()
    (to / "config.json").write_bytes((base / "config.json").read_bytes())
    tensors = {}
    for shard in sorted(base.glob("*.safetensors")):
        tensors |= load_file(shard)
    torch.save(tensors, to / "pytorch_model.bin")


def save_extra(base: Path, to: Path) -> None:
    tensors = {}
    for shard in sorted(base.glob("*.safetensors")):
        tensors |= load_file(shard)
    layer = {name: tensor for name, tensor in tensors.items() if ".layers.1." in name}
    extra = {name.replace("model.layers.1.", "mtp.layers.0."): t for name, t in layer.items()}
    to.mkdir()
    save_file(extra | {"lm_head.weight": tensors["lm_head.weight"]}, to / "model.safetensors")


def commands(directory: Path) -> dict[str, str]:
    """The environment in which pages find ckptfs, Python and vLLM."""
    directory.mkdir()
    (directory / "ckptfs").symlink_to(ckptfs.binary().resolve())
    # The build of vLLM for the CPU has another name in its metadata than the one that its own
    # command asks for.
    metadata = directory / "vllm-0.32.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n")
    python = Path(sys.executable).parent
    return {
        "PATH": f"{directory}:{python}:{os.environ['PATH']}",
        "PYTHONPATH": str(directory),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "OMP_NUM_THREADS": "2",
    }
