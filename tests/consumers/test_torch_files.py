"""Files that torch itself writes, shown as safetensors: every tensor is torch's own, bit for bit."""

import argparse
import collections
import json
import shutil
from pathlib import Path

import numpy
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

import ckptfs
from checkpoint import Checkpoint, read_index, same_bits

# Whether it is a zip archive or has the form before torch 1.6, and its protocol.
FORMS = {
    "zip": {},
    "zip, protocol 4": {"pickle_protocol": 4},
    "zip, protocol 5": {"pickle_protocol": 5},
    "legacy": {"_use_new_zipfile_serialization": False},
    "legacy, protocol 4": {"_use_new_zipfile_serialization": False, "pickle_protocol": 4},
}
DTYPES = [
    "float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool",
]
# torch loads no legacy file with these, though it writes some.
UNTYPED = [
    "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu",
    "uint16", "uint32", "uint64",
]


def random(*shape, dtype="float32") -> torch.Tensor:
    """Random bytes as any dtype; of bool only 0 and 1."""
    dtype = getattr(torch, dtype)
    if dtype is torch.bool:
        return torch.randint(0, 2, shape).bool()
    bytes_ = torch.randint(0, 256, (*shape[:-1], shape[-1] * dtype.itemsize), dtype=torch.uint8)
    return bytes_.view(dtype)


def views() -> dict[str, torch.Tensor]:
    """Views of all kinds, most of them of one storage."""
    base = random(48, 64)
    return {
        "base": base,
        "tied": base,
        "transposed": base.t(),
        "rows": base[8:24],
        "every other row": base[::2],
        "columns": base[:, 3:17],
        "one column": base[:, 5],
        "every third": base[1::2, ::3],
        "diagonal": base.diagonal(),
        "expanded": random(5, 1).expand(5, 7),
        "repeated": random(1, 6).expand(4, 6),
        "permuted": random(3, 4, 5, 6).permute(2, 0, 3, 1),
        "windows": random(40).unfold(0, 8, 3),
        "channels_last": random(8, 6, 3, 3).to(memory_format=torch.channels_last),
        "long": random(700, 900).t(),
        "scalar": torch.tensor(2.5),
        "element": base[3, 4],
        "empty": torch.zeros(0, 4),
        "parameter": torch.nn.Parameter(random(3, 3)),
        "Köln 🦀": random(2),
    }


def save(directory: Path, saved, name="pytorch_model.bin", **form) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text('{"model_type": "llama"}')
    torch.save(saved, directory / name, **form)
    return directory


def assert_shown(base: Path, expected: dict[str, torch.Tensor], tmp_path: Path, *flags) -> None:
    with ckptfs.mounted(["--base", base, *flags], tmp_path) as view:
        found = Checkpoint(view)
        assert found.names() == set(expected)
        for name, tensor in expected.items():
            assert same_bits(found[name], tensor.detach().contiguous()), name
        del found


@pytest.mark.parametrize("form", FORMS)
def test_views_of_all_kinds(form, tmp_path):
    tensors = views()
    base = save(tmp_path / "base", tensors, **FORMS[form])
    loaded = torch.load(base / "pytorch_model.bin", weights_only=False)
    assert all(same_bits(loaded[name].contiguous(), tensors[name].contiguous()) for name in tensors)
    assert_shown(base, tensors, tmp_path)


@pytest.mark.parametrize("form", FORMS)
def test_dtypes(form, tmp_path):
    names = DTYPES if "legacy" in form else DTYPES + UNTYPED
    tensors = {name: random(6, 4, dtype=name) for name in names}
    tensors |= {f"{name}.T": tensor.t() for name, tensor in tensors.items()}
    assert_shown(save(tmp_path / "base", tensors, **FORMS[form]), tensors, tmp_path)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(10, 4)
        self.norm = torch.nn.BatchNorm1d(4)
        self.head = torch.nn.Linear(4, 10, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("positions", torch.arange(6).expand(1, -1))


@pytest.mark.parametrize("form", FORMS)
def test_a_training_checkpoint_of_a_wrapped_model(form, tmp_path):
    net = Net()
    optimizer = torch.optim.AdamW(net.parameters())
    wrapped = torch.nn.DataParallel(torch.compile(net))
    assert all(name.startswith("module._orig_mod.") for name in wrapped.state_dict())
    saved = {
        "epoch": 3,
        "args": argparse.Namespace(lr=0.1, steps=numpy.int64(7), loss=numpy.float64(0.5)),
        "rng": numpy.random.get_state(),
        "optimizer": optimizer.state_dict(),
        "state_dict": wrapped.state_dict(),
        "history": collections.defaultdict(list, loss=[0.1, 0.2]),
    }
    base = save(tmp_path / "base", saved, **FORMS[form])
    assert_shown(base, net.state_dict(), tmp_path)
    planned = ckptfs.run("plan", "--base", base).stdout
    for said in ["module._orig_mod.", "state_dict", "optimizer", "argparse.Namespace",
                 "head.weight is embed.weight"]:
        assert said in planned, said


def test_a_pickle_is_not_run(tmp_path):
    marker = tmp_path / "was run"

    class Bomb:
        def __reduce__(self):
            return Path.touch, (marker,)

    base = save(tmp_path / "base", {"model": {"w": random(4)}, "bomb": Bomb()})
    torch.load(base / "pytorch_model.bin", weights_only=False)
    assert marker.exists(), "it goes off where it is loaded"
    marker.unlink()
    ckptfs.run("plan", "--base", base)
    ckptfs.run("materialize", "--base", base, "--out", tmp_path / "out")
    assert not marker.exists()


REFUSED = {
    "sparse": lambda: {"w": torch.eye(3).to_sparse()},
    "csr": lambda: {"w": torch.eye(3).to_sparse_csr()},
    "quantized": lambda: {"w": torch.quantize_per_tensor(torch.randn(2), 0.1, 0, torch.qint8)},
    "complex": lambda: {"w": torch.zeros(2, dtype=torch.complex64)},
    "meta": lambda: {"w": torch.zeros(2, device="meta")},
    "nested": lambda: {"w": torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])},
    "negated": lambda: {"w": torch.zeros(2, dtype=torch.complex64).conj().imag},
    "module": lambda: torch.nn.Linear(2, 2),
    "list": lambda: [torch.zeros(2)],
    "two": lambda: {"model": {"w": torch.zeros(2)}, "state_dict": {"w": torch.zeros(2)}},
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.filterwarnings("ignore")
def test_what_no_safetensors_file_can_have_is_refused(kind, tmp_path):
    base = save(tmp_path / "base", REFUSED[kind]())
    with pytest.raises(AssertionError, match="unsupported-torch"):
        ckptfs.run("plan", "--base", base)


def test_torchscript_is_refused(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "model.pt")
    with pytest.raises(AssertionError, match="TorchScript"):
        ckptfs.run("plan", "--base", tmp_path / "model.pt")


def test_a_file_of_any_name_is_a_base(tmp_path):
    tensors = views()
    torch.save(tensors, tmp_path / "best.pth")
    assert_shown(tmp_path / "best.pth", tensors, tmp_path)


def shard(model: Path, to: Path, count: int) -> dict[str, torch.Tensor]:
    """Saves a model of safetensors as `count` files of torch with an index."""
    original = Checkpoint(model)
    tensors = {name: original[name].clone() for name in sorted(original.names())}
    to.mkdir()
    for file in model.iterdir():
        if "safetensors" not in file.name:
            shutil.copy(file, to)
    names = list(tensors)
    weight_map = {}
    for number in range(count):
        file = f"pytorch_model-{number + 1:05d}-of-{count:05d}.bin"
        of_this = names[number * len(names) // count:(number + 1) * len(names) // count]
        torch.save({name: tensors[name] for name in of_this}, to / file)
        weight_map |= dict.fromkeys(of_this, file)
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (to / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return tensors


def logits(directory) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(torch.tensor([[1, 5, 9, 200, 4]])).logits


def test_a_real_model_in_shards_loads_with_the_same_logits(checkpoints, tmp_path):
    base = tmp_path / "base"
    tensors = shard(checkpoints / "smollm2", base, 3)
    with ckptfs.mounted(["--base", base, "--shards", "renumber"], tmp_path) as view:
        assert sorted(set(read_index(view)["weight_map"].values())) == [
            f"model-{number:05d}-of-00003.safetensors" for number in (1, 2, 3)
        ]
        found = Checkpoint(view)
        assert found.names() == set(tensors)
        assert all(same_bits(found[name], tensor) for name, tensor in tensors.items())
        del found
        assert torch.equal(logits(view), logits(checkpoints / "smollm2"))
        AutoTokenizer.from_pretrained(view)


def test_a_pickled_adapter_is_merged_as_one_in_safetensors(checkpoints, tmp_path):
    base = checkpoints / "smollm2"
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "down_proj"]))
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    adapted.save_pretrained(tmp_path / "safetensors")
    with safe_open(tmp_path / "safetensors/adapter_model.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    shutil.copy(tmp_path / "safetensors/adapter_config.json", pickled)
    torch.save(tensors, pickled / "adapter_model.bin")
    views = {}
    for adapter in ("safetensors", "pickled"):
        out = tmp_path / f"out-{adapter}"
        ckptfs.run("materialize", "--base", base, "--lora", tmp_path / adapter, "--out", out)
        views[adapter] = Checkpoint(out)
    assert views["pickled"].names() == views["safetensors"].names()
    for name in views["pickled"].names():
        assert same_bits(views["pickled"][name], views["safetensors"][name]), name
