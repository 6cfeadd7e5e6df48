"""A small model of Megatron-Core, saved by Megatron-Core on two ranks of gloo.

    python -m torch.distributed.run --nproc_per_node 2 megatron_runs.py OUT

Below OUT, for each way to save it: the run, and in `rank0.pt` and `rank1.pt` the parameters that each rank has.
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from megatron.core import dist_checkpointing, parallel_state
from megatron.core.models.gpt import GPTModel
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.transformer.transformer_config import TransformerConfig
from torch.nn.functional import silu

# Tokens are padded to a multiple of what ranks share.
TOKENS, PADDED_TOKENS = 120, 128
LAYERS, HIDDEN, HEADS, KEYS, INTERMEDIATE = 2, 24, 4, 2, 40
# Ranks of tensor and of pipeline parallelism, and whether each layer has names of its own.
FORMS = {"tensor": (2, 1, False), "pipeline": (1, 2, False), "layers": (2, 1, True)}


def save(out: Path, tensor: int, pipeline: int, names_of_layers: bool) -> None:
    parallel_state.initialize_model_parallel(tensor, pipeline)
    rank = dist.get_rank()
    torch.manual_seed(rank)
    config = TransformerConfig(
        num_layers=LAYERS, hidden_size=HIDDEN, num_attention_heads=HEADS, num_query_groups=KEYS,
        ffn_hidden_size=INTERMEDIATE, gated_linear_unit=True, activation_func=silu, normalization="RMSNorm",
        add_bias_linear=False, add_qkv_bias=True, use_cpu_initialization=True, pipeline_dtype=torch.float32,
        tensor_model_parallel_size=tensor, pipeline_model_parallel_size=pipeline,
        hetereogenous_dist_checkpoint=names_of_layers,  # Megatron's spelling
    )
    model = GPTModel(
        config, get_gpt_layer_local_spec(normalization="RMSNorm"), PADDED_TOKENS, 64,
        position_embedding_type="rope", share_embeddings_and_output_weights=False,
        pre_process=parallel_state.is_pipeline_first_stage(),
        post_process=parallel_state.is_pipeline_last_stage(),
    )
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter)
        if "norm" in name:  # the same on all ranks of tensor parallelism
            group = parallel_state.get_tensor_model_parallel_group()
            dist.broadcast(parameter.data, parallel_state.get_tensor_model_parallel_src_rank(), group=group)
    step = out / "iter_0000010"
    if rank == 0:
        step.mkdir(parents=True)
        (out / "latest_checkpointed_iteration.txt").write_text("10")
    dist.barrier()
    state = {"model": model.sharded_state_dict(), "iteration": 10, "checkpoint_version": 3.0}
    dist_checkpointing.save(state, step)
    torch.save({name: p.detach() for name, p in model.named_parameters()}, out / f"rank{rank}.pt")
    dist.barrier()
    parallel_state.destroy_model_parallel()


def trained(run: Path, form: str) -> dict[str, torch.Tensor]:
    """What `run` trained, by the names of a Qwen2: put together from what each rank has."""
    ranks = [torch.load(run / f"rank{rank}.pt") for rank in (0, 1)]
    if form == "pipeline":
        second = {name.replace("layers.0.", "layers.1."): tensor for name, tensor in ranks[1].items()}
        ranks = [ranks[0] | second]

    def rows(name: str) -> torch.Tensor:
        return torch.cat([rank[name] for rank in ranks])

    found = {
        "model.embed_tokens.weight": rows("embedding.word_embeddings.weight")[:TOKENS],
        "lm_head.weight": rows("output_layer.weight")[:TOKENS],
        "model.norm.weight": ranks[0]["decoder.final_layernorm.weight"],
    }
    heads = HEADS // KEYS
    for layer in range(LAYERS):
        theirs, ours = f"decoder.layers.{layer}.", f"model.layers.{layer}."
        for kind in ("weight", "bias"):
            # Of each head of keys: the heads of queries that read it, itself, and its values.
            fused = rows(f"{theirs}self_attention.linear_qkv.{kind}").unflatten(0, (KEYS, heads + 2, -1))
            parts = fused[:, :heads], fused[:, heads], fused[:, heads + 1]
            for name, part in zip("qkv", parts, strict=True):
                found[f"{ours}self_attn.{name}_proj.{kind}"] = part.reshape(-1, *fused.shape[3:])
        gate_and_up = [rank[f"{theirs}mlp.linear_fc1.weight"].chunk(2) for rank in ranks]
        for i, name in enumerate(("gate", "up")):
            found[f"{ours}mlp.{name}_proj.weight"] = torch.cat([halves[i] for halves in gate_and_up])
        for name, other in {"self_attn.o": "self_attention.linear_proj", "mlp.down": "mlp.linear_fc2"}.items():
            columns = [rank[f"{theirs}{other}.weight"] for rank in ranks]
            found[f"{ours}{name}_proj.weight"] = torch.cat(columns, 1)
        for name, other in {"input": "input", "post_attention": "pre_mlp"}.items():
            found[f"{ours}{name}_layernorm.weight"] = ranks[0][f"{theirs}{other}_layernorm.weight"]
    return found


def main() -> None:
    # Megatron-Core asks for a GPU, of which it needs nothing here.
    torch.cuda.current_device = lambda: torch.device("cpu")
    torch.cuda.synchronize = lambda: None
    dist.init_process_group("gloo")
    for name, form in FORMS.items():
        save(Path(sys.argv[1]) / name, *form)
    dist.destroy_process_group()


# Its writers are new processes, which import this file.
if __name__ == "__main__":
    main()
