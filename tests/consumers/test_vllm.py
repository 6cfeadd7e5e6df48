"""vLLM makes the same of a view as of the directory on disk that holds the same files."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

import ckptfs
import fp8_definition as fp8
from checkpoint import Checkpoint
from views import gemma_fp8, patched, patched_fp8, repacked
from vllm_engines import NEW_TOKENS, Engines, digest

PROMPTS = ["The capital of France is", "A lighthouse is a tower with"]
# Layers that vLLM makes of several of the checkpoint's, which follow each other in this order.
FUSED = {
    "q_proj": "qkv_proj", "k_proj": "qkv_proj", "v_proj": "qkv_proj",
    "gate_proj": "gate_up_proj", "up_proj": "gate_up_proj",
}


# Its kernel for weights of 4 bits, which vLLM builds for processors with AVX-512 alone.
KERNEL_OF_4_BITS = "no attribute 'cpu_gemm_wna16'"


@pytest.fixture(scope="module")
def engines():
    with Engines() as engines:
        yield engines


@pytest.fixture(scope="module")
def gemma_on_disk(checkpoints, tmp_path_factory):
    """The FP8 view of Gemma as a directory on disk."""
    out = tmp_path_factory.mktemp("gemma") / "written"
    ckptfs.run("materialize", *gemma_fp8(checkpoints), "--out", out)
    return out


@pytest.fixture(scope="module")
def made_of_gemma(engines, gemma_on_disk):
    return engines.generate(gemma_on_disk, tokens_of(PROMPTS, gemma_on_disk))


def tokens_of(prompts: list[str], directory: Path) -> list[list[int]]:
    return AutoTokenizer.from_pretrained(directory)(prompts)["input_ids"]


def assert_generated(made: dict) -> None:
    if KERNEL_OF_4_BITS in made.get("error", ""):
        pytest.skip("vLLM cannot compute with 4 bits on a processor without AVX-512")
    assert "error" not in made, made["error"]
    assert [len(tokens) for tokens in made["tokens"]] == [NEW_TOKENS] * len(PROMPTS)


@pytest.mark.parametrize("view", [patched, repacked])
def test_smollm2_generates_the_tokens_it_does_from_disk_at_the_same_probabilities(
    view, engines, mount, checkpoints, tmp_path
):
    ckptfs.run("materialize", *view(checkpoints), "--out", tmp_path / "written")
    prompts = tokens_of(PROMPTS, checkpoints / "smollm2")
    with mount(view) as path:
        from_view = engines.generate(path, prompts)
    assert_generated(from_view)
    assert from_view == engines.generate(tmp_path / "written", prompts)
    text = AutoTokenizer.from_pretrained(checkpoints / "smollm2").decode(from_view["tokens"][0])
    assert text.startswith(" Paris")


def test_gemma_in_fp8_generates_the_tokens_it_does_from_disk_at_the_same_probabilities(
    engines, mount, made_of_gemma
):
    with mount(gemma_fp8) as path:
        from_view = engines.generate(path, tokens_of(PROMPTS, path))
    assert_generated(from_view)
    assert from_view == made_of_gemma


def digests_of_layers(directory: Path) -> dict[str, str]:
    """The layers that vLLM should make of the quantised weights, as `Engines.generate` gives them."""
    view, layers = Checkpoint(directory), {}
    for module in ["o_proj", "down_proj", *FUSED]:
        for name in sorted(filter(fp8.is_quantised, view.names())):
            parent, own = name.removesuffix(".weight").rsplit(".", 1)
            if own == module:
                parts = layers.setdefault(f"{parent}.{FUSED.get(module, module)}", [])
                parts.append(fp8.dequantise(view[name], view[f"{name}_scale_inv"]))
    return {name: digest(torch.cat(parts)) for name, parts in layers.items()}


def test_the_layers_in_fp8_are_those_that_the_view_quantises(gemma_on_disk, made_of_gemma):
    assert_generated(made_of_gemma)
    assert made_of_gemma["fp8"] == digests_of_layers(gemma_on_disk)


def test_merged_layers_of_partial_blocks_are_loaded_wrongly_as_the_plan_warns(
    engines, checkpoints, tmp_path
):
    """If this vLLM does it right, the warning and docs/FIDELITY.md are to be changed."""
    out = tmp_path / "written"
    written = ckptfs.run("materialize", *patched_fp8(checkpoints), "--out", out)
    assert "vLLM from 0.14 on reads some rows with wrong scales" in written.stdout
    made = engines.generate(out, tokens_of(PROMPTS, out))
    assert_generated(made)
    wanted = digests_of_layers(out)
    assert made["fp8"].keys() == wanted.keys()
    wrong = {name.rsplit(".", 1)[1] for name in wanted if made["fp8"][name] != wanted[name]}
    assert wrong == {"qkv_proj"}


@pytest.mark.parametrize("module", ["mlp.down_proj", "self_attn.q_proj"])
def test_a_skip_list_that_names_a_layer_in_fp8_does_not_load_or_generates_other_tokens(
    module, engines, gemma_on_disk, made_of_gemma, tmp_path
):
    def name_too_many(skip_list: list[str]) -> None:
        skip_list.append(f"model.layers.9.{module}")

    wrong = with_skip_list(gemma_on_disk, name_too_many, tmp_path / "wrong")
    made = engines.generate(wrong, tokens_of(PROMPTS, wrong))
    assert made.get("tokens") != made_of_gemma["tokens"]


def test_a_skip_list_that_omits_a_layer_in_bf16_does_not_load_or_generates_other_tokens(
    engines, checkpoints, tmp_path
):
    only_mlp = ["--base", checkpoints / "gemma3", "--fp8-pattern", r".*\.mlp\..*_proj\.weight"]
    ckptfs.run("materialize", *only_mlp, "--out", tmp_path / "right")

    def omit(skip_list: list[str]) -> None:
        skip_list.remove("model.layers.9.self_attn.o_proj")

    wrong = with_skip_list(tmp_path / "right", omit, tmp_path / "wrong")
    prompts = tokens_of(PROMPTS, wrong)
    right = engines.generate(tmp_path / "right", prompts)
    assert_generated(right)
    assert engines.generate(wrong, prompts).get("tokens") != right["tokens"]


def quantised(scheme: str):
    dialect = ["--dialect", "compressed-tensors"] if scheme == "fp8-block" else []
    return lambda checkpoints: [
        "--base", checkpoints / "gemma3", "--quantize", scheme, *dialect
    ]


@pytest.mark.parametrize("scheme", [
    "fp8-channel", "int8-channel", "int4", "int4:group=32", "int4:asymmetric", "fp8-block",
])
def test_every_scheme_of_compressed_tensors_gives_each_parameter_a_weight(scheme, engines, mount):
    with mount(quantised(scheme)) as path:
        loaded = engines.load(path)
    assert "error" not in loaded, loaded["error"]
    # Zero points of the cache, which are made for every attention and come with no weights.
    assert [name for name in loaded["missing"] if ".attn." not in name] == []


@pytest.mark.parametrize("scheme", ["int8-channel", "int4", "int4:asymmetric"])
def test_gemma_in_integers_generates(scheme, engines, mount):
    with mount(quantised(scheme)) as path:
        assert_generated(engines.generate(path, tokens_of(PROMPTS, path)))


def test_gemma_in_4_bits_gives_the_probabilities_of_the_same_numbers_in_bf16(
    engines, mount, checkpoints, tmp_path
):
    ckptfs.run("materialize", *quantised("int4")(checkpoints), "--out", tmp_path / "int4")
    numbers = ["--base", tmp_path / "int4", "--dtype", "bf16"]
    ckptfs.run("materialize", *numbers, "--out", tmp_path / "bf16")
    prompts = tokens_of(PROMPTS, tmp_path / "bf16")
    made, expected = (engines.generate(tmp_path / name, prompts) for name in ["int4", "bf16"])
    assert_generated(made)
    for tokens, others, logprobs, theirs in zip(
        made["tokens"], expected["tokens"], made["logprobs"], expected["logprobs"], strict=True
    ):
        assert tokens[0] == others[0]
        assert logprobs[0] == pytest.approx(theirs[0], abs=0.05)


def with_skip_list(directory: Path, edit, out: Path) -> Path:
    """The same checkpoint, but for an edited list of what is not quantised."""
    out.mkdir()
    for path in directory.iterdir():
        (out / path.name).symlink_to(path)
    config = json.loads((directory / "config.json").read_text())
    edit(config["quantization_config"]["modules_to_not_convert"])
    (out / "config.json").unlink()
    (out / "config.json").write_text(json.dumps(config))
    return out
