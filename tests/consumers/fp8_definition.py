"""Block FP8, written down from its definition: slow, plain, and the tests' only authority.

A weight is cut into blocks of 128 x 128, partial at the edges. With `amax` the
largest magnitude in a block, its scale `s` is

    float32   f32(f64(amax) / 448)
    ue8m0     the smallest power of two with amax / s <= 448

never below 2^-126, and 1 for a block of zeros. A value's code is e4m3(f32(x) / s),
to nearest even, saturating at +-448. A 3-D tensor is a stack of such weights.
"""

import math
import re

import torch

BLOCK = 128
E4M3_MAX = 448.0
SMALLEST_SCALE = 2.0**-126

_LAYER = r"(?:(?:model\.)?(?:language_model\.)?|mtp\.)layers\.\d+\."
_WEIGHT = "|".join([
    r"self_attn\.[qkvo]_proj\.weight",
    r"mlp\.(?:gate|up|down)_proj\.weight",
    r"mlp\.experts\.\d+\.(?:gate|up|down)_proj\.weight",
    r"mlp\.experts\.(?:gate_up|down)_proj",
    r"mlp\.shared_expert\.(?:gate|up|down)_proj\.weight",
    r"linear_attn\.(?:in_proj_qkv|in_proj_z|out_proj)\.weight",
])
_QUANTISED = re.compile(f"{_LAYER}(?:{_WEIGHT})")


def is_quantised(name: str) -> bool:
    """Whether the rule set selects the tensor of this name."""
    return _QUANTISED.fullmatch(name) is not None


def scale_of_block(amax: float, scale_fmt: str) -> float:
    if amax == 0.0:
        return 1.0
    if scale_fmt == "float32":
        scale = amax / E4M3_MAX
    else:
        # amax = mantissa * 2^exponent, mantissa in [0.5, 1); 448 = 0.875 * 2^9.
        mantissa, exponent = math.frexp(amax)
        scale = math.ldexp(1.0, exponent - 9 + (mantissa > 0.875))
    return max(scale, SMALLEST_SCALE)


def quantise(weight: torch.Tensor, scale_fmt: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes (F8_E4M3, the weight's shape) and scales (F32, a number per block)."""
    if weight.dim() == 3:
        pairs = [quantise(matrix, scale_fmt) for matrix in weight]
        return torch.stack([codes for codes, _ in pairs]), torch.stack([s for _, s in pairs])
    rows, columns = weight.shape
    codes = torch.empty(rows, columns, dtype=torch.float8_e4m3fn)
    scales = torch.empty(-(-rows // BLOCK), -(-columns // BLOCK), dtype=torch.float32)
    for i in range(scales.shape[0]):
        for j in range(scales.shape[1]):
            at = (slice(i * BLOCK, (i + 1) * BLOCK), slice(j * BLOCK, (j + 1) * BLOCK))
            values = weight[at].float()
            scales[i, j] = scale_of_block(values.abs().max().item(), scale_fmt)
            in_range = (values / scales[i, j]).clamp(-E4M3_MAX, E4M3_MAX)
            codes[at] = in_range.to(torch.float8_e4m3fn)
    return codes, scales


def dequantise(codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """The f32 weight that a 2-D tensor of codes and its scales stand for."""
    rows, columns = codes.shape
    per_value = scales.repeat_interleave(BLOCK, 0)[:rows].repeat_interleave(BLOCK, 1)[:, :columns]
    return codes.float() * per_value
