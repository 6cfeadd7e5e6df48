"""What compressed-tensors and ModelOpt themselves make of a weight in MXFP4, MXFP8 and NVFP4, in float32, and what
OpenAI's Triton kernels make of experts of gpt-oss, from their formulas.
"""

import sys
from unittest import mock

import torch
from compressed_tensors.compressors.nvfp4.helpers import pack_fp4_to_uint8
from compressed_tensors.quantization.lifecycle.forward import quantize
from compressed_tensors.quantization.quant_args import FP4_E2M1_DATA
from compressed_tensors.quantization.quant_scheme import preset_name_to_scheme
from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam

# ModelOpt imports a solver of 36 MB, for searches that nothing here makes.
sys.modules.setdefault("pulp", mock.MagicMock())
from modelopt.torch.quantization.qtensor import MXFP4QTensor, MXFP8QTensor, NVFP4QTensor  # noqa: E402

# It is compiled, which takes longer than it computes here.
FP4_E2M1_DATA.cast_to_fp4 = staticmethod(
    getattr(FP4_E2M1_DATA.cast_to_fp4, "_torchdynamo_orig_callable", FP4_E2M1_DATA.cast_to_fp4)
)

PRESETS = {"mxfp4": "MXFP4A16", "mxfp8": "MXFP8", "nvfp4": "NVFP4A16"}
BOUNDS = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0])


def quantised(weight: torch.Tensor, scheme: str, dialect: str, largest: float) -> dict[str, torch.Tensor]:
    """The tensors of a weight, by what their names add to the module's. `largest` is the largest
    magnitude of all that share the scale of all."""
    weight = weight.float()
    if dialect == "modelopt":
        return of_modelopt(weight, scheme, largest)
    args = preset_name_to_scheme(PRESETS[scheme], ["Linear"]).weights
    groups = weight.unflatten(-1, (-1, args.group_size))
    everything = None
    if scheme == "nvfp4":
        everything = generate_gparam(torch.tensor(-largest), torch.tensor(largest))
    scale, _ = calculate_qparams(groups.amin(-1), groups.amax(-1), args, global_scale=everything)
    # Multiplying by a scale of 2⁻¹²⁷ is right; compressed-tensors takes its logarithm to store it.
    codes = quantize(weight, scale, None, args, global_scale=everything)
    if scheme == "nvfp4":
        return {
            "weight_packed": pack_fp4_to_uint8(codes),
            "weight_scale": scale.to(torch.float8_e4m3fn),
            "weight_global_scale": everything,
        }
    exponents = (127 + torch.floor(torch.log2(scale))).to(torch.uint8)
    if scheme == "mxfp8":
        return {"weight": codes.to(torch.float8_e4m3fn), "weight_scale": exponents}
    return {"weight_packed": pack_fp4_to_uint8(codes), "weight_scale": exponents}


def of_modelopt(weight: torch.Tensor, scheme: str, largest: float) -> dict[str, torch.Tensor]:
    group = 16 if scheme == "nvfp4" else 32
    if scheme == "mxfp8":
        made, scale = MXFP8QTensor.quantize(weight.clone())
        return {"weight": made._quantized_data, "weight_scale": scale.reshape(weight.shape[0], -1)}
    if scheme == "mxfp4":
        made, scale = MXFP4QTensor.quantize(weight.clone(), group)
        return {"weight": made._quantized_data, "weight_scale": scale.reshape(weight.shape[0], -1)}
    everything = torch.tensor(largest) / (6.0 * 448.0)
    everything = torch.where(everything == 0, 1.0, everything)
    made, scale, _ = NVFP4QTensor.quantize(
        weight.clone(), group, weights_scaling_factor_2=everything
    )
    return {
        "weight": made._quantized_data,
        "weight_scale": scale.reshape(weight.shape[0], -1),
        "weight_scale_2": everything,
    }


def pack(codes: torch.Tensor) -> torch.Tensor:
    codes = codes.to(torch.uint8)
    return codes[..., ::2] | codes[..., 1::2] << 4


def of_gpt_oss(experts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Blocks and scales of experts `[E, K, N]`."""
    groups = experts.float().transpose(1, 2).unflatten(-1, (-1, 32))
    bits = (groups.abs().amax(-1) / 6).contiguous().view(torch.int32)
    scales = (bits + 0x7FFFFF) >> 23
    quotients = groups * torch.exp2(127.0 - scales)[..., None]
    at = (quotients.abs()[..., None] >= BOUNDS).sum(-1)
    codes = torch.where(torch.signbit(quotients), 8, 0) + at
    return pack(codes), scales.to(torch.uint8)
