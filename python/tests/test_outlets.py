"""Mounts, copies and reports of views, and their ends."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import ckptfs
from conftest import run, wait_until

def test_a_mount_shows_the_view_and_ends_with_its_block(fp8, copy):
    with fp8.mount() as path:
        assert os.path.ismount(path)
        for name in fp8.files:
            assert Path(path, name).read_bytes() == (copy / name).read_bytes()
    assert not os.path.exists(path)
    with pytest.raises(RuntimeError), fp8.mount() as path:
        raise RuntimeError("in the block")
    assert not os.path.exists(path)


def test_a_mount_that_cannot_be_says_why(fp8, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ckptfs.Error) as caught, fp8.mount(tmp_path):
        pass
    assert caught.value.code == "not-empty"
    assert not os.path.ismount(tmp_path)


KEEPER = """
import sys, time
import ckptfs
with ckptfs.View(sys.argv[1], fp8=True).mount() as path:
    print(path, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_mount_ends_with_its_process(base, number):
    process = subprocess.Popen([sys.executable, "-c", KEEPER, base], stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, text=True)
    with process:
        path = process.stdout.readline().strip()
        assert os.path.ismount(path)
        process.send_signal(number)
    wait_until(lambda: not os.path.ismount(path))


def test_a_view_is_written_and_compared(fp8, copy, tmp_path):
    out = tmp_path / "out"
    calls = []
    written = fp8.materialize(out, progress=lambda *call: calls.append(call))
    assert written["files"] == len(fp8.files) and written["bytes"] == sum(fp8.files.values())
    assert calls[-1][0] == calls[-1][1] > 0
    for name in fp8.files:
        assert (out / name).read_bytes() == (copy / name).read_bytes()
    assert fp8.verify(out)["problems"] == []
    assert ckptfs.verify(out)["problems"] == []
    shard = bytearray((out / "model.safetensors").read_bytes())
    shard[-1] ^= 1
    (out / "model.safetensors").write_bytes(shard)
    [problem] = fp8.verify(out)["problems"]
    assert problem.startswith("model.safetensors: differs from byte")
    with pytest.raises(ckptfs.Error) as caught:
        fp8.materialize(out)
    assert caught.value.file == str(out)
    fp8.materialize(out, overwrite=True)
    assert fp8.verify(out)["problems"] == []


def test_what_progress_raises_stops_the_work(fp8, tmp_path):
    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fp8.materialize(tmp_path / "out", progress=stop)


STOPPED = """
import sys
import ckptfs
last = [0, 1]

def progress(done, total, file):
    last[:] = done, total
    print("working", flush=True)

try:
    ckptfs.View(sys.argv[1], fp8=True).inspect(threads=1, progress=progress)
except KeyboardInterrupt:
    print("stopped", last[0] < last[1], flush=True)
"""


def test_ctrl_c_stops_long_work(tmp_path):
    weight = torch.zeros(8192, 8192, dtype=torch.bfloat16)
    save_file({f"model.layers.{i}.mlp.up_proj.weight": weight.clone() for i in range(4)},
              tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    process = subprocess.Popen([sys.executable, "-c", STOPPED, tmp_path], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout.readline() == "working\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.read().splitlines()[-1] == "stopped True"


def test_reports_are_what_the_program_prints(base, fp8):
    assert fp8.inspect() == json.loads(run("inspect", "--base", base, "--fp8", "--json"))
    compare = ["fp8-channel", "int4:group=32", "mxfp4"]
    compared = ckptfs.View(base).inspect(compare=compare)
    assert [row["scheme"] for row in compared["schemes"]] == compare
    assert compared == json.loads(run("inspect", "--base", base, "--compare", ",".join(compare), "--json"))
    with pytest.raises(ckptfs.Error) as caught:
        fp8.inspect(compare=compare)
    assert caught.value.code == "conflict"
    with pytest.raises(ValueError, match="compare: .*int3"):
        fp8.inspect(compare="int3")
    assert fp8.plan(provenance=True)["shards"] == json.loads(
        run("plan", "--base", base, "--fp8", "--json", "--provenance"))["shards"]


def test_two_views_are_compared(base, fp8):
    assert ckptfs.diff(base, ckptfs.View(base))["different"] == []
    different = ckptfs.diff(base, fp8)["different"]
    assert {row["name"] for row in different} > {"model.layers.0.mlp.up_proj.weight"}


def test_a_stub_is_all_but_the_weights(base, fp8, copy, tmp_path):
    stub = tmp_path / "stub"
    fp8.write_stub(stub)
    names = {path.name for path in stub.iterdir()}
    assert names == set(fp8.files) - set(fp8.shards) | {"ckptfs.yml"}
    assert (stub / "config.json").read_bytes() == (copy / "config.json").read_bytes()
    again = ckptfs.View(recipe=stub / "ckptfs.yml")
    assert ckptfs.diff(again, copy)["different"] == []
    run("plan", "--base", base, "--fp8", "--emit-stub", tmp_path / "by-program")
    assert (tmp_path / "by-program/ckptfs.yml").read_text() == (stub / "ckptfs.yml").read_text()
    with pytest.raises(ckptfs.Error) as caught:
        fp8.write_stub(stub)
    assert (caught.value.code, caught.value.file) == ("bad-destination", str(stub))


def test_a_mount_loads_as_its_view(fp8):
    with fp8.mount() as path:
        mounted = load_file(os.path.join(path, "model.safetensors"))
        mounted = {name: tensor.clone() for name, tensor in mounted.items()}
    for name, tensor in ckptfs.load_state_dict(fp8).items():
        assert tensor.view(dtype=torch.uint8).equal(mounted[name].view(dtype=torch.uint8))
