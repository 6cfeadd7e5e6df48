"""What compressed-tensors itself makes of a weight, with every division in float32.

Scales are rounded to the weight's dtype, as compressed-tensors stores them; codes are then those that its
`quantize` gives for the weight and these scales in float32. llm-compressor divides in the weight's dtype, so
that some of its codes differ by one.
"""

import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import quantize
from compressed_tensors.quantization.quant_scheme import preset_name_to_scheme
from compressed_tensors.quantization.utils import calculate_qparams

PRESETS = {
    "fp8-channel": "FP8_DYNAMIC",
    "int8-channel": "W8A8",
    "int4": "W4A16",
    "int4:group=32": "W4A16",
    "int4:asymmetric": "W4A16_ASYM",
    "fp8-block": "FP8_BLOCK",
}


def arguments(scheme: str) -> QuantizationArgs:
    args = preset_name_to_scheme(PRESETS[scheme], ["Linear"]).weights
    return args.model_copy(update={"group_size": 32}) if "group=32" in scheme else args


def blocks(weight: torch.Tensor, args: QuantizationArgs) -> torch.Tensor:
    """The numbers that share a scale, along the last of three dimensions."""
    rows, columns = weight.shape
    if args.strategy == "channel":
        return weight[:, None, :]
    if args.strategy == "group":
        return weight.reshape(rows, columns // args.group_size, args.group_size)
    high, wide = args.block_structure
    padded = torch.zeros(-(-rows // high) * high, -(-columns // wide) * wide, dtype=weight.dtype)
    padded[:rows, :columns] = weight
    grid = padded.reshape(padded.shape[0] // high, high, padded.shape[1] // wide, wide)
    return grid.transpose(1, 2).flatten(2)


def quantised(weight: torch.Tensor, scheme: str) -> dict[str, torch.Tensor]:
    """The tensors of a weight, by what their names add to the module's."""
    args = arguments(scheme)
    shared = blocks(weight.float(), args)
    scale, zero_point = calculate_qparams(shared.amin(-1), shared.amax(-1), args)
    stored = scale.to(weight.dtype)
    # Where the dtype cannot hold it.
    stored[stored == 0] = torch.finfo(weight.dtype).eps
    empty = (shared.amin(-1).clamp(max=0) == 0) & (shared.amax(-1).clamp(min=0) == 0)
    stored[empty] = torch.finfo(weight.dtype).eps
    used = stored.float()
    if not args.symmetric:
        least = shared.amin(-1).clamp(max=0)
        zero_point = (-8 - least / used).clamp(-8, 7).round().to(torch.int8)
        zero_point[empty] = 0
    codes = quantize(
        weight.float(), used, None if args.symmetric else zero_point, args,
        dtype=torch.int8 if args.type == "int" else torch.float8_e4m3fn,
    )
    if args.num_bits == 8:
        return {"weight": codes, "weight_scale": stored}
    tensors = {
        "weight_packed": pack_to_int32(codes, 4),
        "weight_scale": stored,
        "weight_shape": torch.tensor(weight.shape),
    }
    if not args.symmetric:
        tensors["weight_zero_point"] = pack_to_int32(zero_point, 4, packed_dim=0).contiguous()
    return tensors
