"""Tokenizers of merges: rows of embeddings, encoding and templates as mergekit has them.

mergekit numbers the tokens that a union adds in an order that differs from run to run, so rows and encodings are
compared by token.
"""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import ckptfs
from checkpoint import Checkpoint
from mergekit_runs import both, named

TEXTS = [
    "the lazy dog jumps over the quick brown fox",
    "<|im_start|>user\nwhat is a checkpoint?<|im_end|>",
    "eine kleine Katze [TOOL] und ein Hund",
]
EMBEDDINGS = ("model.embed_tokens.weight", "lm_head.weight")


def trained(texts: list[str], size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=["<s>", "</s>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts * 4, trainer)
    return tokenizer


def save(
    directory: Path, seed: int, texts: list[str], added: list, template: str | None = None
) -> None:
    """A model whose tokenizer knows `texts`."""
    tokenizer = trained(texts, 300)
    tokenizer.add_tokens(added)
    count = tokenizer.get_vocab_size()
    config = LlamaConfig(
        vocab_size=count, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=64,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(directory)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.chat_template = template
    fast.save_pretrained(directory)


@pytest.fixture(scope="module")
def tellers(tmp_path_factory) -> Path:
    """Models that know unlike words."""
    directory = tmp_path_factory.mktemp("tellers")
    english = TEXTS[:1] * 2
    chat = [AddedToken("<|im_start|>", special=True), AddedToken("<|im_end|>", special=True)]
    common = "{{ messages[0]['content'] }} said"
    save(directory / "plain", 1, english, [])
    save(directory / "chat", 2, [*english, TEXTS[1]], chat, template=common)
    save(directory / "other", 3, TEXTS[2:] * 2, [AddedToken("[TOOL]", special=False)], template=common)
    return directory


MERGE = """
merge_method: linear
models:
  - {{model: ZOO/{first}, parameters: {{weight: 0.6}}}}
  - {{model: ZOO/{second}, parameters: {{weight: 0.3}}}}
  - {{model: ZOO/{third}, parameters: {{weight: 0.1}}}}
{base}
dtype: float32
"""
BASED = MERGE.format(first="plain", second="chat", third="other", base="base_model: ZOO/plain")
UNBASED = MERGE.format(first="chat", second="other", third="plain", base="")
CASES = {
    "union": BASED + "tokenizer_source: union\n",
    "union without a base": UNBASED + "tokenizer: {source: ZOO/chat}\n",
    "rows that the recipe gives": BASED + """
tokenizer:
  source: union
  tokens:
    "<|im_start|>":
      source: {kind: model_token, model: ZOO/other, token: "[TOOL]"}
      force: true
    "<|im_end|>": {source: {kind: zero}}
    "the": {source: ZOO/chat, force: true}
    "<new>": {source: {kind: model_token, model: ZOO/plain, token_id: 7}}
""",
    "rows up to a multiple": BASED + "tokenizer: {source: base, pad_to_multiple_of: 64}\n",
}


@pytest.mark.parametrize("recipe", **named(CASES))
def test_rows_and_encodings_are_mergekits_token_by_token(recipe, tellers, tmp_path):
    paths = both(recipe, tellers, tmp_path)
    theirs, ours = [AutoTokenizer.from_pretrained(path) for path in paths]
    assert set(ours.get_vocab()) == set(theirs.get_vocab())
    merged, shown = [Checkpoint(path) for path in paths]
    order = sorted(ours.get_vocab())
    rows = [torch.tensor([tokenizer.get_vocab()[token] for token in order])
            for tokenizer in (theirs, ours)]
    for name in EMBEDDINGS:
        wanted, found = merged[name], shown[name]
        assert found.shape == wanted.shape
        off = (found[rows[1]] - wanted[rows[0]]).abs().max().item()
        assert off <= 1e-7, (name, off)
        padding = slice(len(order), None)
        assert torch.allclose(found[padding], wanted[padding], atol=1e-6), name
    for text in TEXTS:
        assert ours.tokenize(text) == theirs.tokenize(text)
        assert ours.decode(ours.encode(text)) == theirs.decode(theirs.encode(text))
    assert ours.bos_token == theirs.bos_token and ours.eos_token == theirs.eos_token
    sizes = [json.loads((path / "config.json").read_text())["vocab_size"] for path in paths]
    assert sizes[0] == sizes[1]


MESSAGES = [{"role": "user", "content": "hello "}, {"role": "assistant", "content": "hi"}]
TEMPLATES = {
    **{name: name for name in ("alpaca", "chatml", "exaone", "llama3", "mistral")},
    "auto": "auto",
    "text": "{% for m in messages %}{{ m['content'] }}|{% endfor %}",
}


@pytest.mark.parametrize("template", **named(TEMPLATES))
def test_templates_render_as_mergekits(template, tellers, tmp_path):
    recipe = BASED + "tokenizer_source: base\nchat_template: " + json.dumps(template) + "\n"
    theirs, ours = [AutoTokenizer.from_pretrained(path) for path in both(recipe, tellers, tmp_path)]
    for prompts in (False, True):
        rendered = [tokenizer.apply_chat_template(
            MESSAGES, tokenize=False, add_generation_prompt=prompts) for tokenizer in (theirs, ours)]
        assert rendered[0] == rendered[1]


def test_the_plan_names_a_key_that_mergekit_does_not_have_either(tellers, tmp_path):
    file = tmp_path / "recipe.yml"
    file.write_text(BASED.replace("ZOO", str(tellers)) + "embed_slerp: true\n")
    with pytest.raises(AssertionError, match="embed_slerp is not a key"):
        ckptfs.run("plan", "--recipe", file)
