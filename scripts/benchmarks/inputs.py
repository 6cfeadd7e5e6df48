"""The checkpoints that are measured, made here: real bytes for reads, sparse files for metadata."""

import array
import json
import os
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

HIDDEN, INTERMEDIATE, KEY_VALUE = 4096, 12288, 1024
LAYER = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (KEY_VALUE, HIDDEN),
    "self_attn.v_proj": (KEY_VALUE, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (INTERMEDIATE, HIDDEN),
    "mlp.up_proj": (INTERMEDIATE, HIDDEN),
    "mlp.down_proj": (HIDDEN, INTERMEDIATE),
}
Shapes = dict[str, tuple[int, ...]]


def layer(prefix: str) -> Shapes:
    """The weights of a layer of Qwen3-8B."""
    return {f"{prefix}.{module}.weight": shape for module, shape in LAYER.items()}


def values(seed: int) -> bytes:
    """bf16 numbers of the size of weights. They repeat every 2 MiB: kernels look at less at once."""
    rng = random.Random(seed)
    numbers = (0x3C00 + rng.randrange(0x180) | rng.randrange(2) << 15 for _ in range(1 << 20))
    return array.array("H", numbers).tobytes()


def write_shard(path: Path, tensors: Shapes, pattern: bytes | None) -> None:
    """A shard of bf16 tensors. Without a pattern it has all its length, but no data on disk."""
    header, end = {}, 0
    for name, shape in tensors.items():
        begin, end = end, end + 2 * _product(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        if pattern is None:
            file.truncate(8 + len(text) + end)
            return
        for at in range(0, end, len(pattern)):
            file.write(pattern[: end - at])


def _product(shape: tuple[int, ...]) -> int:
    product = 1
    for dimension in shape:
        product *= dimension
    return product


def write_checkpoint(directory: Path, shards: list[Shapes], pattern: bytes | None) -> None:
    weight_map = {}
    for number, tensors in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        write_shard(directory / name, tensors, pattern)
        weight_map.update(dict.fromkeys(tensors, name))
    index = {"metadata": {}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    (directory / "config.json").write_text('{"model_type": "qwen3"}\n')


def make_base(directory: Path, layers: int, seed: int = 1) -> None:
    """A shard a layer, 386 MB each."""
    shards = [layer(f"model.layers.{number}") for number in range(layers)]
    write_checkpoint(directory, shards, values(seed))


def make_wide(directory: Path) -> None:
    """Matrices of a layer of Llama 3 70B."""
    hidden, intermediate, key_value = 8192, 28672, 1024
    shapes = {"q_proj": (hidden, hidden), "k_proj": (key_value, hidden), "v_proj": (key_value, hidden),
              "o_proj": (hidden, hidden)}  # fmt: skip
    attention = {f"model.layers.0.self_attn.{name}.weight": shape for name, shape in shapes.items()}
    mlp = {"model.layers.0.mlp.down_proj.weight": (hidden, intermediate)}
    write_checkpoint(directory, [attention | mlp], values(1))


def make_extra(directory: Path) -> None:
    """A layer that the base lacks, in one shard with a tensor that the base has: so what the patch
    adds is no whole file."""
    overlap = {"model.layers.0.self_attn.k_proj.weight": LAYER["self_attn.k_proj"]}
    write_checkpoint(directory, [overlap | layer("mtp.layers.0")], values(1))


def make_llama(directory: Path, layers: int) -> None:
    """The same layers as a Llama with a small vocabulary, whole enough for llama.cpp."""
    vocabulary = 320
    norms = ("input_layernorm", "post_attention_layernorm")
    shards = []
    for number in range(layers):
        prefix = f"model.layers.{number}"
        shards.append(layer(prefix) | {f"{prefix}.{norm}.weight": (HIDDEN,) for norm in norms})
    shards[0] |= {"model.embed_tokens.weight": (vocabulary, HIDDEN), "model.norm.weight": (HIDDEN,)}
    shards[-1] |= {"lm_head.weight": (vocabulary, HIDDEN)}
    write_checkpoint(directory, shards, values(1))
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": layers,
        "num_attention_heads": 32,
        "num_key_value_heads": KEY_VALUE // 128,
        "head_dim": 128,
        "vocab_size": vocabulary,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "tokenizer.model").write_bytes(sentencepieces(vocabulary))


def sentencepieces(count: int) -> bytes:
    """A model of SentencePiece: special pieces, all bytes, and some words."""
    unknown, control, byte, normal = 2, 3, 6, 1
    pieces = [("<unk>", unknown), ("<s>", control), ("</s>", control)]
    pieces += [(f"<0x{value:02X}>", byte) for value in range(256)]
    pieces += [(f"\u2581p{number}", normal) for number in range(count - len(pieces))]

    def message(field: int, content: bytes) -> bytes:
        return bytes([field << 3 | 2, len(content)]) + content

    def piece(text: str, kind: int) -> bytes:
        score = bytes([2 << 3 | 5]) + struct.pack("<f", 0.0)
        return message(1, message(1, text.encode()) + score + bytes([3 << 3, kind]))

    byte_fallback = bytes([35 << 3 & 0x7F | 0x80, 35 << 3 >> 7, 1])
    return b"".join(piece(*stated) for stated in pieces) + message(2, byte_fallback)


def make_many(directory: Path, shards: int) -> None:
    """100 tensors a shard and 2 GB a shard, all holes: mixture-of-experts layers of 20 shards."""
    per_layer = 20
    if shards % per_layer:
        raise ValueError(f"{shards} shards are not whole layers of {per_layer}")
    tensors: list[tuple[str, tuple[int, ...]]] = []
    for number in range(shards // per_layer):
        prefix = f"model.layers.{number}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors.append((f"{prefix}.{norm}.weight", (HIDDEN,)))
        for norm in ("q_norm", "k_norm"):
            tensors.append((f"{prefix}.self_attn.{norm}.weight", (128,)))
        for module in "qkvo":
            tensors.append((f"{prefix}.self_attn.{module}_proj.weight", (2560, HIDDEN)))
        for expert in range(664):
            for module in ("gate", "up", "down"):
                shape = (HIDDEN, 2560) if module == "down" else (2560, HIDDEN)
                tensors.append((f"{prefix}.mlp.experts.{expert}.{module}_proj.weight", shape))
    parts = [dict(tensors[at : at + 100]) for at in range(0, len(tensors), 100)]
    write_checkpoint(directory, parts, None)


def make_small_files(directory: Path, files: int) -> None:
    """One 128 x 128 tensor a shard."""
    name = "model.layers.{}.mlp.down_proj.weight"
    write_checkpoint(directory, [{name.format(n): (128, 128)} for n in range(files)], None)


def cached(directory: Path, make: Callable[[Path], None]) -> Path:
    """`directory`, made unless an earlier run left it whole."""
    if not directory.exists():
        partial = directory.with_name(f"{directory.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        make(partial)
        os.sync()
        partial.rename(directory)
    return directory
