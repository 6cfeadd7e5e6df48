"""Small random models of the families that recipes are tried on: many layers, many heads, other names, two towers."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import (
    CLIPVisionConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaTokenizerFast,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from mergekit_runs import with_index

VOCABULARY = 64
SIZES = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "max_position_embeddings": 64}
# More heads than most models of this width.
SMALL = SIZES | {"num_hidden_layers": 2, "num_attention_heads": 16}


def small_llama(**changes):
    return LlamaForCausalLM(LlamaConfig(**SMALL | changes))


def deep_llama():
    return small_llama(num_hidden_layers=40, num_attention_heads=2)


def middling_llama():
    """Layers enough for gradients of five values, few enough to be merged quickly."""
    return small_llama(num_hidden_layers=12, num_attention_heads=2)


def llama_of_more_tokens():
    return small_llama(vocab_size=VOCABULARY + 2)


def granite():
    return GraniteForCausalLM(GraniteConfig(**SMALL))


def gpt2():
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=48, n_layer=12, n_head=12, n_positions=64))


def llava():
    """Layers under two prefixes, and a projector outside of both."""
    vision = CLIPVisionConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=2,
                              num_attention_heads=2, image_size=32, patch_size=4)
    return LlavaForConditionalGeneration(LlavaConfig(
        vision_config=vision, text_config=LlamaConfig(**SMALL), image_seq_length=16))


def save(make, directory: Path, seed: int, dtype: torch.dtype = torch.float32) -> Path:
    """Saves a random model; biases and norms are random too, so that models differ in each tensor."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = make()
        for parameter in (p for p in model.parameters() if p.dim() == 1):
            torch.nn.init.normal_(parameter, 1.0, 0.1)
    # mergekit leaves out half of a model of two towers that has other names than in memory.
    model.to(dtype).save_pretrained(directory, save_original_format=False)
    with_index(directory)
    return directory


def save_family(make, directory: Path, dtype: torch.dtype = torch.float32) -> None:
    """Models `a` to `d`."""
    for seed, name in enumerate("abcd"):
        save(make, directory / name, seed, dtype)


def save_tokenizer(directory: Path, added: list[str]) -> None:
    """Words without merges, and added tokens after them."""
    words = ["<unk>", "<s>", "</s>"] + [f"w{number}" for number in range(3, VOCABULARY)]
    model = {"type": "BPE", "vocab": {word: number for number, word in enumerate(words)}, "merges": []}
    plain = {"version": "1.0", "added_tokens": [], "model": model}
    tokenizer = LlamaTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(plain)))
    tokenizer.add_tokens(added)
    tokenizer.save_pretrained(directory)
