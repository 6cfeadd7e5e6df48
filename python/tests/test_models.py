"""Engines and notebooks on models: what views give is what copies give."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

import ckptfs
from conftest import REPOSITORY

PROMPT = [1, 2, 3, 4, 5]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A model with tokens and without knowledge."""
    torch.manual_seed(11)
    config = LlamaConfig(vocab_size=256, hidden_size=256, intermediate_size=512, num_hidden_layers=2,
                         num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
                         bos_token_id=1, eos_token_id=None, pad_token_id=0)
    directory = tmp_path_factory.mktemp("model")
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(directory, max_shard_size="600KB")
    return directory


def weights(model) -> dict[str, torch.Tensor]:
    return {name: tensor.float() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("settings", [{}, {"fp8": True}, {"dtype": "f32"}], ids=str)
def test_a_model_of_a_view_is_that_of_a_copy(model, settings, tmp_path):
    view = ckptfs.View(model, **settings)
    view.materialize(tmp_path / "copy")
    mine = ckptfs.from_pretrained(AutoModelForCausalLM, view)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "copy")
    assert type(mine) is type(theirs) and mine.dtype == theirs.dtype
    expected = weights(theirs)
    for name, tensor in weights(mine).items():
        assert torch.equal(tensor, expected.pop(name)), name
    assert expected == {}
    tokens = [m.generate(torch.tensor([PROMPT]), max_new_tokens=8, do_sample=False).tolist() for m in (mine, theirs)]
    assert tokens[0] == tokens[1]
    assert mine.generation_config.to_dict() == theirs.generation_config.to_dict()


ENGINES = """
import json, os, sys

def tokens(directory, **settings):
    from vllm import LLM, SamplingParams
    llm = LLM(directory, dtype="bfloat16", enforce_eager=True, max_model_len=64, skip_tokenizer_init=True, **settings)
    wanted = SamplingParams(temperature=0, max_tokens=12, detokenize=False, ignore_eos=True)
    [made] = llm.generate([{"prompt_token_ids": json.loads(sys.argv[3])}], wanted)
    return list(made.outputs[0].token_ids)

from ckptfs.vllm import register
import vllm
register()
answers = []
for directory, settings in [(sys.argv[1], {}), (sys.argv[2], {"load_format": "ckptfs"})]:
    # Each engine begins with clean memory.
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writer, json.dumps(tokens(directory, **settings)).encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as answer:
        answers.append(json.loads(answer.read()))
    os.waitpid(child, 0)
print("tokens", json.dumps(answers))
"""


def test_vllm_generates_from_a_stub_what_it_does_from_a_copy(model, tmp_path):
    view = ckptfs.View(model, dtype="f32", set={"use_cache": True})
    view.materialize(tmp_path / "copy")
    view.write_stub(tmp_path / "stub")
    assert not list((tmp_path / "stub").glob("*.safetensors"))
    environment = os.environ | {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1",
        "OMP_NUM_THREADS": "2", "VLLM_CACHE_ROOT": str(tmp_path / "cache"),
    }
    command = [sys.executable, "-c", ENGINES, tmp_path / "copy", tmp_path / "stub", json.dumps(PROMPT)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stdout.splitlines() if line.startswith("tokens ")]
    copy, stub = json.loads(line.removeprefix("tokens "))
    assert len(stub) == 12 and stub == copy


def test_the_notebook_runs(model, tmp_path, monkeypatch):
    from safetensors.torch import save_file

    extra = tmp_path / "extra"
    extra.mkdir()
    save_file({"mtp.norm.weight": torch.ones(256, dtype=torch.bfloat16)}, extra / "model.safetensors",
              metadata={"format": "pt"})
    (extra / "config.json").write_text("{}")
    monkeypatch.setenv("MODEL", str(model))
    monkeypatch.setenv("EXTRA", str(extra))
    notebook = json.loads((REPOSITORY / "docs/python.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    names: dict = {}
    for number, cell in enumerate(cells):
        exec(compile(cell, f"cell {number}", "exec"), names)
    assert names["figures"]["added"] == 1 and names["figures"]["quantized"] > 0
    assert names["schemes"]["int4"][1] < names["schemes"]["fp8-block"][1]
    assert names["view"].verify(names["out"])["problems"] == []
