"""Small random models with a block for multi-token prediction (MTP), which transformers does not save.

The block is made of the last layer, with noise, and of what its family has besides, under the names of
the releases.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from fp8_families import SHAPE, save as save_without

HIDDEN = SHAPE["hidden_size"]
LAYERS = SHAPE["num_hidden_layers"]
# The layer after the last one, with copies of embedding and head.
NEXTN = {
    "layer": f"model.layers.{LAYERS}.",
    "rest": f"model.layers.{LAYERS}.",
    "norms": ["enorm", "hnorm", "shared_head.norm"],
    "projection": "eh_proj",
    "copies": {"embed_tokens": "model.embed_tokens", "shared_head.head": "lm_head"},
}
# By model_type: the prefixes of its layer and of the rest, and what is in the rest.
BLOCKS = {
    "deepseek_v3": NEXTN,
    "glm4_moe": NEXTN,
    "qwen3_next": {
        "layer": "mtp.layers.0.",
        "rest": "mtp.",
        "norms": ["norm", "pre_fc_norm_embedding", "pre_fc_norm_hidden"],
        "projection": "fc",
        "copies": {},
    },
}
MTP_SHARD = "model-mtp.safetensors"
MTP_CONFIG = {"num_nextn_predict_layers": 1}


def save(family: str, directory: Path) -> Path:
    """Saves a model of a family with its MTP block in a shard of its own."""
    save_without(family, directory)
    tensors = {}
    for shard in sorted(directory.glob("*.safetensors")):
        tensors |= load_file(shard)
    block = block_of(BLOCKS[family], tensors)
    save_file(block, directory / MTP_SHARD, {"format": "pt"})
    index_path = directory / "model.safetensors.index.json"
    index = json.loads(index_path.read_text())
    index["weight_map"] |= dict.fromkeys(block, MTP_SHARD)
    index["metadata"]["total_size"] += sum(tensor.nbytes for tensor in block.values())
    index_path.write_text(json.dumps(index))
    write_config(directory, json.loads((directory / "config.json").read_text()) | MTP_CONFIG)
    return directory


def block_of(form: dict, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """An MTP block for a model of `tensors`."""
    random = torch.Generator().manual_seed(2)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=random).mul(0.02).to(torch.bfloat16)

    last = f"model.layers.{LAYERS - 1}."
    block = {
        form["layer"] + name.removeprefix(last): (tensor + noise(*tensor.shape)).to(tensor.dtype)
        for name, tensor in tensors.items() if name.startswith(last)
    }
    rest = {norm: noise(HIDDEN) for norm in form["norms"]}
    rest[form["projection"]] = noise(HIDDEN, 2 * HIDDEN)
    rest |= {name: tensors[f"{of}.weight"] for name, of in form["copies"].items()}
    return block | {f"{form['rest']}{name}.weight": tensor for name, tensor in rest.items()}


def save_without_mtp(model: Path, directory: Path) -> Path:
    """What a fine-tune leaves of `model`: other numbers, no MTP block, and no mention of one."""
    directory.mkdir()
    index = json.loads((model / "model.safetensors.index.json").read_text())
    names = index["weight_map"]
    tuned = {}
    for shard in sorted(set(names.values()) - {MTP_SHARD}):
        tuned |= load_file(model / shard)
    tuned = {name: tensor * 1.5 for name, tensor in tuned.items()}
    save_file(tuned, directory / "model.safetensors", {"format": "pt"})
    config = json.loads((model / "config.json").read_text())
    write_config(directory, {key: config[key] for key in config if key not in MTP_CONFIG})
    return directory


def write_config(directory: Path, config: dict) -> None:
    (directory / "config.json").write_text(json.dumps(config))
