"""Small models of the kinds of layers that LoRA adapts, and adapters for them made by PEFT itself."""

import json
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from tiny_models import qwen3_moe

LLAMA = {
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 352,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "attention_bias": True,
    "tie_word_embeddings": False,
}
# 96 columns are no multiple of what any processor computes at once.
GPT2 = {"vocab_size": 320, "n_embd": 96, "n_layer": 2, "n_head": 4, "n_positions": 64}


class Convolutions(torch.nn.Module):
    """A module of every rank that LoRA adapts."""

    def __init__(self):
        super().__init__()
        self.one = torch.nn.Conv1d(24, 40, 3)
        self.pointwise = torch.nn.Conv2d(40, 56, 1)
        self.two = torch.nn.Conv2d(24, 48, (3, 5))
        self.three = torch.nn.Conv3d(8, 20, 3)


def llama(**changes):
    return LlamaForCausalLM(LlamaConfig(**LLAMA | changes))


def tied_llama():
    return llama(tie_word_embeddings=True)


def gpt2():
    return GPT2LMHeadModel(GPT2Config(**GPT2))


def save_base(make, directory: Path, dtype=torch.bfloat16, **how) -> Path:
    """Saves a random model; biases and norms are random too."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make().to(dtype)
        for parameter in model.parameters():
            if parameter.dim() == 1:
                torch.nn.init.normal_(parameter, std=0.1)
    if isinstance(model, Convolutions):
        directory.mkdir()
        (directory / "config.json").write_text("{}")
        save_file(model.state_dict(), directory / "model.safetensors")
    else:
        model.save_pretrained(directory, **how)
    return directory


def load_base(make, directory: Path, dtype=torch.bfloat16):
    if make is Convolutions:
        model = Convolutions().to(dtype)
        model.load_state_dict(load_file(directory / "model.safetensors"))
        return model
    return AutoModelForCausalLM.from_pretrained(directory, dtype=dtype)


def save_adapter(base, directory: Path, seed: int, prepare=None, **settings) -> Path:
    """Saves an adapter for `base` whose every trained number is random, as after long training."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = get_peft_model(base, LoraConfig(**settings))
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            if "magnitude" in name:
                parameter.data *= 1 + 0.2 * torch.randn_like(parameter)
            else:
                parameter.data += 0.05 * torch.randn_like(parameter)
        if prepare is not None:
            prepare(model)
        model.save_pretrained(directory)
    return directory


def save_expert_adapter(weights: dict, directory: Path, rank: int) -> Path:
    """Saves an adapter of each projection of each expert, of a base that has them fused."""
    directory.mkdir()
    generator = torch.Generator().manual_seed(1)
    factors = {}

    def adapt(module, out, inputs):
        name = f"base_model.model.{module}"
        for role, shape in (("A", (rank, inputs)), ("B", (out, rank))):
            factors[f"{name}.lora_{role}.weight"] = 0.05 * torch.randn(shape, generator=generator)

    for name, weight in weights.items():
        module, _, parameter = name.rpartition(".")
        for expert in range(len(weight) if module.endswith(".experts") else 0):
            out, inputs = weight.shape[1:]
            if parameter == "gate_up_proj":
                adapt(f"{module}.{expert}.gate_proj", out // 2, inputs)
                adapt(f"{module}.{expert}.up_proj", out // 2, inputs)
            else:
                adapt(f"{module}.{expert}.down_proj", out, inputs)
    save_file(factors, directory / "adapter_model.safetensors")
    LoraConfig(
        target_modules=["gate_proj", "up_proj", "down_proj"], r=rank, lora_alpha=2 * rank,
    ).save_pretrained(directory)
    return directory


def merge(make, base: Path, adapters: list, output: Path, dtype=torch.bfloat16) -> Path:
    """What PEFT writes for `base` with `adapters` (directory, weight) merged one after another."""
    model = load_base(make, base, dtype)
    for adapter, weight in adapters:
        wrapped = PeftModel.from_pretrained(model, adapter)
        for module in wrapped.modules():
            if hasattr(module, "set_scale"):
                module.set_scale("default", weight)
        model = wrapped.merge_and_unload()
    if make is Convolutions:
        output.mkdir()
        save_file(model.state_dict(), output / "model.safetensors")
    else:
        model.save_pretrained(output)
    return output


def rewrite(adapter: Path, directory: Path, change, **settings) -> Path:
    """The adapter with each (name, tensor) changed, and with other settings."""
    directory.mkdir()
    config = json.loads((adapter / "adapter_config.json").read_text()) | settings
    (directory / "adapter_config.json").write_text(json.dumps(config))
    tensors = load_file(adapter / "adapter_model.safetensors")
    changed = dict(change(name, tensor) for name, tensor in tensors.items())
    save_file(changed, directory / "adapter_model.safetensors")
    return directory


def rewrite_experts(adapter: Path, directory: Path, change, **settings) -> Path:
    """The adapter of fused experts with each pair of factors, by expert, changed."""
    config = json.loads((adapter / "adapter_config.json").read_text())
    tensors = load_file(adapter / "adapter_model.safetensors")

    def changed(name, tensor):
        first = tensors[name.replace("lora_B", "lora_A")]
        second = tensors[name.replace("lora_A", "lora_B")]
        a = first.reshape(-1, config["r"], first.shape[1])
        b = second.reshape(second.shape[0], config["r"], -1).permute(2, 0, 1)
        return name, change(a, b)["lora_B" in name].contiguous()

    return rewrite(adapter, directory, changed, **settings)


def swapped(a, b):
    """(E, r, in) and (E, out, r) as factors of the transposed product, in PEFT's order."""
    new_a, new_b = b.transpose(1, 2), a.transpose(1, 2)
    return new_a.flatten(0, 1), new_b.permute(1, 2, 0).flatten(1)


def expert_major(a, b):
    """The same, with the columns of an expert in one run."""
    return a.flatten(0, 1), b.permute(1, 0, 2).flatten(1)


MODELS = {"llama": llama, "tied": tied_llama, "gpt2": gpt2, "moe": qwen3_moe,
          "convolutions": Convolutions}
