"""Small random models of the architectures that can be written as GGUF, made and saved by transformers.

Rows have 256 elements, as super-blocks do, and some have fewer, so that types fall back.
"""

import json
from pathlib import Path

import torch
from sentencepiece import sentencepiece_model_pb2
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

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


# Those whose tokenizer is a tokenizer.model, and those that have a BPE of bytes.
OF_PIECES = [llama, mixtral, qwen2, qwen3, gemma3]
OF_BYTES = [qwen3_moe]


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
    else:
        save_pieces(directory)
    return directory


def save_pieces(directory: Path) -> None:
    """A tokenizer.model, with tokens added and replaced, and fewer of them than the model has rows."""
    model = sentencepiece_model_pb2.ModelProto()
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
