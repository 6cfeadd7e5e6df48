"""Small checkpoints, and views of them."""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TQDM_DISABLE"] = "1"
os.environ["OMP_WAIT_POLICY"] = "passive"

import torch  # noqa: E402  (after the environment that it looks at)
from safetensors.torch import save_file  # noqa: E402

import ckptfs  # noqa: E402
from ckptfs._mount import program  # noqa: E402

torch.set_num_threads(2)
REPOSITORY = Path(__file__).resolve().parents[2]


def tensors() -> dict[str, torch.Tensor]:
    """A layer of a model, with weights that are quantized by rules and tensors that are not."""
    generator = torch.Generator().manual_seed(7)

    def bf16(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(torch.bfloat16)

    prefix = "model.layers.0."
    return {
        "model.embed_tokens.weight": bf16(300, 256),
        f"{prefix}self_attn.q_proj.weight": bf16(256, 256),
        f"{prefix}self_attn.k_proj.weight": bf16(128, 256),
        f"{prefix}self_attn.v_proj.weight": bf16(128, 256),
        f"{prefix}self_attn.o_proj.weight": bf16(256, 256),
        f"{prefix}mlp.gate_proj.weight": bf16(4096, 256),
        f"{prefix}mlp.up_proj.weight": bf16(4096, 256),
        f"{prefix}mlp.down_proj.weight": bf16(256, 4096),
        f"{prefix}input_layernorm.weight": bf16(256),
        "model.norm.weight": bf16(256),
        "lm_head.weight": bf16(300, 256),
    }


CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 256,
          "num_hidden_layers": 1, "tie_word_embeddings": False, "torch_dtype": "bfloat16"}


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("base")
    save_file(tensors(), directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "config.json").write_text(json.dumps(CONFIG))
    return directory


@pytest.fixture(scope="session")
def fp8(base) -> ckptfs.View:
    return ckptfs.View(base, fp8=True)


@pytest.fixture(scope="session")
def copy(base, tmp_path_factory) -> Path:
    """What the program writes of the same view."""
    out = tmp_path_factory.mktemp("copies") / "fp8"
    run("materialize", "--base", base, "--fp8", "--out", out, "--yes", "--quiet")
    return out


def run(*arguments: object) -> str:
    """What the program prints."""
    command = [program(), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{command} exited {done.returncode}:\n{done.stderr}"
    return done.stdout


SECONDS = 60


def wait_until(condition) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
