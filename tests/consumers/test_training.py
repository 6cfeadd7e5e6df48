"""Training checkpoints shown as models: every tensor is what was trained, bit for bit."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

import ckptfs
import megatron_runs
import training_runs
from checkpoint import same_bits


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    # In a process of its own: its ranks are forked, which does not go together with torch's threads.
    out = tmp_path_factory.mktemp("runs") / "out"
    subprocess.run([sys.executable, training_runs.__file__, out], check=True, timeout=300)
    return out


def shown(out: Path, *flags) -> dict[str, torch.Tensor]:
    """The tensors of a view."""
    ckptfs.run("materialize", *flags, "--out", out)
    files = sorted(out.glob("*.safetensors"))
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def assert_same(found: dict, expected: dict) -> None:
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert same_bits(found[name], tensor.detach().contiguous()), name


OF_LLAMA = [
    "run/checkpoint-500", "run/checkpoint-500/pytorch_model_fsdp_0", "everything",
    "verl/global_step_5", "verl/global_step_5/actor", "hybrid", "grid", "grid-dcp", "grid-dcp-former",
    "grid-safetensors", "hf", "hf-consolidated/sharded", "zero2", "zero2/global_step30", "zero3",
    "meta1", "meta2",
]


@pytest.mark.parametrize("base", OF_LLAMA)
def test_every_form_is_shown_as_the_model_that_was_saved(base, runs, tmp_path):
    found = shown(tmp_path / "out", "--base", runs / base, "--like", runs / "llama")
    assert_same(found, training_runs.llama().state_dict())


def test_what_zero_1_did_not_train_is_that_of_the_model_in_16_bits(runs, tmp_path):
    found = shown(tmp_path / "out", "--base", runs / "zero1", "--like", runs / "llama")
    expected = training_runs.llama().state_dict()
    expected[training_runs.FROZEN] = expected[training_runs.FROZEN].bfloat16()
    assert_same(found, expected)


def test_a_consolidated_checkpoint_is_one_of_hugging_face(runs, tmp_path):
    for file in ("config.json", "generation_config.json"):
        shutil.copy(runs / "llama" / file, runs / "hf-consolidated")
    found = shown(tmp_path / "out", "--base", runs / "hf-consolidated")
    assert_same(found, training_runs.llama().state_dict())


@pytest.mark.parametrize("base", ["megatron", "megatron/iter_0000020"])
def test_megatron_core_is_taken_apart(base, runs, tmp_path):
    found = shown(tmp_path / "out", "--base", runs / base, "--like", runs / "qwen2")
    assert_same(found, training_runs.qwen2().state_dict())


@pytest.fixture(scope="module")
def megatron_core(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("megatron") / "out"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*launch, megatron_runs.__file__, out], check=True, timeout=300, env=environment)
    return out


@pytest.mark.parametrize("form", ["tensor", "pipeline", "layers"])
def test_what_megatron_core_itself_writes_is_shown_as_a_model(form, megatron_core, tmp_path):
    config = Qwen2Config(
        vocab_size=megatron_runs.TOKENS, hidden_size=megatron_runs.HIDDEN, tie_word_embeddings=False,
        intermediate_size=megatron_runs.INTERMEDIATE, num_hidden_layers=megatron_runs.LAYERS,
        num_attention_heads=megatron_runs.HEADS, num_key_value_heads=megatron_runs.KEYS,
    )
    Qwen2ForCausalLM(config).save_pretrained(tmp_path / "like")
    run = megatron_core / form
    found = shown(tmp_path / "out", "--base", run, "--like", tmp_path / "like")
    assert_same(found, megatron_runs.trained(run, form))


def test_a_view_loads_with_the_models_own_logits(runs, tmp_path):
    tokens = torch.tensor([[1, 5, 9, 20, 4]])
    flags = ["--base", runs / "run/checkpoint-500", "--like", runs / "llama", "--dtype", "bf16"]
    with ckptfs.mounted(flags, tmp_path) as view, torch.no_grad():
        loaded = AutoModelForCausalLM.from_pretrained(view)
        assert loaded.dtype == torch.bfloat16
        assert torch.equal(loaded(tokens).logits, training_runs.llama().bfloat16()(tokens).logits)
        del loaded


def test_config_with_the_checkpoint_is_enough_where_names_are_the_models(runs, tmp_path):
    found = shown(tmp_path / "out", "--base", runs / "verl/global_step_5")
    assert_same(found, training_runs.llama().state_dict())
    assert json.loads((tmp_path / "out/config.json").read_text())["model_type"] == "llama"


def test_without_any_config_one_is_asked_for(runs):
    with pytest.raises(AssertionError, match="no-like.*--like HF_DIR"):
        ckptfs.run("plan", "--base", runs / "zero3")


def test_the_newest_complete_checkpoint_of_a_run(runs, tmp_path):
    run = tmp_path / "run"
    for step in (90, 500, 1000):
        shutil.copytree(runs / "run/checkpoint-500", run / f"checkpoint-{step}")
    (run / "checkpoint-1000/pytorch_model_fsdp_0/.metadata").unlink()
    like = ["--like", runs / "llama"]
    planned = ckptfs.run("plan", "--base", f"{run}@latest", *like, "--emit-recipe", tmp_path / "r.yml")
    assert all(f"checkpoint-{step}" in planned.stdout + planned.stderr for step in (500, 1000))
    assert "checkpoint-500" in (tmp_path / "r.yml").read_text()
    shutil.rmtree(run / "checkpoint-500")
    shutil.rmtree(run / "checkpoint-90")
    with pytest.raises(AssertionError, match="unfinished"):
        ckptfs.run("plan", "--base", f"{run}@latest", *like)


def test_what_is_incomplete_is_refused(runs, tmp_path):
    like = ["--like", runs / "llama"]
    for base, gone in [
        ("grid-dcp", ".metadata"), ("grid-dcp", "__2_0.distcp"), ("hybrid", "model_world_size_4_rank_3.pt"),
        ("zero2/global_step30", "bf16_zero_pp_rank_3_mp_rank_00_optim_states.pt"),
        ("zero3/global_step30", "zero_pp_rank_1_mp_rank_00_model_states.pt"),
        ("hf", "shard-00003-model-00002-of-00002.safetensors"), ("meta2", "consolidated.00.pth"),
    ]:
        copy = tmp_path / gone
        shutil.copytree(runs / base, copy)
        (copy / gone).unlink()
        with pytest.raises(AssertionError, match="unfinished|bad-pieces"):
            ckptfs.run("plan", "--base", copy, *like)
        shutil.rmtree(copy)


def test_what_is_missing_or_left_over_is_shown(runs, tmp_path):
    like = tmp_path / "like"
    shutil.copytree(runs / "llama", like)
    index = like / "model.safetensors.index.json"
    text = json.loads(index.read_text())
    shard = text["weight_map"].pop("model.norm.weight")
    index.write_text(json.dumps(text))
    planned = ckptfs.run("plan", "--base", runs / "grid-dcp", "--like", like).stdout
    assert "model.norm.weight" in planned
    text["weight_map"] |= {"model.norm.weight": shard, "model.layers.2.w": shard}
    index.write_text(json.dumps(text))
    with pytest.raises(AssertionError, match=r"like-mismatch.*model\.layers\.2\.w"):
        ckptfs.run("plan", "--base", runs / "grid-dcp", "--like", like)


def sparse_checkpoint(out: Path, ranks: int, tensors: int, rows: int, columns: int) -> None:
    """A checkpoint of `ranks` ranks that takes no space: `tensors` matrices, of which each rank has `rows` rows."""
    out.mkdir()
    torch.save(torch.zeros(rows, columns, dtype=torch.bfloat16), out / "one")
    saved = (out / "one").read_bytes()
    (out / "one").unlink()
    data = rows * columns * 2
    start = saved.find(bytes(data))
    head, tail = saved[:start], saved[start + data:]
    assert len(head) < 4096 and len(tail) < 4096
    properties = TensorProperties(dtype=torch.bfloat16)
    names = [f"model.layers.{i}.w" for i in range(tensors)]
    described = {
        name: TensorStorageMetadata(properties, torch.Size([rows * ranks, columns]), [
            ChunkStorageMetadata(torch.Size([rank * rows, 0]), torch.Size([rows, columns]))
            for rank in range(ranks)
        ])
        for name in names
    }
    places = {}
    for rank in range(ranks):
        path = f"__{rank}_0.distcp"
        with (out / path).open("wb") as file:
            for i, name in enumerate(names):
                at = i * len(saved)
                file.seek(at)
                file.write(head)
                file.seek(at + start + data)
                file.write(tail)
                index = MetadataIndex(name, torch.Size([rank * rows, 0]), rank)
                places[index] = _StorageInfo(path, at, len(saved))
    metadata = Metadata(described, storage_data=places)
    (out / ".metadata").write_bytes(pickle.dumps(metadata, protocol=4))
    (out / "config.json").write_text('{"model_type": "llama"}')


def test_a_terabyte_on_1024_ranks_is_planned_from_metadata_and_small_pieces(tmp_path):
    base = tmp_path / "base"
    sparse_checkpoint(base, ranks=1024, tensors=32, rows=2048, columns=8192)
    assert sum(file.stat().st_size for file in base.iterdir()) > 1 << 40
    # The most memory that a child had is never less than what its parent had: a limit says more.
    command = ["prlimit", "--data=500000000", ckptfs.binary(), "plan", "--base", base, "--json"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
