"""Small random models of the families that official FP8 rules know, saved by transformers itself.

Their names are those of the hub's checkpoints. config.json gets what vLLM also looks for in it.
"""

import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

SHAPE = {
    "vocab_size": 256,
    "hidden_size": 256,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 128,
}
ROUTED = {"num_experts_per_tok": 2, "moe_intermediate_size": 128}
# The first layer is dense.
GROUPED = {
    **ROUTED, "n_routed_experts": 4, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1,
}
LATENT = {
    **GROUPED, "num_key_value_heads": 4, "q_lora_rank": 128, "kv_lora_rank": 128,
    "qk_rope_head_dim": 64, "qk_nope_head_dim": 64, "v_head_dim": 64, "head_dim": None,
}
INDEXED = {**LATENT, "index_n_heads": 2, "index_head_dim": 128, "index_topk": 64}
HYBRID = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2, "linear_num_value_heads": 4,
    "linear_key_head_dim": 64, "linear_value_head_dim": 64,
}
SHARED = {**ROUTED, "num_experts": 4, "shared_expert_intermediate_size": 128}
MAMBA = {
    "num_hidden_layers": None, "layers_block_type": ["mamba", "attention", "mlp"],
    "mamba_num_heads": 4, "mamba_head_dim": 64, "n_groups": 1, "ssm_state_size": 128,
}
SPARSE = {
    "num_hidden_layers": None, "layers_block_type": ["mamba", "attention", "moe"],
    "mamba_num_heads": 4, "mamba_head_dim": 64, "n_groups": 1, "ssm_state_size": 128,
    "n_routed_experts": 4, "moe_shared_expert_intermediate_size": 128, **ROUTED,
}

# By what tests call them: model_type, and what its config has besides SHAPE (or without it).
FAMILIES = {
    "deepseek_v3": ("deepseek_v3", LATENT),
    "kimi_k2": ("deepseek_v3", LATENT),
    "deepseek_v32": ("deepseek_v32", INDEXED),
    "glm_moe_dsa": ("glm_moe_dsa", {**INDEXED, "mlp_layer_types": ["dense", "sparse"]}),
    "glm4_moe": ("glm4_moe", GROUPED),
    "qwen3": ("qwen3", {}),
    "qwen3_moe": ("qwen3_moe", {**ROUTED, "num_experts": 4}),
    "qwen3_next": ("qwen3_next", {**SHARED, **HYBRID}),
    "qwen3_5_text": ("qwen3_5_text", HYBRID),
    "qwen3_5_moe_text": ("qwen3_5_moe_text", {**SHARED, **HYBRID}),
    "minimax_m2": ("minimax_m2", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "mixtral": ("mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "llama": ("llama", {}),
    "gemma3_text": ("gemma3_text", {}),
    "nemotron_h": ("nemotron_h", MAMBA),
    "nemotron_h, sparse": ("nemotron_h", SPARSE),
}
# What the config.json of the releases has, and transformers does not write.
ADDED = {
    "deepseek_v3": {"topk_method": "noaux_tc"},
    "kimi_k2": {"model_type": "kimi_k2", "topk_method": "noaux_tc"},
    "minimax_m2": {"rotary_dim": 64, "scoring_func": "sigmoid", "use_routing_bias": True},
}


def save(family: str, directory: Path) -> Path:
    model_type, differences = FAMILIES[family]
    settings = {key: value for key, value in {**SHAPE, **differences}.items() if value is not None}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = CONFIG_MAPPING[model_type](**settings)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(directory, max_shard_size="500KB")
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | ADDED.get(family, {})))
    return directory
