"""A small checkpoint of the values and shapes where quantisers go wrong.

Each case is a weight of a layer of its own, named after what is special in it,
so that a failing comparison says which case fails.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from fp8_definition import BLOCK, E4M3_MAX

DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
BITS = {torch.bfloat16: torch.int16, torch.float16: torch.int16, torch.float32: torch.int32}
# Powers k at which 448 * 2^k is planted as a block's largest magnitude.
POWERS = {
    torch.bfloat16: [-130, -120, -9, -1, 0, 1, 60, 119],
    torch.float16: [-20, -9, -1, 0, 1, 7],
    torch.float32: [-130, -120, -9, -1, 0, 1, 60, 119],
}
SHAPES = [(200, 300), (1, 300), (300, 1), (1, 1), (129, 127), (127, 257)]
EXPERTS = 3


def random(shape, dtype, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).mul(0.02).to(dtype)


def zero_blocks(dtype) -> torch.Tensor:
    """Blocks of 0, of -0, of both, and of both beside one small number; then plain ones."""
    weight = random((2 * BLOCK, 4 * BLOCK), dtype)
    zeros = torch.zeros(BLOCK, BLOCK, dtype=dtype)
    both = zeros.clone()
    both[::3] = -0.0
    beside = both.clone()
    beside[5, 7] = -0.001
    weight[:BLOCK] = torch.cat([zeros, -zeros, both, beside], dim=1)
    return weight


def subnormals(dtype) -> torch.Tensor:
    """Blocks of all sizes of subnormals, of these and the smallest normals, of the smallest."""
    limits = torch.finfo(dtype)
    # Read as an integer, a subnormal is its multiple of the smallest one.
    multiples = torch.linspace(1, 1 / limits.eps - 1, BLOCK * BLOCK).to(BITS[dtype])
    only = multiples.view(dtype).reshape(BLOCK, BLOCK)
    only[1::2] *= -1
    with_normals = only.clone()
    with_normals[0, 0], with_normals[0, 1] = limits.smallest_normal, -limits.smallest_normal
    smallest = torch.full((BLOCK, BLOCK), limits.smallest_normal * limits.eps, dtype=dtype)
    return torch.cat([only, with_normals, smallest], dim=1)


def largest_magnitudes(dtype, steps_above: int) -> torch.Tensor:
    """Per power k a block whose largest magnitude lies `steps_above` 448 * 2^k."""
    blocks = []
    for power in POWERS[dtype]:
        largest = torch.tensor(E4M3_MAX * 2.0**power, dtype=dtype)
        largest = (largest.view(BITS[dtype]) + steps_above).view(dtype)
        fractions = (random((BLOCK, BLOCK), torch.float32) * 25).clamp(-1, 1)
        block = (fractions * largest.float()).to(dtype)
        block[3, 5] = -largest
        blocks.append(block)
    return torch.cat(blocks)


def extremes(dtype) -> torch.Tensor:
    """The format's largest numbers, among ordinary ones and among themselves."""
    among_ordinary = random((BLOCK, BLOCK), dtype)
    among_ordinary[0, 0], among_ordinary[100, 100] = torch.finfo(dtype).max, torch.finfo(dtype).min
    themselves = torch.full((BLOCK, BLOCK), torch.finfo(dtype).max, dtype=dtype)
    themselves[::2] *= -1
    return torch.cat([among_ordinary, themselves])


def every_finite_value(dtype) -> torch.Tensor:
    """All finite 16-bit patterns, by magnitude, so that a block's values are comparable."""
    values = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype)
    finite = values[values.isfinite()].float()
    finite = finite[finite.abs().argsort(stable=True)].to(dtype)
    return torch.cat([finite, finite[: -finite.numel() % BLOCK]]).reshape(-1, BLOCK)


def rounding_boundaries(scale: float) -> torch.Tensor:
    """Every e4m3 number, the middles between them, and the f32 next to these, times `scale`."""
    numbers = torch.arange(127, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    middles = (numbers[1:] + numbers[:-1]) / 2
    scaled = torch.cat([numbers, middles]) * scale
    far = torch.tensor(float("inf"))
    near = torch.cat([scaled, torch.nextafter(scaled, far), torch.nextafter(scaled, -far)])
    # Nothing may exceed the largest number, which fixes the block's scale.
    near = near.clamp(max=(E4M3_MAX * torch.tensor(scale)).item())
    both = torch.cat([near, -near])
    return both.repeat(BLOCK * BLOCK // both.numel() + 1)[: BLOCK * BLOCK].reshape(BLOCK, BLOCK)


def weights() -> dict[str, torch.Tensor]:
    """The cases that are plain matrices, by what is special in them."""
    cases = {}
    for label, dtype in DTYPES.items():
        cases[f"{label} zero blocks"] = zero_blocks(dtype)
        cases[f"{label} subnormals"] = subnormals(dtype)
        cases[f"{label} amax exactly 448 * 2^k"] = largest_magnitudes(dtype, 0)
        cases[f"{label} amax next above 448 * 2^k"] = largest_magnitudes(dtype, 1)
        cases[f"{label} amax next below 448 * 2^k"] = largest_magnitudes(dtype, -1)
        cases[f"{label} largest numbers"] = extremes(dtype)
        for rows, columns in SHAPES:
            cases[f"{label} {rows} x {columns}"] = random((rows, columns), dtype, rows)
    cases["bf16 every finite value"] = every_finite_value(torch.bfloat16)
    cases["f16 every finite value"] = every_finite_value(torch.float16)
    for scale in (1.0, 2.0**-100, 2.0**100, 1.1, 0.003, 1.7e-30):
        cases[f"f32 rounding boundaries at scale {scale:g}"] = rounding_boundaries(scale)
    return cases


def experts() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Fused experts, gate_up and down, whose rows end inside a block."""
    return {
        f"{label} experts": (
            random((EXPERTS, 200, 130), dtype, 1),
            random((EXPERTS, 130, 100), dtype, 2),
        )
        for label, dtype in DTYPES.items()
    }


def quantised() -> dict[str, tuple[str, torch.Tensor]]:
    """Case and value of every tensor that an FP8 view quantises, by tensor name."""
    tensors = {}
    layer = 0
    for case, weight in weights().items():
        tensors[f"model.layers.{layer}.mlp.down_proj.weight"] = (case, weight)
        layer += 1
    for case, (gate_up, down) in experts().items():
        tensors[f"model.layers.{layer}.mlp.experts.gate_up_proj"] = (case, gate_up)
        tensors[f"model.layers.{layer}.mlp.experts.down_proj"] = (case, down)
        layer += 1
    return tensors


def kept() -> dict[str, torch.Tensor]:
    """Tensors that an FP8 view shows as they are."""
    bf16 = torch.bfloat16
    return {
        "model.embed_tokens.weight": random((64, 128), bf16),
        "model.layers.0.input_layernorm.weight": random((128,), bf16),
        "model.layers.0.mlp.down_proj.bias": random((128,), bf16),
        "model.layers.0.mlp.gate.weight": random((8, 128), bf16),
        "model.layers.0.mlp.shared_expert_gate.weight": random((1, 128), bf16),
        "model.norm.weight": random((128,), torch.float32),
        "lm_head.weight": random((64, 128), bf16),
    }


def save(directory: Path) -> Path:
    """Saves the checkpoint in two shards and returns its directory."""
    tensors = {name: weight for name, (_, weight) in quantised().items()} | kept()
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    weight_map = {name: shards[i % 2] for i, name in enumerate(tensors)}
    for shard in shards:
        own = {name: tensors[name] for name in tensors if weight_map[name] == shard}
        save_file(own, directory / shard, metadata={"format": "pt"})
    total_size = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total_size}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    config = {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "num_hidden_layers": len(weights()) + len(experts()),
        "tie_word_embeddings": False,
    }
    (directory / "config.json").write_text(json.dumps(config))
    return directory
