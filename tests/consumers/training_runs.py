"""Checkpoints as training programs write them: by torch itself on four ranks of gloo, and by definition where the program is
not at hand (DeepSpeed, Megatron-Core, Meta's Llama)."""

import collections
import enum
import json
import math
import os
import pickle
import shutil
import sys
import types
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing
from torch.distributed.checkpoint import FileSystemWriter, HuggingFaceStorageWriter
from torch.distributed.checkpoint.filesystem import SerializationFormat
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

RANKS = 4
# No dimension is a multiple of the ranks where programs allow that.
SHAPE = {
    "vocab_size": 102, "hidden_size": 24, "intermediate_size": 38, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False,
    "max_position_embeddings": 64,
}


def llama() -> LlamaForCausalLM:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(LlamaConfig(**SHAPE))


def qwen2() -> Qwen2ForCausalLM:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = Qwen2ForCausalLM(Qwen2Config(**SHAPE))
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter)
        return model


def placed(tensors: dict[str, torch.Tensor], mesh, placements) -> dict:
    """Matrices as `placements` say, and vectors the same on all ranks."""
    whole = [Replicate()] * mesh.ndim
    return {
        name: distribute_tensor(tensor.detach(), mesh, placements if tensor.ndim > 1 else whole)
        for name, tensor in tensors.items()
    }


def rank_files(directory: Path, rank: int, state: dict) -> None:
    """As verl's FSDPCheckpointManager writes them."""
    directory.mkdir(parents=True, exist_ok=True)
    torch.save(state, directory / f"model_world_size_{RANKS}_rank_{rank}.pt")
    torch.save({"step": 1}, directory / f"extra_state_world_size_{RANKS}_rank_{rank}.pt")


def rank_main(rank: int, out: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{out}/rendezvous", rank=rank, world_size=RANKS)
    line = init_device_mesh("cpu", (RANKS,), mesh_dim_names=("fsdp",))
    square = init_device_mesh("cpu", (2, 2), mesh_dim_names=("ddp", "fsdp"))
    model = llama()
    whole = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for layer in model.model.layers:
        fully_shard(layer, mesh=line)
    fully_shard(model, mesh=line)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.tensor([[1, 2, 3]]), labels=torch.tensor([[1, 2, 3]])).loss.backward()
    # Nothing is learned, and optimizer states are there.
    optimizer.param_groups[0]["lr"] = 0.0
    optimizer.step()
    state = model.state_dict()
    named = dict(zip((name for name, _ in model.named_parameters()), model.parameters()))
    moments = {name: optimizer.state[parameter] for name, parameter in named.items()}
    # As accelerate does for the Trainer of transformers.
    dcp.save({"model": state}, checkpoint_id=out / "run/checkpoint-500/pytorch_model_fsdp_0")
    dcp.save({"optimizer": {"state": moments}}, checkpoint_id=out / "run/checkpoint-500/optimizer_0")
    # As torchtitan and others do: all in one, optimizer first.
    everything = {"optimizer": {"state": moments}, "step": 7, "app": {"model": state}}
    dcp.save(everything, checkpoint_id=out / "everything")
    rank_files(out / "verl/global_step_5/actor", rank, state)
    twice = llama()
    for layer in twice.model.layers:
        fully_shard(layer, mesh=square)
    fully_shard(twice, mesh=square)
    rank_files(out / "hybrid", rank, twice.state_dict())
    grid = placed(whole, square, [Shard(0), Shard(1)])
    rank_files(out / "grid", rank, grid)
    dcp.save(grid, checkpoint_id=out / "grid-dcp")
    dcp.save(grid, storage_writer=FileSystemWriter(
        out / "grid-safetensors", serialization_format=SerializationFormat.SAFETENSORS))
    for name, consolidates in [("hf", False), ("hf-consolidated", True)]:
        dcp.save(grid, storage_writer=HuggingFaceStorageWriter(
            str(out / name), save_distributed=True, enable_consolidation=consolidates,
            fqn_to_index_mapping={name: 1 + i % 2 for i, name in enumerate(sorted(grid))}))
    megatron(square, out / "megatron")
    dist.destroy_process_group()


def on_four_ranks(out: Path) -> None:
    """Writes what torch writes. The processes are forked, which spares them the imports."""
    torch.multiprocessing.start_processes(rank_main, (out,), RANKS, start_method="fork")


def with_former_classes(metadata: Path) -> None:
    """Writes `.metadata` as torch before 2.3 did: other modules, and attributes that were not yet there."""
    known = pickle.loads(metadata.read_bytes())
    former = "torch.distributed._shard.sharded_tensor.metadata"
    moved = types.ModuleType(former + "_before")
    sys.modules[moved.__name__] = moved
    moved.TensorProperties = type("TensorProperties", (), {"__module__": moved.__name__})
    for tensor in known.state_dict_metadata.values():
        if hasattr(tensor, "properties"):
            properties = moved.TensorProperties()
            properties.__dict__.update(dtype=tensor.properties.dtype, requires_grad=False)
            tensor.properties = properties
    del known.__dict__["storage_meta"], known.__dict__["version"]
    for info in known.storage_data.values():
        info.__dict__.pop("transform_descriptors", None)
    metadata.write_bytes(pickle.dumps(known, protocol=2))
    del sys.modules[moved.__name__]


def split_evenly(tensor: torch.Tensor) -> list[torch.Tensor]:
    """Equal parts for all ranks of a flat tensor, the last ones padded."""
    share = math.ceil(tensor.numel() / RANKS)
    padded = torch.nn.functional.pad(tensor.reshape(-1), (0, share * RANKS - tensor.numel()))
    return list(padded.split(share))


def zero_stage(stage: int):
    """As DeepSpeed says it: a member of an enum of its own."""
    path = "deepspeed.runtime.zero.config"
    stages = {"disabled": 0, "optimizer_states": 1, "gradients": 2, "weights": 3}
    for parent in ("deepspeed", "deepspeed.runtime", "deepspeed.runtime.zero", path):
        sys.modules.setdefault(parent, types.ModuleType(parent))
    sys.modules[path].ZeroStageEnum = enum.IntEnum("ZeroStageEnum", stages, module=path)
    return sys.modules[path].ZeroStageEnum(stage)


FROZEN = "model.embed_tokens.weight"


def deepspeed(model, stage: int, directory: Path, frozen=(FROZEN,)) -> None:
    """ZeRO's files by the definition that DeepSpeed's zero_to_fp32.py reads them by.

    It looks for frozen parameters of ZeRO 1 nowhere; DeepSpeed 0.19.8 was seen to write them in `module` alone.
    """
    step = directory / "global_step30"
    step.mkdir(parents=True)
    (directory / "latest").write_text("global_step30")
    parameters = dict(model.named_parameters())
    trained = {name: p.detach() for name, p in parameters.items() if name not in frozen}
    names = list(trained)
    groups = [names[: len(names) // 3], names[len(names) // 3:]]
    shapes = [collections.OrderedDict((n, trained[n].shape) for n in group) for group in groups]
    frozen_shapes = collections.OrderedDict((name, parameters[name].shape) for name in frozen)
    model_states = {
        "module": collections.OrderedDict((n, p.detach().bfloat16()) for n, p in parameters.items()),
        "buffer_names": [], "param_shapes": shapes, "frozen_param_shapes": frozen_shapes,
        "shared_params": {}, "ds_version": "0.18.0", "ds_config": {"zero_optimization": {"stage": stage}},
    }
    flat = [[] for _ in range(RANKS)]
    for group in groups:
        if stage == 3:
            parts = zip(*(split_evenly(trained[name]) for name in group))
            vectors = [torch.cat(part) for part in parts]
        else:
            whole = torch.cat([trained[name].reshape(-1) for name in group])
            unit = 2 * RANKS
            padding = -whole.numel() % unit
            vectors = torch.nn.functional.pad(whole, (0, padding)).chunk(RANKS)
        for rank, vector in enumerate(vectors):
            flat[rank].append(vector.clone())
    key = "fp32_flat_groups" if stage == 3 else "single_partition_of_fp32_groups"
    for rank in range(RANKS):
        states = {"optimizer_state_dict": {
            "zero_stage": zero_stage(stage), "partition_count": [RANKS] * len(groups) if stage < 3 else RANKS,
            key: flat[rank], "base_optimizer_state": {"state": {0: {"exp_avg": flat[rank][0] + 1}}},
        }}
        torch.save(states, step / f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
        if stage == 3:
            of_rank = dict(model_states, module={}, frozen_param_fragments={
                name: split_evenly(parameters[name].detach())[rank].clone() for name in frozen})
            torch.save(of_rank, step / f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt")
    if stage < 3:
        model_states["frozen_param_fragments"] = {n: parameters[n].detach() for n in frozen}
        if stage == 1:
            model_states |= {"frozen_param_shapes": None, "frozen_param_fragments": None}
        torch.save(model_states, step / "mp_rank_00_model_states.pt")


def megatron(mesh, directory: Path) -> None:
    """Megatron-Core's tensors of a Qwen2: layers are a dimension, and the ranks of one axis are tensor parallel."""
    tensors = {name: tensor.detach() for name, tensor in qwen2().state_dict().items()}
    heads, keys = SHAPE["num_attention_heads"], SHAPE["num_key_value_heads"]

    def fused(layer: int, kind: str) -> torch.Tensor:
        """For each head of keys: the heads of queries that read it, itself, and its values."""
        parts = [
            tensors[f"model.layers.{layer}.self_attn.{name}_proj.{kind}"].unflatten(0, (keys, -1))
            for name in "qkv"
        ]
        return torch.cat(parts, 1).flatten(0, 1)

    def stacked(make) -> torch.Tensor:
        return torch.stack([make(layer) for layer in range(SHAPE["num_hidden_layers"])])

    def named(name: str):
        return lambda layer: tensors[f"model.layers.{layer}.{name}"]

    def padded(name: str) -> torch.Tensor:
        return torch.nn.functional.pad(tensors[name], (0, 0, 0, 26), value=9.0)

    assert heads % keys == 0
    whole, rows, layer_rows, layer_columns = (
        [Replicate(), placement] for placement in (Replicate(), Shard(0), Shard(1), Shard(2)))
    layers = "decoder.layers."
    saved = {
        "embedding.word_embeddings.weight": (padded("model.embed_tokens.weight"), rows),
        "output_layer.weight": (padded("lm_head.weight"), rows),
        "decoder.final_layernorm.weight": (tensors["model.norm.weight"], whole),
        layers + "self_attention.linear_qkv.weight": (stacked(lambda i: fused(i, "weight")), layer_rows),
        layers + "self_attention.linear_qkv.bias": (stacked(lambda i: fused(i, "bias")), layer_rows),
        layers + "self_attention.linear_qkv.layer_norm_weight": (
            stacked(named("input_layernorm.weight")), whole),
        layers + "self_attention.linear_proj.weight": (
            stacked(named("self_attn.o_proj.weight")), layer_columns),
        layers + "mlp.linear_fc1.weight": (stacked(lambda i: torch.cat([
            named("mlp.gate_proj.weight")(i), named("mlp.up_proj.weight")(i)])), layer_rows),
        layers + "mlp.linear_fc1.layer_norm_weight": (
            stacked(named("post_attention_layernorm.weight")), whole),
        layers + "mlp.linear_fc2.weight": (stacked(named("mlp.down_proj.weight")), layer_columns),
    }
    state = {name: distribute_tensor(tensor, mesh, how) for name, (tensor, how) in saved.items()}
    state |= {f"optimizer.state.exp_avg.{name}": tensor for name, tensor in state.items()}
    state["rng_state"] = torch.zeros(3, dtype=torch.uint8)
    iteration = directory / "iter_0000020"
    dcp.save(state, checkpoint_id=iteration)
    if dist.get_rank() == 0:
        torch.save({"iteration": 20}, iteration / "common.pt")
        (iteration / "metadata.json").write_text(json.dumps({"sharded_backend": "torch_dist"}))
        (directory / "latest_checkpointed_iteration.txt").write_text("20")


META = {
    "model.embed_tokens": ("tok_embeddings", 0), "model.norm": ("norm", None), "lm_head": ("output", 0),
    "self_attn.q_proj": ("attention.wq", 0), "self_attn.k_proj": ("attention.wk", 0),
    "self_attn.v_proj": ("attention.wv", 0), "self_attn.o_proj": ("attention.wo", 1),
    "mlp.gate_proj": ("feed_forward.w1", 0), "mlp.down_proj": ("feed_forward.w2", 1),
    "mlp.up_proj": ("feed_forward.w3", 0), "input_layernorm": ("attention_norm", None),
    "post_attention_layernorm": ("ffn_norm", None),
}


def pairs_together(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """The reverse of `permute` in transformers' convert_llama_weights_to_hf.py."""
    rows, columns = tensor.shape
    return tensor.view(heads, 2, rows // heads // 2, columns).transpose(1, 2).reshape(rows, columns)


def meta(model, ranks: int, directory: Path, embedding_axis: int) -> None:
    """Files of Meta's Llama: of `ranks` ranks of tensor parallelism."""
    directory.mkdir()
    files = [{} for _ in range(ranks)]
    for name, tensor in model.state_dict().items():
        parts = name.removesuffix(".weight").split(".")
        key = ".".join(parts[3:]) if parts[:2] == ["model", "layers"] else ".".join(parts)
        module, axis = META[key]
        if module == "tok_embeddings":
            axis = embedding_axis
        heads = {"attention.wq": 4, "attention.wk": 2}.get(module)
        tensor = pairs_together(tensor, heads) if heads else tensor
        full = f"layers.{parts[2]}.{module}.weight" if parts[1:2] == ["layers"] else f"{module}.weight"
        shares = [tensor] * ranks if axis is None else tensor.chunk(ranks, axis)
        for file, share in zip(files, shares, strict=True):
            file[full] = share.clone()
    for rank, file in enumerate(files):
        file["rope.freqs"] = torch.ones(3)
        torch.save(file, directory / f"consolidated.{rank:02d}.pth")
    (directory / "params.json").write_text(json.dumps({"dim": SHAPE["hidden_size"]}))


def written(out: Path) -> Path:
    """All of them, with the models themselves as `llama` and `qwen2`."""
    model = llama()
    model.save_pretrained(out / "llama", max_shard_size="20KB")
    qwen2().save_pretrained(out / "qwen2")
    on_four_ranks(out)
    (out / "verl/global_step_5/actor/huggingface").mkdir()
    for file in ("config.json", "generation_config.json"):
        shutil.copy(out / "llama" / file, out / "verl/global_step_5/actor/huggingface")
    shutil.copytree(out / "grid-dcp", out / "grid-dcp-former")
    with_former_classes(out / "grid-dcp-former/.metadata")
    for stage in (1, 2, 3):
        deepspeed(model, stage, out / f"zero{stage}")
    # Llama 1 and 2 cut embeddings in columns, Llama 3 in rows.
    meta(model, 1, out / "meta1", 0)
    meta(model, 2, out / "meta2", 1)
    return out


if __name__ == "__main__":
    os.makedirs(sys.argv[1])
    written(Path(sys.argv[1]).resolve())
