"""Mixtures of experts: what mergekit-moe writes, and what transformers and vLLM read through a mounted recipe."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mergekit.moe.config import MoEMergeConfig
from mergekit.options import MergeOptions
from mergekit.scripts import moe
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

import ckptfs
from checkpoint import Checkpoint, same_bits
from mergekit_runs import with_index
from vllm_engines import Engines

REPOSITORY = Path(__file__).resolve().parents[2]
TOKENS = 96
SIZES = {
    "vocab_size": TOKENS, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64,
}
FAMILIES = {
    "llama": (LlamaConfig, LlamaForCausalLM, {}),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 32}),
}
EXPERTS = [
    {"source_model": "a", "positive_prompts": ["t1 t2", "t3"]},
    {"source_model": "b", "positive_prompts": ["t4 t5 t6"], "negative_prompts": ["t7"]},
]


@pytest.fixture(scope="module")
def dense(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("dense")
    vocabulary = {f"t{i}": i for i in range(TOKENS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="t0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="t0", bos_token="t90", eos_token="t91")
    for family, (config, model, more) in FAMILIES.items():
        for seed, name in enumerate("ab"):
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                made = model(config(**SIZES, **more)).to(torch.bfloat16)
            made.save_pretrained(directory / family / name)
            fast.save_pretrained(directory / family / name)
    return directory


def stated(family: str, dense: Path, **more) -> dict:
    def placed(expert: dict) -> dict:
        return expert | {"source_model": str(dense / family / expert["source_model"])}

    config = {"base_model": str(dense / family / "a"), "experts": [placed(e) for e in EXPERTS]} | more
    if "shared_experts" in config:
        config["shared_experts"] = [placed(expert) for expert in config["shared_experts"]]
    return config


def written(config: dict, out: Path) -> Path:
    """What mergekit-moe makes of a configuration."""
    moe.build(MoEMergeConfig.model_validate(config), str(out),
              MergeOptions(device="cpu", quiet=True, clone_tensors=True), device="cpu")
    if not (out / "model.safetensors.index.json").exists():
        with_index(out)
    return out


def shown(config: dict, scratch: Path) -> Path:
    file, out = scratch / "moe.yml", scratch / "shown"
    file.write_text(json.dumps(config))
    ckptfs.run("materialize", "--recipe", file, "--out", out)
    return out


SHARED = [{"source_model": "b", "positive_prompts": ["t8 t9"], "residual_scale": 0.5}]
CASES = {
    "Mixtral": ("llama", {"gate_mode": "cheap_embed"}),
    "Mixtral, scaled, one expert a token": (
        "llama", {"gate_mode": "cheap_embed", "dtype": "float32", "experts_per_token": 1}),
    "Qwen2-MoE of Llama": ("llama", {"gate_mode": "cheap_embed", "shared_experts": SHARED}),
    "Qwen3-MoE": ("qwen3", {"gate_mode": "cheap_embed"}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_mixture_loads_with_the_logits_of_mergekits(case, dense, tmp_path):
    family, more = CASES[case]
    config = stated(family, dense, **more)
    paths = written(config, tmp_path / "merged"), shown(config, tmp_path)
    theirs, ours = [AutoConfig.from_pretrained(path).to_dict() for path in paths]
    # The version that wrote it, and where it was read from.
    assert {key for key in theirs if ours[key] != theirs[key]} <= {
        "transformers_version", "_name_or_path",
    }
    wanted, found = [logits(path) for path in paths]
    assert torch.equal(wanted, found)


def logits(directory: Path) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(directory)
    with torch.no_grad():
        return model(torch.arange(24).reshape(2, 12)).logits


def test_a_deepseek_has_the_tensors_of_mergekits(dense, tmp_path):
    """Its code is on the hub, so it is not run."""
    shared = [{"source_model": "b", "residual_scale": 0.25}]
    config = stated("llama", dense, gate_mode="cheap_embed", shared_experts=shared)
    paths = written(config, tmp_path / "merged"), shown(config, tmp_path)
    merged, found = [Checkpoint(path) for path in paths]
    assert found.names() == merged.names()
    different = [name for name in merged.names() if not same_bits(merged[name], found[name])]
    assert not different, different
    theirs, ours = [json.loads((path / "config.json").read_text()) for path in paths]
    added = {"auto_map", "architectures", "model_type", "n_routed_experts", "n_shared_experts",
             "num_experts_per_tok", "first_k_dense_replace", "moe_layer_freq", "scoring_func",
             "norm_topk_prob", "moe_intermediate_size"}
    assert {key: ours[key] for key in added} == {key: theirs[key] for key in added}


@pytest.mark.parametrize("mode", ["hidden", "hidden_avg"])
def test_routers_of_hidden_states_come_from_a_file(mode, dense, tmp_path):
    config = stated("llama", dense, gate_mode=mode)
    file, gates = tmp_path / "hidden.yml", tmp_path / "gates.safetensors"
    file.write_text(json.dumps(config))
    script = [sys.executable, REPOSITORY / "scripts" / "moe-gates", file, gates]
    subprocess.run(script, check=True)
    out = shown(config | {"gates": str(gates)}, tmp_path)
    merged = written(config, tmp_path / "merged")
    assert torch.equal(logits(merged), logits(out))
