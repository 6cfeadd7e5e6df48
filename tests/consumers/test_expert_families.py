"""Experts of families that differ, and linear attention in both forms, held against transformers' own models and its
own conversion between the two ways in which it saves them."""

from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import ckptfs

EXPERTS = 3
HIDDEN = 64
INTERMEDIATE = 48
SHAPE = {
    "vocab_size": 96,
    "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "num_local_experts": EXPERTS,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
# What transformers calls the modules of experts in memory, and what the checkpoints of the hub call them.
NUMBERED = {
    "Mixtral": {},
    "MiniMaxM2": {},
    "MiniMax": {"layer_types": ["full_attention", "full_attention"]},
}
TRANSPOSED = {
    "Llama4": {"num_experts_per_tok": 1, "intermediate_size_mlp": INTERMEDIATE,
               "interleave_moe_layer_step": 1},
    "GptOss": {},
}


def model(family: str, **settings):
    config = getattr(transformers, f"{family}Config", None)
    if family == "Llama4":
        config = transformers.Llama4TextConfig
    made = getattr(transformers, f"{family}ForCausalLM")(config(**{**SHAPE, **settings}))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for parameter in made.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    return made.to(torch.bfloat16).eval()


def tensors(directory: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for shard in directory.glob("*.safetensors")
            for name, tensor in load_file(shard).items()}


def view(base: Path, *flags) -> Path:
    """The view of `base`, written down."""
    out = base.parent / f"{base.name}-{'-'.join(map(str, flags)).replace('/', '_')[:80]}"
    ckptfs.run("materialize", "--base", base, *flags, "--out", out)
    return out


def assert_same(found: Path, expected: Path):
    found, expected = tensors(found), tensors(expected)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


@torch.no_grad()
def logits(of) -> torch.Tensor:
    text = torch.arange(24).reshape(2, 12) + 3
    return of(text).logits.float()


def loaded(directory: Path):
    made, info = AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.bfloat16, output_loading_info=True)
    assert not any(info.values()), info
    return made.eval()


@pytest.mark.parametrize("family", NUMBERED)
def test_numbered_experts_are_fused_and_split_as_transformers_does(family, tmp_path):
    made = model(family, **NUMBERED[family])
    made.save_pretrained(tmp_path / "hub", save_original_format=True)
    made.save_pretrained(tmp_path / "memory", save_original_format=False)
    assert any(name.endswith("block_sparse_moe.experts.0.w1.weight")
               for name in tensors(tmp_path / "hub"))
    to_memory = ["--rename", r"\.block_sparse_moe\.=.mlp.", "--fuse-experts"]
    assert_same(view(tmp_path / "hub", *to_memory), tmp_path / "memory")
    to_hub = ["--rename", r"\.mlp\.=.block_sparse_moe.", "--unfuse-experts"]
    assert_same(view(tmp_path / "memory", *to_hub), tmp_path / "hub")
    # Fused where they are, transformers finds them too.
    fused = loaded(view(tmp_path / "hub", "--fuse-experts"))
    assert torch.equal(logits(fused), logits(loaded(tmp_path / "hub")))


def test_experts_without_a_gate_are_fused_and_split_as_transformers_does(tmp_path):
    config = transformers.NemotronHConfig(
        vocab_size=96, hidden_size=HIDDEN, layers_block_type=["moe", "attention"],
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, n_routed_experts=EXPERTS,
        num_experts_per_tok=2, moe_intermediate_size=INTERMEDIATE,
        moe_shared_expert_intermediate_size=32, n_group=1, topk_group=1, mamba_num_heads=4,
        mamba_head_dim=16, ssm_state_size=16, n_groups=1)
    made = transformers.NemotronHForCausalLM(config).to(torch.bfloat16)
    made.save_pretrained(tmp_path / "hub", save_original_format=True)
    made.save_pretrained(tmp_path / "memory", save_original_format=False)
    assert any(name.endswith("experts.0.up_proj.weight")
               for name in tensors(tmp_path / "hub"))
    to_memory = ["--rename", r"^backbone\.=model.", "--fuse-experts"]
    assert_same(view(tmp_path / "hub", *to_memory), tmp_path / "memory")
    to_hub = ["--rename", r"^model\.=backbone.", "--unfuse-experts"]
    assert_same(view(tmp_path / "memory", *to_hub), tmp_path / "hub")


def transposed_experts(made):
    layers = made.model.layers
    return [getattr(layer, "feed_forward", getattr(layer, "mlp", None)).experts for layer in layers]


@pytest.mark.parametrize("family", TRANSPOSED)
def test_each_expert_of_a_transposed_layer_computes_what_the_layer_computes(family, tmp_path):
    made = model(family, **TRANSPOSED[family])
    made.save_pretrained(tmp_path / "saved")
    apart = view(tmp_path / "saved", "--unfuse-experts")
    assert_same(view(apart, "--fuse-experts"), tmp_path / "saved")

    single = tensors(apart)
    block = "feed_forward" if family == "Llama4" else "mlp"
    states = torch.randn(5, HIDDEN, generator=torch.Generator().manual_seed(1))
    for layer, experts in enumerate(transposed_experts(made.float())):
        for number in range(EXPERTS):
            def projected(projection, inputs):
                name = f"model.layers.{layer}.{block}.experts.{number}.{projection}"
                bias = single.get(f"{name}.bias")
                bias = None if bias is None else bias.float()
                return torch.nn.functional.linear(inputs, single[f"{name}.weight"].float(), bias)

            gate, up = projected("gate_proj", states), projected("up_proj", states)
            if family == "GptOss":
                gate = gate.clamp(max=experts.limit)
                up = up.clamp(min=-experts.limit, max=experts.limit)
                inside = (up + 1) * gate * torch.sigmoid(gate * experts.alpha)
                chosen = torch.full((5, 1), number)
                expected = experts(states, chosen, torch.ones(5, 1))
            else:
                inside = up * experts.act_fn(gate)
                expected = experts(states.repeat(EXPERTS, 1)).view(EXPERTS, 5, HIDDEN)[number]
            torch.testing.assert_close(projected("down_proj", inside), expected)


def test_qwen3_vl_moe_is_the_same_one_by_one_however_it_was_saved(tmp_path):
    config = transformers.Qwen3VLMoeConfig(
        text_config={**SHAPE, "moe_intermediate_size": INTERMEDIATE, "num_experts": EXPERTS,
                     "rope_scaling": {"rope_type": "default", "mrope_section": [4, 2, 2]}},
        vision_config={"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2,
                       "out_hidden_size": HIDDEN, "deepstack_visual_indexes": [0],
                       "num_position_embeddings": 16})
    made = transformers.Qwen3VLMoeForConditionalGeneration(config).to(torch.bfloat16)
    made.save_pretrained(tmp_path / "memory", save_original_format=False)
    memory = tensors(tmp_path / "memory")
    name = "model.language_model.layers.0.mlp.experts"
    assert memory[f"{name}.gate_up_proj"].shape == (EXPERTS, 2 * INTERMEDIATE, HIDDEN)
    # As releases are: transformers reads them, by their shapes.
    apart = view(tmp_path / "memory", "--unfuse-experts")
    released = view(apart, "--fuse-experts")
    found = tensors(released)
    assert found.keys() == memory.keys()
    for key, tensor in memory.items():
        turned = tensor.transpose(1, 2) if ".experts." in key else tensor
        assert torch.equal(found[key], turned), key
    assert_same(view(released, "--unfuse-experts"), apart)
    read = transformers.Qwen3VLMoeForConditionalGeneration.from_pretrained(released)
    read = read.state_dict()
    assert all(torch.equal(read[key], value) for key, value in made.state_dict().items())


def test_linear_attention_is_split_as_qwen3_next_reads_it_and_joined_again(tmp_path):
    made = transformers.Qwen3NextForCausalLM(transformers.Qwen3NextConfig(
        **{**SHAPE, "num_experts": EXPERTS}, moe_intermediate_size=32,
        shared_expert_intermediate_size=32, linear_num_key_heads=2, linear_num_value_heads=6,
        linear_key_head_dim=8, linear_value_head_dim=16,
        layer_types=["linear_attention", "full_attention"])).to(torch.bfloat16)
    made.save_pretrained(tmp_path / "saved")
    split = view(tmp_path / "saved", "--linear-attention", "split")
    found = tensors(split)
    attention = made.model.layers[0].linear_attn
    # Rows as if each were what a unit vector is projected to: nothing is computed.
    rows = [attention.in_proj_qkvz.weight, attention.in_proj_ba.weight]
    q, k, v, z, b, a = (part.flatten(2)[0].T for part in
                        attention.fix_query_key_value_ordering(*(w.T[None] for w in rows)))
    expected = {"qkv": torch.cat([q, k, v]), "z": z, "b": b, "a": a}
    for projection, weight in expected.items():
        assert torch.equal(found[f"model.layers.0.linear_attn.in_proj_{projection}.weight"], weight)
    assert_same(view(split, "--linear-attention", "join"), tmp_path / "saved")

    # The names and shapes are those of Qwen3.5.
    other = transformers.Qwen3_5MoeForCausalLM(transformers.Qwen3_5MoeTextConfig(
        **{**SHAPE, "num_experts": EXPERTS}, moe_intermediate_size=32,
        shared_expert_intermediate_size=32, linear_num_key_heads=2, linear_num_value_heads=6,
        linear_key_head_dim=8, linear_value_head_dim=16,
        layer_types=["linear_attention", "full_attention"]))
    ours = {name: tensor.shape for name, tensor in found.items() if ".linear_attn." in name}
    theirs = other.state_dict().items()
    assert ours == {name: tensor.shape for name, tensor in theirs if ".linear_attn." in name}
