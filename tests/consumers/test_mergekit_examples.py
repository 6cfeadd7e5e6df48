"""Recipes of every structure that mergekit's examples and tests have, against mergekit.

The same methods, sources, gradients, filters and families of models; models, names and values are our own.
Which of equal magnitudes mergekit takes is undefined: here it takes the first, as a view does.
"""

import copy
import json
from pathlib import Path

import mergekit.sparsify
import pytest
import torch
from click.testing import CliRunner
from mergekit.common import ModelReference
from mergekit.scripts import multimerge
from transformers import AutoModelForCausalLM, AutoTokenizer

import ckptfs
import example_models
from checkpoint import Checkpoint, same_bits
from distances import MAY_BE_MOVED, Distances
from example_recipes import (
    ALL,
    DIRECTIONS,
    DOCUMENTS,
    FUSED,
    LEFT_IN_FLOAT32,
    MIXTURES,
    NEAR,
    SAME_BITS,
    TOKENS,
    Case,
    in_float32,
    merge,
    spoken,
    two,
)
from mergekit_runs import both, choose_the_first_of_equal_magnitudes, named, run, with_index, write
from test_mergekit import config
from test_mergekit_methods import Masks
from test_mergekit_moe import written

FAMILIES = {
    "deep": (example_models.deep_llama, torch.float16),
    "middling": (example_models.middling_llama, torch.float16),
    "small": (example_models.small_llama, torch.float32),
    "coarse": (example_models.small_llama, torch.bfloat16),
    "granite": (example_models.granite, torch.float32),
    "gpt2": (example_models.gpt2, torch.float32),
    "vision": (example_models.llava, torch.float32),
}
WITH_TOKENIZER = "middling"
# Sums over tensors are rounded in another order: two results differ by at most this share of the tensor's largest
# element.
MOST_OFF_IN_FLOAT32 = 2e-6


@pytest.fixture(scope="module")
def families(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("families")
    for family, (make, dtype) in FAMILIES.items():
        example_models.save_family(make, directory / family, dtype)
    for model in "abcd":
        example_models.save_tokenizer(directory / WITH_TOKENIZER / model, [])
    return directory


@pytest.fixture(autouse=True)
def read_each_config_once(monkeypatch):
    """mergekit reads the config of a model again for every tensor, which takes most of its time."""
    known, read = {}, ModelReference.config

    def config(self, **options):
        if self not in known:
            known[self] = read(self, **options)
        return copy.copy(known[self])

    monkeypatch.setattr(ModelReference, "config", config)


def weights(directory: Path) -> dict[str, torch.Tensor]:
    checkpoint = Checkpoint(directory)
    return {name: checkpoint[name] for name in checkpoint.names()}


def config_of(directory: Path) -> dict:
    """The config, without the dtypes of its parts: mergekit leaves those of the sources."""
    read = config(directory)
    for part in read.values():
        if isinstance(part, dict):
            part.pop("dtype", None)
    return read


def compared(case: Case, families: Path, scratch: Path) -> tuple[dict, dict]:
    """The tensors that mergekit and a view have, after what else they have was compared."""
    merged, shown = both(json.dumps(case.recipe), families / case.family, scratch)
    assert config_of(shown) == config_of(merged)
    if case.family == WITH_TOKENIZER:
        for file in ("tokenizer.json", "tokenizer_config.json"):
            assert (shown / file).read_bytes() == (merged / file).read_bytes(), file
    wanted, found = [weights(directory) for directory in (merged, shown)]
    assert found.keys() == wanted.keys()
    if case.recipe["merge_method"] in LEFT_IN_FLOAT32:
        wanted = {name: tensor.to(found[name].dtype) for name, tensor in wanted.items()}
    return wanted, found


def assert_near(wanted: dict, found: dict, inputs: list[dict], label: str) -> None:
    distances = Distances()
    for name, tensor in sorted(wanted.items()):
        assert found[name].dtype == tensor.dtype
        if tensor.dtype == torch.float32:
            off = (found[name] - tensor).abs().max() / tensor.abs().max()
            assert off <= MOST_OFF_IN_FLOAT32, (name, off)
        else:
            distances.add(tensor, found[name], *(model[name] for model in inputs))
    if distances.beyond_one:
        distances.check(label, MAY_BE_MOVED)


@pytest.mark.parametrize("case", SAME_BITS)
def test_a_view_has_the_bits_of_mergekit(case, families, tmp_path, monkeypatch):
    choose_the_first_of_equal_magnitudes(monkeypatch)
    wanted, found = compared(SAME_BITS[case], families, tmp_path)
    different = [name for name in wanted if not same_bits(wanted[name], found[name])]
    assert not different, different


@pytest.mark.parametrize("case", NEAR)
def test_sums_over_tensors_differ_in_their_last_place(case, families, tmp_path):
    stated = NEAR[case]
    wanted, found = compared(stated, families, tmp_path)
    inputs = [weights(families / stated.family / model) for model in "abc"]
    assert_near(wanted, found, inputs, case)


@pytest.mark.parametrize("recipe", **named(DIRECTIONS))
def test_means_of_directions_in_bfloat16_are_nearer_to_float32_than_mergekits(recipe, families, tmp_path):
    zoo = families / "coarse"
    paths = both(json.dumps(recipe), zoo, tmp_path)
    exact = weights(run(json.dumps(in_float32(recipe)), zoo, tmp_path / "exact"))
    theirs, ours = [weights(path) for path in paths]
    assert ours.keys() == theirs.keys()
    off = [0.0, 0.0]
    for name, wanted in exact.items():
        assert ours[name].dtype == theirs[name].dtype == torch.bfloat16
        for i, tensors in enumerate((ours, theirs)):
            off[i] += (tensors[name].float() - wanted).abs().sum().item() / wanted.abs().mean().item()
    print(f"\n{recipe['merge_method']}: {off[0] / off[1]:.3f} of the distance")
    assert off[0] < off[1]


# The families, and in which dtype a view computes. In bfloat16 mergekit's sums of divergences are too coarse to
# choose by: the same models in float32 say what is to be taken.
FUSIONS = {
    "layers of one tower": ("middling", "float32"),
    "layers of two towers": ("vision", "float32"),
    "bfloat16": ("coarse", "bfloat16"),
}


@pytest.mark.parametrize("family, dtype", **named(FUSIONS))
def test_arcee_fusion_takes_the_same_elements_but_near_the_threshold(
    family, dtype, families, tmp_path
):
    zoo = families / family
    merged = run(json.dumps(in_float32(FUSED)), zoo, tmp_path / "merged")
    file, shown = write(json.dumps(FUSED | {"dtype": dtype}), zoo, tmp_path), tmp_path / "shown"
    ckptfs.run("materialize", "--recipe", file, "--out", shown)
    wanted, found, base, model = [weights(path) for path in (merged, shown, zoo / "a", zoo / "b")]
    assert found.keys() == wanted.keys()
    differ = taken = elements = 0
    for name, tensor in found.items():
        start, end = [inputs[name].to(tensor.dtype) for inputs in (base, model)]
        of_base, of_model = tensor == start, tensor == start + (end - start)
        assert (of_base | of_model).all(), name
        differ += ((wanted[name] != start.float()) != ~of_base).sum().item()
        taken += (~of_base).sum().item()
        elements += tensor.numel()
    print(f"\n{family}: {taken / elements:.3%} taken, {differ / elements:.4%} differ")
    assert 0.01 < taken / elements < 0.5
    assert differ / elements < 0.002


DENSITIES = {"a": 0.66, "b": 0.66}
AT_RANDOM = {
    "dare_ties": ("dare_ties", {}, {}),
    "della": ("della", {"epsilon": 0.05}, {"lambda": 0.5}),
}


@pytest.mark.parametrize("family", ["small", "vision"])
@pytest.mark.parametrize("method, own, parameters", **named(AT_RANDOM))
def test_given_the_random_choices_of_a_view_mergekit_computes_the_same(
    method, own, parameters, family, families, tmp_path, monkeypatch
):
    recipe = two(method, "c", density=0.66, **own, **parameters)
    masks = Masks(method, DENSITIES, families / family, tmp_path, normalize=False, **own)
    monkeypatch.setattr(mergekit.sparsify, "bernoulli", masks.bernoulli)

    def ranked(tensor, density, epsilon, rescale_norm=None):
        assert epsilon == own["epsilon"]
        return masks.bernoulli(tensor, density, rescale_norm)

    monkeypatch.setattr(mergekit.sparsify, "della_magprune", ranked)
    wanted, found = compared(Case(family, in_float32(recipe)), families, tmp_path)
    assert_near(wanted, found, [], method)
    ckptfs.run("plan", "--recipe", write(json.dumps(recipe), families / family, tmp_path))


def test_both_refuse_an_epsilon_that_makes_chances_of_more_than_one(families, tmp_path):
    recipe = json.dumps(two("della", "c", density=0.66, epsilon=1.35, **{"lambda": 0.5}))
    with pytest.raises(ValueError, match="Epsilon must be chosen"):
        run(recipe, families / "small", tmp_path / "merged")
    done = ckptfs.attempt("plan", "--recipe", write(recipe, families / "small", tmp_path))
    assert done.returncode != 0 and "epsilon" in done.stderr


def test_a_document_can_be_the_base_of_another(families, tmp_path):
    zoo = families / "small"
    file = write(DOCUMENTS, zoo, tmp_path)
    merged, shown = tmp_path / "merged", tmp_path / "shown"
    arguments = [str(file), "--out-path", str(merged), "-I", str(tmp_path / "steps"),
                 "--no-write-model-card", "--quiet", "--clone-tensors"]
    done = CliRunner().invoke(multimerge.main, arguments)
    assert done.exception is None, (done.output, done.exception)
    with_index(merged)
    ckptfs.run("materialize", "--recipe", file, "--out", shown)
    wanted, found = [weights(directory) for directory in (merged, shown)]
    assert found.keys() == wanted.keys()
    assert_near(wanted, found, [], "documents")


@pytest.fixture(scope="module")
def talkers(tmp_path_factory) -> Path:
    """Models with as many rows as their tokenizer has tokens, more, or fewer; and one without a tokenizer."""
    directory = tmp_path_factory.mktemp("talkers")
    few, more = example_models.small_llama, example_models.llama_of_more_tokens
    for seed, (name, make, added) in enumerate([
        ("plain", few, []),
        ("chat", more, ["<|turn|>", "<|end|>"]),
        ("spare", few, [f"<SPARE_{number}>" for number in range(4)]),
    ]):
        example_models.save_tokenizer(example_models.save(make, directory / name, seed), added)
    example_models.save(few, directory / "mute", 3)
    return directory


EMBEDDINGS = {"model.embed_tokens.weight", "lm_head.weight"}


@pytest.mark.parametrize("recipe, tokens, rows", **named(TOKENS))
def test_rows_are_mergekits_token_by_token(recipe, tokens, rows, talkers, tmp_path):
    paths = both(json.dumps(recipe), talkers, tmp_path)
    theirs, ours = [AutoTokenizer.from_pretrained(path) for path in paths]
    assert ours.get_vocab().keys() == theirs.get_vocab().keys() and len(ours.get_vocab()) == tokens
    assert len(ours.added_tokens_decoder) == len(theirs.added_tokens_decoder)
    for path in paths:
        assert json.loads((path / "config.json").read_text())["vocab_size"] == rows
    wanted, found = [weights(path) for path in paths]
    assert found.keys() == wanted.keys()
    # A union numbers the tokens that it adds in any order. Rows without a token stay where they are.
    order = sorted(ours.get_vocab())
    for tensors, tokenizer in ((wanted, theirs), (found, ours)):
        places = [tokenizer.get_vocab()[token] for token in order]
        for name in EMBEDDINGS:
            assert tensors[name].shape[0] == rows
            tensors[name] = tensors[name][places + list(range(tokens, rows))]
    assert_near(wanted, found, [], "rows")


def test_vocabularies_of_two_sizes_are_cut_only_on_request(talkers, tmp_path):
    recipe = spoken(ALL)
    with pytest.raises(ValueError, match="Align vocabulary"):
        run(json.dumps(recipe), talkers, tmp_path / "refused")
    done = ckptfs.attempt("plan", "--recipe", write(json.dumps(recipe), talkers, tmp_path))
    assert done.returncode != 0 and "truncate_embeddings" in done.stderr

    merged = run(json.dumps(recipe), talkers, tmp_path / "merged", unsafe_truncate_embeddings=True)
    file = write(json.dumps(recipe | {"view": {"truncate_embeddings": True}}), talkers, tmp_path)
    shown = tmp_path / "shown"
    ckptfs.run("materialize", "--recipe", file, "--out", shown)
    wanted, found = [weights(path) for path in (merged, shown)]
    assert found.keys() == wanted.keys()
    different = [name for name in wanted if not same_bits(wanted[name], found[name])]
    assert not different, different
    theirs, ours = [AutoTokenizer.from_pretrained(path) for path in (merged, shown)]
    assert ours.get_vocab() == theirs.get_vocab()


TEMPLATES = {"a name": "chatml", "text": "{{messages[0]['content']}}"}
MESSAGES = [{"role": "user", "content": "w3"}, {"role": "assistant", "content": "w4"}]


@pytest.mark.parametrize("template", **named(TEMPLATES))
def test_a_template_goes_to_the_tokenizer_of_the_base(template, talkers, tmp_path):
    models = dict.fromkeys(["plain", "mute"], {"weight": 0.5})
    recipe = merge("linear", models, "plain", dtype="bfloat16", chat_template=template)
    paths = both(json.dumps(recipe), talkers, tmp_path)
    theirs, ours = [AutoTokenizer.from_pretrained(path) for path in paths]
    assert ours.get_vocab() == theirs.get_vocab()
    rendered = [tokenizer.apply_chat_template(MESSAGES, tokenize=False) for tokenizer in (theirs, ours)]
    assert rendered[0] == rendered[1] != ""
    wanted, found = [weights(path) for path in paths]
    assert found.keys() == wanted.keys()
    assert all(same_bits(wanted[name], found[name]) for name in wanted)


@pytest.mark.parametrize("stated", **named(MIXTURES))
def test_mixtures_of_random_routers_differ_in_these_alone(stated, talkers, tmp_path):
    text = json.dumps(stated | {"base_model": "ZOO/plain", "gate_mode": "random"})
    file = write(text, talkers, tmp_path)
    merged = written(json.loads(file.read_text()), tmp_path / "merged")
    shown = tmp_path / "shown"
    ckptfs.run("materialize", "--recipe", file, "--out", shown)
    wanted, found = [AutoModelForCausalLM.from_pretrained(path, dtype="auto").state_dict()
                     for path in (merged, shown)]
    assert found.keys() == wanted.keys()
    different = {name for name in wanted if not same_bits(wanted[name], found[name])}
    routers = {name for name in wanted if name.endswith("gate.weight")}
    assert different == routers
    for name in routers:
        rows = 1 if "shared" in name else len(stated["experts"])
        assert found[name].shape == wanted[name].shape == (rows, 32)
        assert found[name].dtype == wanted[name].dtype
