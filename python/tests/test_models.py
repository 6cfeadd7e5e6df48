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


@pytest.fixture(scope="session")
def real() -> Path:
    """Small real models: smollm2 in bf16, cut in two, and gemma3."""
    done = subprocess.run([REPOSITORY / "scripts/real-checkpoints"], stdout=subprocess.PIPE, text=True, check=True)
    return Path(done.stdout.strip())


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


def test_a_real_model_in_fp8_gives_the_logits_of_a_copy(real, tmp_path):
    view = ckptfs.View(real / "gemma3", fp8=True)
    view.materialize(tmp_path / "copy")
    mine = ckptfs.from_pretrained(AutoModelForCausalLM, view)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "copy")
    prompt = torch.tensor([[2, 818, 5279, 529, 7001, 563]])
    with torch.no_grad():
        assert torch.equal(mine(prompt).logits, theirs(prompt).logits)


ENGINES = """
import json, os, sys

def tokens(directory, **settings):
    from vllm import LLM, SamplingParams
    llm = LLM(directory, dtype="bfloat16", enforce_eager=True, max_model_len=64, skip_tokenizer_init=True, **settings)
    wanted = SamplingParams(temperature=0, max_tokens=12, detokenize=False, ignore_eos=True)
    [made] = llm.generate([{"prompt_token_ids": json.loads(sys.argv[1])}], wanted, use_tqdm=False)
    return list(made.outputs[0].token_ids)

from ckptfs.vllm import register
import vllm
from vllm.model_executor.models import registry
# vLLM looks at the class of a model in a new process, which would import all of vLLM again.
registry._run_in_subprocess = lambda inspect: inspect()
register()
answers = []
for directory, settings in [(sys.argv[2], {}), *((path, {"load_format": "ckptfs"}) for path in sys.argv[3:])]:
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


def test_vllm_generates_from_a_stub_and_past_a_mount_what_it_does_from_a_copy(real, tmp_path):
    view = ckptfs.View(real / "smollm2-base", extra=real / "smollm2-extra", set={"use_cache": True})
    view.materialize(tmp_path / "copy")
    view.write_stub(tmp_path / "stub")
    assert not list((tmp_path / "stub").glob("*.safetensors"))
    environment = os.environ | {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1",
        "OMP_NUM_THREADS": "2", "VLLM_CACHE_ROOT": str(tmp_path / "cache"),
    }
    # What the kernel reads straight from sources would not be counted.
    with view.mount(arguments=("--no-passthrough",)) as mount:
        command = [sys.executable, "-c", ENGINES, json.dumps(PROMPT), tmp_path / "copy", tmp_path / "stub", mount]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        figures = json.loads(Path(mount, ".ckptfs/stats.json").read_text())
    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stdout.splitlines() if line.startswith("tokens ")]
    copy, stub, mounted = json.loads(line.removeprefix("tokens "))
    assert len(copy) == 12 and stub == copy and mounted == copy
    # The tensors were read in the engine's process: through the mount came config, headers and the like.
    weights = sum(length for name, length in view.files.items() if name in view.shards)
    assert 0 < sum(figures["served"].values()) < weights // 4


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
