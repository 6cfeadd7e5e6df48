"""Calls llm-compressor and compressed-tensors, in an environment that has them (scripts/llm-compressor).

    llm_compressor.py quantize MODEL OUT PRESET     model_free_ptq
    llm_compressor.py dequantize MODEL OUT          convert_checkpoint, of FP8 in blocks to BF16
"""

import os
import sys

IGNORED = ["lm_head", "re:.*embed_tokens"]


def quantize(model: str, out: str, preset: str) -> None:
    from llmcompressor import model_free_ptq

    model_free_ptq(model, out, scheme=preset, ignore=IGNORED, max_workers=os.cpu_count(), device="cpu")


def dequantize(model: str, out: str) -> None:
    import torch
    from compressed_tensors.entrypoints.convert import FP8BlockDequantizer, convert_checkpoint

    converter = FP8BlockDequantizer(targets=["re:.*proj$"], weight_block_size=(128, 128), dtype=torch.bfloat16)
    convert_checkpoint(model, out, converter, max_workers=os.cpu_count(), device="cpu")


if __name__ == "__main__":
    {"quantize": quantize, "dequantize": dequantize}[sys.argv[1]](*sys.argv[2:])
