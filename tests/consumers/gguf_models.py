"""Small random models of the architectures that can be written as GGUF, made and saved by transformers.

Rows have 256 elements, as super-blocks do, and some have fewer, so that types fall back.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from sentencepiece import sentencepiece_model_pb2
from transformers import (
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3_5ForCausalLM,
    Qwen3_5TextConfig,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
    Qwen3NextConfig,
    Qwen3NextForCausalLM,
)

import block_definition

PIECES = 300
SHAPE = {
    "vocab_size": PIECES + 20,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 9,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 128}


def llama():
    """With biases, and rows of 288 elements in some matrices."""
    shape = SHAPE | {"intermediate_size": 288, "attention_bias": True}
    return LlamaForCausalLM(LlamaConfig(**shape, rope_parameters=LLAMA3))


def mixtral():
    shape = SHAPE | {"num_hidden_layers": 2}
    return MixtralForCausalLM(MixtralConfig(**shape, num_local_experts=8))


def qwen2():
    shape = SHAPE | {"tie_word_embeddings": True, "num_key_value_heads": 8}
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 1e6}
    return Qwen2ForCausalLM(Qwen2Config(**shape, rope_parameters=yarn))


def qwen3():
    return Qwen3ForCausalLM(Qwen3Config(**SHAPE, head_dim=64))


def qwen3_moe():
    shape = SHAPE | {"num_hidden_layers": 2}
    return Qwen3MoeForCausalLM(Qwen3MoeConfig(**shape, **EXPERTS, head_dim=64))


def gemma3():
    shape = SHAPE | {"tie_word_embeddings": True}
    return Gemma3ForCausalLM(Gemma3TextConfig(**shape, head_dim=32, sliding_window=64))


LINEAR = {
    "num_hidden_layers": 2,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 64,
    "linear_value_head_dim": 64,
    "layer_types": ["linear_attention", "full_attention"],
    "head_dim": 64,
}
SHARED = EXPERTS | {"shared_expert_intermediate_size": 128}


def qwen3_next():
    return Qwen3NextForCausalLM(Qwen3NextConfig(**SHAPE | LINEAR, **SHARED))


def qwen3_5():
    return Qwen3_5ForCausalLM(Qwen3_5TextConfig(**SHAPE | LINEAR))


def deepseek_v3():
    latent = {"q_lora_rank": 128, "kv_lora_rank": 256, "qk_nope_head_dim": 64, "v_head_dim": 32,
              "qk_rope_head_dim": 32, "num_key_value_heads": 8, "num_hidden_layers": 3}
    routed = {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1,
              "moe_intermediate_size": 128, "n_shared_experts": 1, "first_k_dense_replace": 1}
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32,
            "rope_theta": 1e4, "mscale": 1.0, "mscale_all_dim": 1.0}
    return DeepseekV3ForCausalLM(DeepseekV3Config(**SHAPE | latent, **routed, rope_parameters=yarn))


def gpt_oss():
    """`save` has its experts in MXFP4 where the rest is in bf16, as they are released."""
    shape = SHAPE | {"num_hidden_layers": 2, "sliding_window": 64}
    routed = {"num_local_experts": 4, "num_experts_per_tok": 2}
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 150000.0,
            "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False}
    return GptOssForCausalLM(GptOssConfig(**shape, **routed, head_dim=32, rope_parameters=yarn))


# Those whose tokenizer is a tokenizer.model, and those that have a BPE of bytes.
OF_PIECES = [llama, mixtral, qwen2, qwen3, gemma3]
# (For a Qwen3.5-MoE, transformers makes a tokenizer of its own, which the converter does not know.)
OF_BYTES = [qwen3_moe, qwen3_next, qwen3_5, deepseek_v3, gpt_oss]
# Those that the converter wants to have a layer that predicts more tokens.
WITH_MTP = [qwen3_next, qwen3_5]


def save(model, directory: Path, tokenizer: Path, dtype=torch.bfloat16) -> Path:
    """Saves a random model; `tokenizer` is a checkpoint that one of bytes is taken from."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = model()
        if model in OF_BYTES:
            made.resize_token_embeddings(json.loads(
                (tokenizer / "config.json").read_text())["vocab_size"])
        # Norms are ones at first.
        for name, weight in made.named_parameters():
            if weight.dim() == 1:
                torch.nn.init.normal_(weight, std=0.3)
        made = made.to(dtype)
    made.save_pretrained(directory, max_shard_size="900KB")
    if model in WITH_MTP:
        add_mtp(directory)
    if model is gpt_oss and dtype == torch.bfloat16:
        quantize_experts(directory)
    generation = directory / "generation_config.json"
    told = json.loads(generation.read_text()) | {
        "top_k": 20, "top_p": 0.8, "temperature": 0.7, "repetition_penalty": 1.05}
    generation.write_text(json.dumps(told))
    (directory / "README.md").write_text(
        "---\nlicense: apache-2.0\nbase_model: someone/Some-Model-1B-v2\nlanguage:\n- en\n- no\n"
        "tags: [a, b]\npipeline_tag: text-generation\ndatasets:\n- someone/data\n---\n# A model\n")
    if model in OF_BYTES:
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            (directory / name).write_bytes((tokenizer / name).read_bytes())
        # For some kinds of models, transformers would make another tokenizer of these files.
        config = directory / "tokenizer_config.json"
        told = json.loads(config.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
        config.write_text(json.dumps(told))
    else:
        save_pieces(directory)
    return directory


def save_pieces(directory: Path) -> None:
    """A tokenizer.model, with tokens added and replaced, and fewer of them than the model has rows."""
    model = sentencepiece_model_pb2.ModelProto()
    model.trainer_spec.byte_fallback = True
    kinds = model.SentencePiece
    pieces = [("<unk>", 0.0, kinds.UNKNOWN), ("<s>", 0.0, kinds.CONTROL), ("</s>", 0.0, kinds.CONTROL)]
    pieces += [(f"<0x{byte:02X}>", 0.0, kinds.BYTE) for byte in range(256)]
    pieces += [("▁", -1.5, kinds.NORMAL), ("<extra>", 0.0, kinds.USER_DEFINED),
               ("<none>", 0.0, kinds.UNUSED)]
    pieces += [(f"▁p{i}", -float(i) / 3, kinds.NORMAL) for i in range(PIECES - len(pieces))]
    for piece, score, kind in pieces:
        model.pieces.add(piece=piece, score=score, type=kind)
    (directory / "tokenizer.model").write_bytes(model.SerializeToString())
    (directory / "added_tokens.json").write_text(json.dumps({"<more>": PIECES, "<beyond>": 9999}))
    added = {
        "1": {"content": "<s>", "special": True},
        str(PIECES + 1): {"content": "<|turn|>", "special": False},
        str(PIECES + 2): {"content": "▁a▁b", "special": False},
    }
    (directory / "tokenizer_config.json").write_text(json.dumps({
        "add_bos_token": True, "add_eos_token": False, "bos_token": "<s>",
        "eos_token": {"content": "</s>"}, "add_prefix_space": False,
        "added_tokens_decoder": added, "tokenizer_class": "LlamaTokenizer",
        "chat_template": "{% for m in messages %}{{ m.content }}ü{% endfor %}",
    }))


def add_mtp(directory: Path) -> None:
    """A layer that predicts more tokens: a copy of the one with full attention, and what goes with it."""
    last = "model.layers.1."
    copies = {}
    for shard in directory.glob("*.safetensors"):
        for name, tensor in load_file(shard).items():
            if name.startswith(last):
                copies[f"mtp.layers.0.{name.removeprefix(last)}"] = tensor * 2
    hidden = SHAPE["hidden_size"]
    copies["mtp.fc.weight"] = torch.randn(hidden, 2 * hidden).to(torch.bfloat16)
    for norm in ("norm", "pre_fc_norm_embedding", "pre_fc_norm_hidden"):
        copies[f"mtp.{norm}.weight"] = torch.randn(hidden).to(torch.bfloat16)
    # Into a shard that there is, so that names stay standard.
    shard = max(directory.glob("*.safetensors"))
    save_file(load_file(shard) | copies, shard, metadata={"format": "pt"})
    index = directory / "model.safetensors.index.json"
    listed = json.loads(index.read_text())
    listed["weight_map"] |= {name: shard.name for name in copies}
    index.write_text(json.dumps(listed))


def quantize_experts(directory: Path) -> None:
    """Has the experts of a gpt-oss in MXFP4, as they are released."""
    index = directory / "model.safetensors.index.json"
    listed = json.loads(index.read_text())
    for shard in directory.glob("*.safetensors"):
        tensors = load_file(shard)
        for name in [name for name in tensors if name.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
            parts = dict(zip(("blocks", "scales"), block_definition.of_gpt_oss(tensors.pop(name))))
            tensors |= {f"{name}_{part}": tensor.contiguous() for part, tensor in parts.items()}
            del listed["weight_map"][name]
            listed["weight_map"] |= {f"{name}_{part}": shard.name for part in parts}
        save_file(tensors, shard, metadata={"format": "pt"})
    index.write_text(json.dumps(listed))
    config = json.loads((directory / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": [
        "model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]}
    (directory / "config.json").write_text(json.dumps(config))
