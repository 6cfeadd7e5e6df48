"""Tiny random models of the families whose tensors have other names, or other forms, in memory than in the
checkpoints of their authors: what transformers needs to be told to make one."""

import torch
import transformers
from transformers import CONFIG_MAPPING

EXPERTS = 3
HIDDEN = 32
TEXT = {
    "vocab_size": 96,
    "hidden_size": HIDDEN,
    "intermediate_size": 48,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_experts": EXPERTS,
    "num_local_experts": EXPERTS,
    "n_routed_experts": EXPERTS,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
    "projection_dim": 16,
}
AUDIO = {
    "d_model": 32,
    "hidden_size": 32,
    "intermediate_size": 48,
    "encoder_ffn_dim": 48,
    "encoder_layers": 2,
    "num_hidden_layers": 2,
    "encoder_attention_heads": 2,
    "num_attention_heads": 2,
    "num_mel_bins": 16,
    "max_source_positions": 32,
}
# Latent attention, as DeepSeek has it.
LATENT = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "qk_head_dim": 16,
    "v_head_dim": 8,
    "head_dim": 8,
    "num_key_value_heads": 4,
    "n_group": 1,
    "topk_group": 1,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
}
INDEXER = {"index_n_heads": 2, "index_head_dim": 16, "index_topk": 8}
ROUTED = {"n_group": 1, "topk_group": 1, "n_shared_experts": 1, "first_k_dense_replace": 1}
MAMBA = {"mamba_d_state": 8, "mamba_d_conv": 4, "mamba_expand": 2, "mamba_dt_rank": 8}
LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
}


def text(model_type: str, **settings) -> dict:
    return {**TEXT, "model_type": model_type, **settings}


def seeing(language: str, tower: str, **settings) -> dict:
    """A language model and a tower that looks at images."""
    return {"text_config": text(language), "vision_config": {**VISION, "model_type": tower},
            "image_token_index": 5, "image_token_id": 5, "pad_token_id": 0,
            "tie_word_embeddings": False, **settings}


def hearing(language: str, tower: str, **settings) -> dict:
    return {"text_config": text(language), "audio_config": {**AUDIO, "model_type": tower},
            "audio_token_id": 5, "audio_token_index": 5, "tie_word_embeddings": False, **settings}


# What config.json says, by model_type.
CONFIGS = {
    "mixtral": TEXT,
    "minimax": {**TEXT, "layer_types": ["linear_attention", "full_attention"]},
    "minimax_m2": TEXT,
    "qwen2_moe": TEXT,
    "qwen3_moe": TEXT,
    "qwen3_next": {**TEXT, **LINEAR},
    "qwen3_5_moe_text": {**TEXT, **LINEAR},
    "deepseek_v2": {**TEXT, **LATENT},
    "deepseek_v3": {**TEXT, **LATENT},
    "deepseek_v32": {**TEXT, **LATENT, **INDEXER},
    "glm_moe_dsa": {**TEXT, **LATENT, **INDEXER},
    "glm4_moe_lite": {**TEXT, **LATENT},
    "glm4_moe": {**TEXT, **ROUTED},
    "dots1": {**TEXT, **ROUTED, "layer_types": ["full_attention"] * 2},
    "solar_open": {**TEXT, **ROUTED},
    "afmoe": {**TEXT, "num_dense_layers": 1, "num_shared_experts": 1,
              "layer_types": ["full_attention"] * 2},
    "olmoe": TEXT,
    "flex_olmo": TEXT,
    "hunyuan_v1_moe": {**TEXT, "moe_topk": 2, "num_shared_expert": 1},
    "mellum": {**TEXT, "layer_types": ["full_attention"] * 2},
    "cohere2_moe": {**TEXT, "layer_types": ["full_attention"] * 2},
    "ernie4_5_moe": {**TEXT, "moe_num_experts": EXPERTS, "moe_k": 2, "moe_num_shared_experts": 1,
                     "moe_layer_start_index": 1, "moe_layer_end_index": 1},
    "exaone_moe": {**TEXT, **ROUTED, "num_shared_experts": 1,
                   "mlp_layer_types": ["dense", "sparse"],
                   "layer_types": ["full_attention"] * 2},
    "mimo_v2_flash": {**TEXT, **ROUTED, "mlp_layer_types": ["dense", "sparse"],
                      "layer_types": ["full_attention", "sliding_attention"]},
    "hy_v3": {**TEXT, "num_shared_experts": 1, "mlp_layer_types": ["dense", "sparse"]},
    "laguna": {**TEXT, "mlp_layer_types": ["dense", "sparse"],
               "layer_types": ["full_attention"] * 2},
    "axk1": {**TEXT, **LATENT},
    "phimoe": {**TEXT, "num_key_value_heads": 4},
    "lfm2_moe": {**TEXT, "num_dense_layers": 1, "layer_types": ["conv", "full_attention"]},
    "jamba": {**TEXT, **MAMBA, "attn_layer_period": 2, "attn_layer_offset": 1,
              "expert_layer_period": 2, "expert_layer_offset": 1, "use_mamba_kernels": False},
    "nemotron_h": {**TEXT, **ROUTED, "layers_block_type": ["mamba", "moe", "attention"],
                   "num_hidden_layers": 3, "moe_shared_expert_intermediate_size": 24,
                   "mamba_num_heads": 4, "mamba_head_dim": 16, "ssm_state_size": 16, "n_groups": 1},
    "granitemoe": TEXT,
    "granitemoeshared": {**TEXT, "shared_intermediate_size": 16},
    "granitemoehybrid": {**TEXT, "shared_intermediate_size": 16, "mamba_n_heads": 8,
                         "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1,
                         "layer_types": ["mamba", "attention"]},
    "kimi_linear": {**TEXT, **LATENT, "q_lora_rank": None, "num_shared_experts": 1,
                    "mlp_layer_types": ["dense", "sparse"],
                    "layer_types": ["linear_attention", "full_attention"],
                    "linear_num_heads": 4, "linear_head_dim": 8},
    "bailing_hybrid": {**TEXT, **LATENT, "layer_types": ["linear_attention", "full_attention"]},
    "deepseek_v4": {**TEXT, **INDEXER, "head_dim": 16, "qk_rope_head_dim": 8, "q_lora_rank": 16,
                    "o_lora_rank": 8, "o_groups": 2, "num_key_value_heads": 1},
    "hrm_text": {**TEXT, "num_key_value_heads": 4},
    "gpt_neox": TEXT,
    "llava": seeing("llama", "clip_vision_model"),
    "llava_next": seeing("llama", "clip_vision_model"),
    "llava_onevision": seeing("qwen2", "siglip_vision_model"),
    "vipllava": seeing("llama", "clip_vision_model", vision_feature_layers=[-1]),
    "paligemma": seeing("gemma", "siglip_vision_model", projection_dim=HIDDEN),
    "gemma3": seeing("gemma3_text", "siglip_vision_model", mm_tokens_per_image=4),
    "mistral3": seeing("mistral", "pixtral"),
    "internvl": seeing("qwen2", "internvl_vision"),
    "got_ocr2": seeing("qwen2", "got_ocr2"),
    "aria": seeing("aria_text", "idefics3_vision"),
    "aya_vision": seeing("cohere2", "siglip_vision_model"),
    "qwen2_vl": {
        "text_config": text("qwen2_vl_text", rope_parameters={
            "rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}),
        "vision_config": {"depth": 1, "embed_dim": 32, "hidden_size": HIDDEN, "num_heads": 2},
        "tie_word_embeddings": False},
    "qwen2_5_vl": {
        "text_config": text("qwen2_5_vl_text", rope_parameters={
            "rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}),
        "vision_config": {"depth": 1, "hidden_size": 32, "num_heads": 2, "intermediate_size": 48,
                          "out_hidden_size": HIDDEN, "fullatt_block_indexes": [0]},
        "tie_word_embeddings": False},
    "qwen3_vl_moe": {
        # Transformers tells experts by their shapes, and could not if hidden were twice this.
        "text_config": text("qwen3_vl_moe_text", moe_intermediate_size=24, rope_parameters={
            "rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}),
        "vision_config": {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2,
                          "out_hidden_size": HIDDEN, "deepstack_visual_indexes": [0],
                          "num_position_embeddings": 16},
        "tie_word_embeddings": False},
    "glm4v_moe": {
        "text_config": text("glm4v_moe_text", **ROUTED, rope_parameters={
            "rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1],
            "partial_rotary_factor": 1.0}),
        "vision_config": {"depth": 1, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2,
                          "out_hidden_size": HIDDEN, "image_size": 28, "patch_size": 14},
        "tie_word_embeddings": False},
    "mllama": {
        "text_config": text("mllama_text_model", cross_attention_layers=[1], rope_parameters={
            "rope_type": "default", "rope_theta": 10000.0}),
        "vision_config": {**VISION, "num_global_layers": 1, "attention_heads": 2,
                          "intermediate_layers_indices": [0], "vision_output_dim": 64,
                          "supported_aspect_ratios": [[1, 1]], "max_num_tiles": 1},
        "tie_word_embeddings": False},
    "qwen2_audio": hearing("qwen2", "qwen2_audio_encoder"),
    "voxtral": hearing("llama", "voxtral_encoder"),
    "fuyu": {**TEXT, "text_config": text("persimmon"), "image_size": 28, "patch_size": 14},
    "kimi_k25": {
        "text_config": text("deepseek_v3", **LATENT),
        "vision_config": {**VISION, "num_attention_heads": 2, "pos_emb_height": 4,
                          "pos_emb_width": 4, "pos_emb_time": 2},
        "tie_word_embeddings": False},
    "llava_next_video": seeing("llama", "clip_vision_model"),
    "qwen3_5_moe": {
        "text_config": text("qwen3_5_moe_text", **LINEAR, rope_parameters={
            "rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1],
            "partial_rotary_factor": 1.0}),
        "vision_config": {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2,
                          "out_hidden_size": HIDDEN, "num_position_embeddings": 16},
        "tie_word_embeddings": False},
    "glm5_next": {
        "text_config": text("glm5_next_text", **{**LATENT, "qk_rope_head_dim": 0, "qk_head_dim": 8}, **INDEXER, index_kpool=4, linear_num_heads=4, linear_head_dim=8,
                            mlp_layer_types=["dense", "sparse"],
                            layer_types=["linear_attention", "full_attention"]),
        "vision_config": {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2,
                          "out_hidden_size": HIDDEN},
        "tie_word_embeddings": False},
    "granite_speech": {
        "text_config": text("granite"),
        "encoder_config": {"num_layers": 2, "hidden_dim": 32, "num_heads": 2, "dim_head": 16,
                           "input_dim": 16, "output_dim": 12, "max_pos_emb": 16, "context_size": 8},
        "projector_config": {"model_type": "blip_2_qformer", "hidden_size": 32, "intermediate_size": 48,
                             "num_hidden_layers": 2, "num_attention_heads": 2,
                             "encoder_hidden_size": 32},
        "tie_word_embeddings": False, "has_lora_adapter": False},
    "audioflamingo3": hearing("qwen2", "audioflamingo3_encoder"),
    "emu3": {
        "text_config": text("emu3_text_model"),
        "vq_config": {"codebook_size": 16, "embed_dim": 4, "latent_channels": 4, "base_channels": 32,
                      "channel_multiplier": [1, 1], "num_res_blocks": 1, "hidden_size": 32,
                      "attn_resolutions": [], "num_attention_heads": 1},
        "vocabulary_map": {"<image>": 5}, "tie_word_embeddings": False},
    "minimax_m3_vl": {
        "text_config": text("minimax_m3_vl_text"),
        "vision_config": VISION,
        "tie_word_embeddings": False},
}


def auto_model(config, **settings):
    """A model of `config`, with everything that it can be given and says."""
    autos = [transformers.AutoModelForMultimodalLM, transformers.AutoModelForImageTextToText,
             transformers.AutoModelForCausalLM, transformers.AutoModelForSeq2SeqLM]
    auto = next(auto for auto in autos if type(config) in auto._model_mapping)
    return auto.from_config(config, **settings)


def model(model_type: str):
    """A random model of this family."""
    config = CONFIG_MAPPING[model_type].from_dict(CONFIGS[model_type])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = auto_model(config, dtype=torch.bfloat16)
        for tensor in made.state_dict().values():
            if tensor.is_floating_point():
                torch.nn.init.normal_(tensor, std=0.1)
    return made.eval()


@torch.no_grad()
def logits(made) -> torch.Tensor:
    ids = torch.arange(24).reshape(2, 12) + 10
    return made(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.float()
