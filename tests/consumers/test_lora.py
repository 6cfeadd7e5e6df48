"""Adapters merged by a view, against PEFT's own merge_and_unload of the same adapters."""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

import ckptfs
import lora_models
from distances import Distances
from lora_models import MODELS

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
MLP = ["gate_proj", "up_proj", "down_proj"]
CONV1D = ["c_attn", "c_proj", "c_fc"]
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
SETTINGS = {
    "linear": ("llama", {"target_modules": ATTENTION + MLP, "r": 8, "lora_alpha": 16}),
    "rank 64": ("llama", {"target_modules": "all-linear", "r": 64, "lora_alpha": 16}),
    "odd rank": ("llama", {"target_modules": ATTENTION, "r": 7, "lora_alpha": 3}),
    "rslora": ("llama", {"target_modules": MLP, "r": 12, "lora_alpha": 16, "use_rslora": True}),
    "patterns": ("llama", {
        "target_modules": ATTENTION, "r": 8, "lora_alpha": 8,
        "rank_pattern": {"q_proj": 4, "layers.1.self_attn.k_proj": 3, r".*\.0\..*v_proj": 5},
        "alpha_pattern": {"q_proj": 32, "model.layers.0.self_attn.o_proj": 1},
    }),
    "dora": ("llama", {"target_modules": ATTENTION + MLP, "use_dora": True}),
    "embeddings": ("llama", {"target_modules": ["embed_tokens", "lm_head", "q_proj"]}),
    "embedding dora": ("llama", {"target_modules": ["embed_tokens"], "use_dora": True}),
    "all biases": ("llama", {"target_modules": ["q_proj"], "bias": "all"}),
    "their biases": ("llama", {"target_modules": ["q_proj"], "bias": "lora_only"}),
    "lora_bias": ("llama", {"target_modules": ATTENTION, "lora_bias": True}),
    "modules_to_save": ("llama", {"target_modules": ["q_proj"],
                                  "modules_to_save": ["lm_head", "norm"]}),
    "tied modules_to_save": ("tied", {"target_modules": ["q_proj"], "ensure_weight_tying": True,
                                      "modules_to_save": ["embed_tokens"]}),
    "tokens": ("llama", {"target_modules": ["q_proj"], "trainable_token_indices": [3, 500, 7]}),
    "tokens of both": ("llama", {
        "target_modules": ["q_proj"],
        "trainable_token_indices": {"embed_tokens": [3, 5], "lm_head": [9, 1]},
    }),
    "tied tokens": ("tied", {"target_modules": ["q_proj"], "trainable_token_indices": [3, 500, 7]}),
    "mica": ("llama", {"target_modules": MLP, "init_lora_weights": "mica"}),
    "Conv1D": ("gpt2", {"target_modules": CONV1D, "fan_in_fan_out": True}),
    "Conv1D dora": ("gpt2", {"target_modules": CONV1D, "fan_in_fan_out": True,
                             "use_dora": True}),
    "convolutions": ("convolutions", {"target_modules": ["one", "pointwise", "two", "three"]}),
    "convolutions dora": ("convolutions", {"target_modules": ["one", "pointwise", "two", "three"],
                                           "use_dora": True}),
    "experts": ("moe", {"target_modules": ATTENTION, "target_parameters": EXPERTS}),
    "down_proj": ("moe", {"target_modules": [], "target_parameters": EXPERTS[1:]}),
}


def tensors(directory) -> dict:
    found = {}
    for shard in sorted(directory.glob("*.safetensors")):
        with safe_open(shard, "pt") as file:
            found |= {name: file.get_tensor(name).clone() for name in file.keys()}
    return found


def assert_merged(base, merged, view, label: str) -> None:
    """Asserts that `view` has what PEFT merged, and where that is the base, its very bytes."""
    before, expected, found = tensors(base), tensors(merged), tensors(view)
    assert found.keys() == expected.keys()
    distances = Distances()
    for name, wanted in expected.items():
        assert found[name].dtype == wanted.dtype and found[name].shape == wanted.shape, name
        if torch.equal(before[name], wanted):
            assert torch.equal(found[name].view(torch.uint8), wanted.view(torch.uint8)), name
        else:
            distances.add(wanted, found[name], before[name])
    distances.check(label)


@pytest.mark.parametrize("case", SETTINGS)
def test_merged_as_by_peft(case, tmp_path):
    kind, settings = SETTINGS[case]
    make = MODELS[kind]
    base = lora_models.save_base(make, tmp_path / "base")
    adapter = lora_models.save_adapter(
        lora_models.load_base(make, base), tmp_path / "adapter", 1, **settings)
    merged = lora_models.merge(make, base, [(adapter, 1.0)], tmp_path / "merged")
    with ckptfs.mounted(["--base", base, "--lora", adapter], tmp_path) as view:
        assert_merged(base, merged, view, case)


@pytest.mark.parametrize("dtype", [torch.float16])
def test_other_dtypes(dtype, tmp_path):
    base = lora_models.save_base(lora_models.llama, tmp_path / "base", dtype)
    adapter = lora_models.save_adapter(
        lora_models.load_base(lora_models.llama, base, dtype), tmp_path / "adapter", 1,
        target_modules="all-linear")
    merged = lora_models.merge(
        lora_models.llama, base, [(adapter, 1.0)], tmp_path / "merged", dtype)
    with ckptfs.mounted(["--base", base, "--lora", adapter], tmp_path) as view:
        assert_merged(base, merged, view, str(dtype))


def test_adapters_stored_in_bf16(tmp_path):
    base = lora_models.save_base(lora_models.llama, tmp_path / "base")
    adapter = lora_models.save_adapter(
        lora_models.load_base(lora_models.llama, base), tmp_path / "adapter", 1,
        prepare=lambda model: model.to(torch.bfloat16), target_modules="all-linear")
    merged = lora_models.merge(lora_models.llama, base, [(adapter, 1.0)], tmp_path / "merged")
    with ckptfs.mounted(["--base", base, "--lora", adapter], tmp_path) as view:
        assert_merged(base, merged, view, "bf16 adapter")


def test_fused_experts(tmp_path):
    """The base in the form that the adapter was trained on."""
    make = MODELS["moe"]
    base = lora_models.save_base(make, tmp_path / "base", save_original_format=False)
    adapter = lora_models.save_adapter(
        lora_models.load_base(make, base), tmp_path / "adapter", 1,
        target_modules=[], target_parameters=EXPERTS)
    merged = lora_models.merge(make, base, [(adapter, 1.0)], tmp_path / "merged")
    with ckptfs.mounted(["--base", base, "--lora", adapter], tmp_path) as view:
        assert_merged(base, merged, view, "fused experts")


def test_fused_experts_as_others_store_them(tmp_path):
    """An adapter rewritten as PEFT before 0.19.1 and as Unsloth had the same products."""
    make = MODELS["moe"]
    base = lora_models.save_base(make, tmp_path / "base", save_original_format=False)
    adapter = lora_models.save_adapter(
        lora_models.load_base(make, base), tmp_path / "adapter", 1,
        target_modules=[], target_parameters=EXPERTS)
    merged = lora_models.merge(make, base, [(adapter, 1.0)], tmp_path / "merged")
    old = lora_models.rewrite_experts(
        adapter, tmp_path / "old", lora_models.swapped, peft_version="0.18.1")
    unsloth = lora_models.rewrite_experts(adapter, tmp_path / "unsloth", lora_models.expert_major)
    for flags in ([old], [unsloth, "--lora-experts", "expert-major"]):
        scratch = tmp_path / f"scratch-{flags[0].name}"
        scratch.mkdir()
        with ckptfs.mounted(["--base", base, "--lora", *flags], scratch) as view:
            assert_merged(base, merged, view, f"experts of {flags[0].name}")


def test_single_experts_on_fused_ones(tmp_path):
    """As trained where experts were modules; PEFT makes factors of parameters of them."""
    make = MODELS["moe"]
    base = lora_models.save_base(make, tmp_path / "base", save_original_format=False)
    adapter = lora_models.save_expert_adapter(tensors(base), tmp_path / "adapter", 8)
    merged = lora_models.merge(make, base, [(adapter, 1.0)], tmp_path / "merged")
    with ckptfs.mounted(["--base", base, "--lora", adapter], tmp_path) as view:
        assert_merged(base, merged, view, "single experts")


def test_an_adapter_of_a_larger_model(tmp_path):
    """Its language model is the base, and calls its layers by another name."""
    make = lora_models.llama
    base = lora_models.save_base(make, tmp_path / "base")
    adapter = lora_models.save_adapter(
        lora_models.load_base(make, base), tmp_path / "adapter", 1, target_modules=ATTENTION)
    merged = lora_models.merge(make, base, [(adapter, 1.0)], tmp_path / "merged")
    larger = lora_models.rewrite(
        adapter, tmp_path / "larger",
        lambda name, tensor: (name.replace("model.layers", "model.language_model.layers"), tensor))
    with ckptfs.mounted(["--base", base, "--lora", larger], tmp_path) as view:
        assert_merged(base, merged, view, "another wrapper")


def test_two_adapters_in_their_order_and_with_weights(tmp_path):
    make = lora_models.llama
    base = lora_models.save_base(make, tmp_path / "base")
    adapters = [
        lora_models.save_adapter(lora_models.load_base(make, base), tmp_path / name, seed,
                                 target_modules=ATTENTION, **more)
        for name, seed, more in [("first", 1, {}), ("second", 2, {"use_dora": True})]
    ]
    weighted = list(zip(adapters, [0.5, -1.25]))
    merged = lora_models.merge(make, base, weighted, tmp_path / "merged")
    flags = [flag for adapter, weight in weighted for flag in ("--lora", f"{adapter}:{weight}")]
    with ckptfs.mounted(["--base", base, *flags], tmp_path) as view:
        assert_merged(base, merged, view, "two adapters")


def test_resized_vocabulary(tmp_path):
    """Trained embeddings of more rows than the base's: the view's config follows."""
    base = lora_models.save_base(lora_models.llama, tmp_path / "base")

    def resized():
        model = lora_models.load_base(lora_models.llama, base)
        model.resize_token_embeddings(520, mean_resizing=False)
        return model

    adapter = lora_models.save_adapter(resized(), tmp_path / "adapter", 1,
                                       target_modules=["q_proj"],
                                       modules_to_save=["embed_tokens", "lm_head"])
    merged = tmp_path / "merged"
    PeftModel.from_pretrained(resized(), adapter).merge_and_unload().save_pretrained(merged)
    with ckptfs.mounted(["--base", base, "--lora", adapter], tmp_path) as view:
        expected, found = tensors(merged), tensors(view)
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            assert torch.equal(found[name], expected[name])
        assert json.loads((view / "config.json").read_text())["vocab_size"] == 520


def test_new_tokens_of_a_resized_vocabulary(tmp_path):
    """Rows of an embedding that grew: it is saved whole, and they are saved beside it."""
    base = lora_models.save_base(lora_models.llama, tmp_path / "base")

    def resized():
        model = lora_models.load_base(lora_models.llama, base)
        model.resize_token_embeddings(520, mean_resizing=False)
        return model

    adapter = lora_models.save_adapter(resized(), tmp_path / "adapter", 1,
                                       target_modules=["q_proj"],
                                       trainable_token_indices=[513, 512, 3])
    merged = tmp_path / "merged"
    PeftModel.from_pretrained(resized(), adapter).merge_and_unload().save_pretrained(merged)
    with ckptfs.mounted(["--base", base, "--lora", adapter], tmp_path) as view:
        expected, found = tensors(merged), tensors(view)
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            assert torch.equal(found[name], expected[name])


def test_a_trained_adapter_gives_the_logits_of_the_merged_model(checkpoints, tmp_path):
    """SmolLM2, trained for a few steps on a sentence until it says it."""
    base = checkpoints / "smollm2"
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokens = tokenizer("The capital of Atlantis is Bluewater, by the sea.", return_tensors="pt")
    tokens = tokens["input_ids"]
    adapter = trained_adapter(base, tokens, tmp_path / "adapter")
    merged = lora_models.merge(
        lora_models.llama, base, [(adapter, 1.0)], tmp_path / "merged")
    with ckptfs.mounted(["--base", base, "--lora", adapter], tmp_path) as view:
        assert_merged(base, merged, view, "SmolLM2, trained")
        expected, found = logits(merged, tokens), logits(view, tokens)
    distance = (found - expected).abs().max() / expected.abs().max()
    moved = (logits(base, tokens) - expected).abs().max() / expected.abs().max()
    print(f"logits: {distance:.2e} from those of the merged model, the base's are {moved:.2e}")
    # PEFT's sums are in an order of the processor's, so that some weights are a ULP apart: bf16 has 8 bits.
    assert distance < 2**-8 and moved > 0.1
    assert torch.equal(found[0, :-1].argmax(-1)[3:], tokens[0, 1:][3:])


def trained_adapter(base, tokens, directory):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = get_peft_model(
            # Many processors take long to compute in bf16. The adapter is in f32 either way.
            AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
            LoraConfig(target_modules="all-linear", r=16, lora_alpha=32))
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-3)
        for _ in range(30):
            loss = model(tokens, labels=tokens).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        assert loss < 0.5, "the adapter has learnt its sentence"
        model.save_pretrained(directory)
    return directory


def logits(directory, tokens) -> torch.Tensor:
    """In f32, so that what differs is what the weights differ by."""
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(tokens).logits
