"""Small random mixtures of experts, made and saved by transformers itself.

Every dimension of a weight for FP8 is a multiple of 128. Every expert takes part
in every token: rounding then shifts what the router gives to each, where it
could otherwise choose others, and no expert's weights are without effect.
"""

from pathlib import Path

import torch
from transformers import (
    Qwen3_5MoeForCausalLM,
    Qwen3_5MoeTextConfig,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

EXPERTS = 4
VOCABULARY = 256
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 256,
    "moe_intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "num_experts": EXPERTS,
    "num_experts_per_tok": EXPERTS,
    "max_position_embeddings": 128,
    # Larger than usual, so that the layers weigh as much as the embeddings.
    "initializer_range": 0.08,
}
HYBRID = {
    "shared_expert_intermediate_size": 128,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 64,
    "linear_value_head_dim": 64,
    "layer_types": ["linear_attention", "full_attention"],
}


def qwen3_moe():
    return Qwen3MoeForCausalLM(Qwen3MoeConfig(**SHAPE))


def qwen3_5_moe():
    """Linear attention in one layer, full attention in the other, shared experts in both."""
    return Qwen3_5MoeForCausalLM(Qwen3_5MoeTextConfig(**SHAPE, **HYBRID))


MODELS = [qwen3_moe, qwen3_5_moe]
FORMS = ["per-expert", "fused"]


def save(model, form: str, directory: Path) -> Path:
    """Saves a random model with its experts in one form, as transformers can in both."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = model().to(torch.bfloat16)
    # The format of the hub's checkpoints, or that of the model in memory.
    made.save_pretrained(
        directory, max_shard_size="500KB", save_original_format=form == "per-expert"
    )
    return directory
