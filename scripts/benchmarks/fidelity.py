"""Prints what scripts/fidelity says: MODEL LLM_COMPRESSOR."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from pydoc_data.topics import topics

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
CALLS = Path(__file__).resolve().with_name("llm_compressor.py")
# Tokens of the language reference that comes with Python.
WINDOWS, LENGTH = 8, 256
# Ours, and the preset of llm-compressor.
SCHEMES = {
    "fp8-block": None,
    "fp8-block --dialect compressed-tensors": "FP8_BLOCK",
    "fp8-channel": "FP8_DYNAMIC",
    "int8-channel": "INT8",
    "int4": "W4A16",
    "int4:group=32": None,
    "int4:asymmetric": "W4A16_ASYM",
    "nvfp4": "NVFP4A16",
    "nvfp4 --dialect modelopt": None,
    "mxfp4": "MXFP4A16",
    "mxfp4 --dialect modelopt": None,
    "mxfp8": "MXFP8",
}


def ckptfs(*arguments) -> None:
    subprocess.run([TARGET / "release" / "ckptfs", *arguments], check=True, capture_output=True)


def perplexity(checkpoint: Path, windows: torch.Tensor) -> float:
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    with torch.inference_mode():
        losses = [model(input_ids=window[None], labels=window[None]).loss.double() for window in windows]
    return torch.stack(losses).mean().exp().item()


def in_float32(checkpoint: Path, scratch: Path) -> Path:
    """The numbers that a checkpoint stands for."""
    out = scratch / "numbers"
    ckptfs("materialize", "--base", checkpoint, "--dtype", "f32", "--out", out, "--overwrite")
    return out


def tensors_of(checkpoint: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in checkpoint.glob("*.safetensors") for name, tensor in load_file(file).items()}


def codes_of(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Of each element one."""
    codes = tensor.view(torch.uint8)
    return torch.stack([codes & 15, codes >> 4]) if name.endswith("packed") else codes


def shares(ours: Path, theirs: Path) -> list[str]:
    """How many of the scales and codes are the same, in percent."""
    found, other = tensors_of(ours), tensors_of(theirs)
    counts = {"scale": [0, 0], "code": [0, 0]}
    for name, tensor in found.items():
        if f"{name.removesuffix('_packed')}_scale" in found:
            same = codes_of(name, tensor) == codes_of(name, other[name])
            kind = "code"
        elif name.endswith(("_scale", "_zero_point")):
            same = tensor.flatten().float() == other[name].flatten().float()
            kind = "scale"
        else:
            continue
        counts[kind][0] += int(same.sum())
        counts[kind][1] += same.numel()
    return [f"{100 * same / count:.2f}" for same, count in counts.values()]


def main() -> None:
    model, llm_compressor = Path(sys.argv[1]), sys.argv[2]
    text = "\n".join(topics[name] for name in sorted(topics))
    tokens = AutoTokenizer.from_pretrained(model)(text, return_tensors="pt").input_ids[0]
    # Far from each other.
    windows = tokens[: len(tokens) // LENGTH * LENGTH].view(-1, LENGTH)
    windows = windows[:: len(windows) // WINDOWS][:WINDOWS]
    print(f"in bf16: {perplexity(model, windows):.3f}\n", flush=True)
    print("| scheme | perplexity | llm-compressor's | same scales, % | same codes, % |\n|---|---|---|---|---|", flush=True)
    for scheme, preset in SCHEMES.items():
        with tempfile.TemporaryDirectory(dir=TARGET) as directory:
            scratch = Path(directory)
            ours, theirs = scratch / "ours", scratch / "theirs"
            ckptfs("materialize", "--base", model, "--quantize", *scheme.split(), "--out", ours)
            found = [f"{perplexity(in_float32(ours, scratch), windows):.3f}", "", "", ""]
            if preset:
                command = [sys.executable, CALLS, "quantize", model, theirs, preset]
                environment = os.environ | {"PYTHONPATH": llm_compressor}
                subprocess.run(command, check=True, capture_output=True, env=environment)
                found[1:] = [f"{perplexity(in_float32(theirs, scratch), windows):.3f}", *shares(ours, theirs)]
            print(f"| `{scheme}` | {' | '.join(found)} |", flush=True)


if __name__ == "__main__":
    main()
