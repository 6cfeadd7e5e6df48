"""Views written in parts: by Ray and Dask with the documented driver, and by the commands of the Job for Kubernetes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

import ckptfs

REPOSITORY = Path(__file__).resolve().parents[2]
DRIVER = REPOSITORY / "docs/examples/distribute.py"
SHARDS = 5
# Stands before ckptfs on the machines: the first try of part 2 is lost, as when a machine goes away, and that of
# part 3 is told to try again. Each try is noted.
LOSES_PARTS = """#!/bin/sh
echo "$*" >> {notes}
case "$*" in
*"--part 2/3"*) mkdir {lost}/two 2>/dev/null && kill -9 $$ ;;
*"--part 3/3"*) mkdir {lost}/three 2>/dev/null && exit 75 ;;
esac
exec {binary} "$@"
"""


@pytest.fixture
def base(tmp_path) -> Path:
    directory = tmp_path / "base"
    directory.mkdir()
    for i in range(1, SHARDS + 1):
        weights = {f"model.layers.{i}.mlp.up_proj.weight": torch.randn(256, 128).to(torch.bfloat16)}
        save_file(weights, directory / f"model-{i:05}-of-{SHARDS:05}.safetensors", {"format": "pt"})
    (directory / "config.json").write_text('{"model_type": "llama"}')
    return directory


@pytest.fixture
def machine(tmp_path, monkeypatch) -> Path:
    """Has `ckptfs` be a program that loses parts; returns its notes."""
    notes, programs = tmp_path / "notes", tmp_path / "bin"
    (tmp_path / "lost").mkdir()
    programs.mkdir()
    program = programs / "ckptfs"
    program.write_text(LOSES_PARTS.format(notes=notes, lost=tmp_path / "lost", binary=ckptfs.binary()))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    return notes


def distribute(engine: str, *arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, DRIVER, engine, "--parts", "3", "--", *arguments]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True)


@pytest.mark.parametrize("engine", ["ray", "dask"])
def test_parts_that_are_lost_are_tried_again(engine, base, machine, tmp_path):
    view = ["--base", base, "--fp8", "--fp8-pattern", ".*proj.*"]
    done = distribute(engine, *view, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    ckptfs.run("verify", *view, "--out", tmp_path / "out")
    tries = [line.split("--part ")[1].split()[0] for line in machine.read_text().splitlines() if "--part" in line]
    assert sorted(tries) == ["1/3", "2/3", "2/3", "3/3", "3/3"]

    # What cannot work is not tried again, and said.
    machine.unlink()
    done = distribute(engine, "--base", tmp_path / "nothing", "--out", tmp_path / "other")
    assert (done.returncode, len(machine.read_text().splitlines())) == (1, 3)
    assert "error[not-found]" in done.stderr and str(tmp_path / "nothing") in done.stderr


def test_the_job_for_kubernetes_writes_all_parts(base, tmp_path, monkeypatch):
    job = yaml.safe_load((REPOSITORY / "docs/kubernetes/parts.yaml").read_text())["spec"]
    (container,) = job["template"]["spec"]["containers"]
    shell, option, script = container["command"]
    assert (job["completionMode"], job["completions"]) == ("Indexed", 8)
    # Below the claim's mount.
    script = script.replace("/shared/A-FP8", str(tmp_path / "out")).replace("/shared/A ", f"{base} ")
    assert "/shared" not in script and "--part" in script
    binaries = tmp_path / "bin"
    binaries.mkdir()
    (binaries / "ckptfs").symlink_to(ckptfs.binary())
    monkeypatch.setenv("PATH", f"{binaries}:{os.environ['PATH']}")

    def run(command: str, index: int) -> int:
        environment = os.environ | {"JOB_COMPLETION_INDEX": str(index)}
        return subprocess.run([shell, option, command], env=environment, capture_output=True).returncode

    assert [run(script, index) for index in range(job["completions"])] == [0] * 8
    finish = script.split("--part")[0] + "--finish"
    assert run(finish, 0) == 0
    ckptfs.run("verify", "--base", base, "--fp8", "--out", tmp_path / "out")
    # The codes that fail an index at once are those of what never works.
    (rule,) = job["podFailurePolicy"]["rules"]
    assert (rule["action"], rule["onExitCodes"]["values"]) == ("FailIndex", [1, 2])
    assert run(script.replace(str(base), f"{base}-missing"), 0) == 1
    assert run(script.replace("--part", "--no-such-flag"), 0) == 2
