"""GGUF files as sources: what transformers loads from a view is what it loads from the file itself, and what was
written as GGUF comes back."""

import json
from pathlib import Path

import numpy
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import dequantize, quantize
from safetensors import safe_open
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

import ckptfs
import gguf_models
from checkpoint import Checkpoint

TEXTS = [
    "Hello world", " leading space", "  two", "a  b   c    d", "1234567 99", "naïve café — “quoted”",
    "日本語のテキスト。한국어", "emoji 🙂👩‍👩‍👧", "tabs\tand\nnew\n\nlines\r\n", "def f(x):\n    return x+1\n",
    "<|im_start|>user\nHi<|im_end|>\n", "<start_of_turn>user\nHi<end_of_turn>\n", "x" * 200, "", " ", "\n",
    "'s 'T we'Re I'LL", "é e\u0301", "a▁b", "Ω≈ç√∫˜µ≤≥÷ \u200b zero",
]


def load(source: dict):
    return AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)


def logits(model, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([ids])).logits


@pytest.mark.parametrize("name", ["smollm2", "gemma3"])
def test_a_real_model_is_loaded_as_transformers_loads_its_file(checkpoints, tmp_path, name):
    file = checkpoints / "gguf" / f"{name}.gguf"
    itself = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    expected, tokenizer = load(itself), AutoTokenizer.from_pretrained(**itself)
    if name == "smollm2":
        # Its tokenizer takes digits one by one; transformers overlooks what the file says of that.
        backend = tokenizer.backend_tokenizer
        digits = pre_tokenizers.Digits(individual_digits=True)
        backend.pre_tokenizer = pre_tokenizers.Sequence([digits, backend.pre_tokenizer])
    with ckptfs.mounted(["--base", file, "--dtype", "f32"], tmp_path) as mount:
        assert_loaded_alike(mount, expected, tokenizer, name)


def assert_loaded_alike(mount: Path, expected, tokenizer, name: str) -> None:
    """In a function of its own: what it loads maps the mount until it returns."""
    found = load({"pretrained_model_name_or_path": mount})
    ours = AutoTokenizer.from_pretrained(mount)
    theirs, mine = expected.state_dict(), found.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[key], theirs[key]) for key in theirs)
    for text in TEXTS:
        ids = ours(text).input_ids
        assert ids == tokenizer(text).input_ids, text
        assert ours.decode(ids) == tokenizer.decode(ids), text
    for token in ("bos_token", "eos_token", "pad_token", "unk_token", "chat_template"):
        assert getattr(ours, token) == getattr(tokenizer, token), token
    ids = ours("The capital of France is").input_ids
    assert torch.equal(logits(found, ids), logits(expected, ids))
    if name == "smollm2":
        said = found.generate(torch.tensor([ids]), max_new_tokens=4, do_sample=False)
        assert "Paris" in ours.decode(said[0])


def test_files_of_the_original_are_taken_in_place_of_made_ones(checkpoints, tmp_path):
    file, original = checkpoints / "gguf" / "smollm2.gguf", checkpoints / "smollm2"
    out = tmp_path / "out"
    ckptfs.run("materialize", "--base", file, "--like", original, "--out", out)
    for path in original.iterdir():
        if path.suffix != ".safetensors" and not path.name.endswith(".index.json"):
            assert (out / path.name).read_bytes() == path.read_bytes()
    found, expected = Checkpoint(out), Checkpoint(original)
    assert found.names() == expected.names()
    # The original is the same file, dequantized by transformers and rounded to bf16.
    for name in expected.names():
        assert torch.equal(found[name].to(torch.bfloat16), expected[name]), name


@pytest.mark.parametrize("model", gguf_models.OF_PIECES + gguf_models.OF_BYTES,
                         ids=lambda model: model.__name__)
def test_what_was_written_as_gguf_comes_back(checkpoints, tmp_path, model):
    """Tensors to the bit but for those that a sum or a logarithm rounds; the model computes the same."""
    saved = gguf_models.save(
        model, tmp_path / "model", checkpoints / "smollm2", torch.float32)
    config = json.loads((saved / "config.json").read_text())
    # llama.cpp computes nothing else, and has no keys for it.
    if "norm_topk_prob" in config:
        config["norm_topk_prob"] = True
    if "query_pre_attn_scalar" in config:
        config["query_pre_attn_scalar"] = config["head_dim"]
    (saved / "config.json").write_text(json.dumps(config))
    out = tmp_path / "gguf"
    ckptfs.run("materialize", "--base", saved, "--gguf", "f32", "--out", out)
    (file,) = out.iterdir()
    back = tmp_path / "back"
    # Its rotations are scaled as in no release of Llama 3, and the file has only the factors.
    flags = ["--like", saved] if model is gguf_models.llama else []
    ckptfs.run("materialize", "--base", file, *flags, "--out", back)
    found, expected = Checkpoint(back), Checkpoint(saved)
    vision_less = {name.replace("model.language_model.", "model.") for name in expected.names()}
    assert found.names() == vision_less
    for name in expected.names():
        ours = found[name.replace("model.language_model.", "model.")]
        rows = min(ours.shape[0], expected[name].shape[0])
        close = torch.allclose(ours[:rows], expected[name][:rows].float(), rtol=0, atol=2e-7)
        assert close, name
    first, second = (load({"pretrained_model_name_or_path": path}) for path in (saved, back))
    ids = list(range(3, 20))
    width = min(first.config.vocab_size, second.config.vocab_size)
    ours, theirs = logits(second, ids), logits(first, ids)
    assert torch.allclose(ours[..., :width], theirs[..., :width], rtol=1e-4, atol=1e-4)


TYPES = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "MXFP4",
         "IQ4_NL", "IQ4_XS", "TQ1_0", "TQ2_0", "BF16", "F16"]


def test_every_type_is_decoded_as_gguf_py_does(tmp_path):
    """Any bytes are blocks, so K-quants need no encoder: scales are set, the rest is random."""
    path = tmp_path / "model.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(len(TYPES))
    writer.add_head_count(4)
    writer.add_array("some.texts", ["a", "ä", ""])
    writer.add_array("some.numbers", [1, 2, 3])
    writer.add_float64("some.float", 0.1)
    random = numpy.random.default_rng(0)
    expected = {}
    for layer, name in enumerate(TYPES):
        kind = GGMLQuantizationType[name]
        values = random.standard_normal((3, 512), dtype=numpy.float32)
        try:
            blocks = quantize(values, kind)
        except NotImplementedError:
            blocks = random_blocks(random, name)
        writer.add_tensor(f"blk.{layer}.ffn_up.weight", blocks, raw_dtype=kind)
        expected[f"model.layers.{layer}.mlp.up_proj.weight"] = dequantize(blocks, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    like = tmp_path / "like"
    like.mkdir()
    (like / "config.json").write_text("{}")
    out = tmp_path / "out"
    ckptfs.run("materialize", "--base", path, "--dtype", "f32", "--like", like, "--single-file",
               "--out", out)
    with safe_open(out / "model.safetensors", "np") as file:
        assert set(file.keys()) == set(expected)
        for (name, values), kind in zip(expected.items(), TYPES):
            assert numpy.array_equal(file.get_tensor(name), values.astype(numpy.float32)), kind


def random_blocks(random, name: str) -> numpy.ndarray:
    """Rows of two super-blocks whose scales, in F16, are neither infinite nor NaN."""
    places = {"Q2_K": (84, [80, 82]), "Q3_K": (110, [108]), "Q4_K": (144, [0, 2]),
              "Q5_K": (176, [0, 2]), "Q6_K": (210, [208]), "IQ4_NL": (18, [0]), "IQ4_XS": (136, [0])}
    width, scales = places[name]
    count = 512 // (32 if name == "IQ4_NL" else 256)
    blocks = random.integers(0, 256, (3 * count, width), dtype=numpy.uint8)
    for place in scales:
        scale = random.standard_normal(3 * count).astype(numpy.float16)
        blocks[:, place:place + 2] = scale.view(numpy.uint8).reshape(-1, 2)
    return blocks.reshape(3, count * width)


def test_operators_see_a_gguf_base_as_any_other(checkpoints, tmp_path):
    """FP8 of a view of the file is FP8 of the view, written first."""
    file = checkpoints / "gguf" / "gemma3.gguf"
    plain, direct, second = (tmp_path / name for name in ("plain", "direct", "second"))
    ckptfs.run("materialize", "--base", file, "--out", plain)
    ckptfs.run("materialize", "--base", file, "--fp8", "--out", direct)
    ckptfs.run("materialize", "--base", plain, "--fp8", "--out", second)
    written = sorted(path.name for path in second.iterdir())
    assert sorted(path.name for path in direct.iterdir()) == written
    for name in written:
        assert (direct / name).read_bytes() == (second / name).read_bytes(), name
