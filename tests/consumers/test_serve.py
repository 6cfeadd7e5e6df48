"""Clients of the Hub load a view from `ckptfs serve` by HF_ENDPOINT, and have its bytes.

Each runs in a process of its own, because clients read the endpoint when they are imported.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from transformers import AutoTokenizer

import ckptfs
from views import patched
from vllm_engines import NEW_TOKENS, Engines

NAME = "org/model"
SECONDS_TO_STOP = 60
SECONDS_TO_DOWNLOAD = 300


@contextmanager
def served(view: list, *flags, stop=signal.SIGTERM):
    """Serves a view, yields its address and log, and ends the server."""
    command = [ckptfs.binary(), "serve", *view, "--quiet", "--name", NAME, "--listen", "127.0.0.1:0", *flags]
    process = subprocess.Popen(
        [str(argument) for argument in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        process.stdout.readline()
        endpoint = process.stdout.readline().strip().split("HF_ENDPOINT=")[1].split()[0]
        yield endpoint
        process.send_signal(stop)
        _, log = process.communicate(timeout=SECONDS_TO_STOP)
        assert process.returncode == 0, log
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def view(checkpoints) -> list:
    return patched(checkpoints)


@pytest.fixture(scope="module")
def written(view, tmp_path_factory) -> Path:
    """The view on disk."""
    out = tmp_path_factory.mktemp("served") / "written"
    ckptfs.run("materialize", *view, "--out", out)
    return out


@pytest.fixture(scope="module")
def endpoint(view):
    with served(view) as endpoint:
        yield endpoint


def environment(endpoint: str, cache: Path, **more) -> dict:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return kept | {
        "HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1"
    } | more


def client(code: str, endpoint: str, cache: Path, **more) -> str:
    """What a program prints that is a client of the server."""
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(endpoint, cache, **more), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def sums(directory: Path) -> dict[str, str]:
    """Digests of the files of a directory, but for what clients keep for themselves."""
    files = (path for path in directory.rglob("*") if path.is_file())
    names = {path.relative_to(directory).as_posix(): path for path in files}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in names.items() if not name.startswith(".cache/")
    }


def test_snapshot_download_has_the_bytes_of_the_view(endpoint, written, tmp_path):
    code = f"from huggingface_hub import snapshot_download; print(snapshot_download('{NAME}'))"
    assert sums(Path(client(code, endpoint, tmp_path))) == sums(written)


def test_one_file_is_downloaded_at_a_commit(endpoint, written, tmp_path):
    code = f"""
from huggingface_hub import HfApi, hf_hub_download
sha = HfApi().model_info("{NAME}").sha
print(hf_hub_download("{NAME}", "config.json", revision=sha))
"""
    path = Path(client(code, endpoint, tmp_path))
    assert path.read_bytes() == (written / "config.json").read_bytes()


def test_the_api_lists_the_files_with_their_sizes_and_tells_errors_apart(endpoint, written, tmp_path):
    code = f"""
import json
from huggingface_hub import HfApi, HfFileSystem, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
api = HfApi()
found = dict(
    files=sorted(api.list_repo_files("{NAME}")),
    sizes={{file.path: file.size for file in api.list_repo_tree("{NAME}", recursive=True)}},
    siblings={{file.rfilename: file.size for file in api.model_info("{NAME}", files_metadata=True).siblings}},
    paths=[file.path for file in api.get_paths_info("{NAME}", ["config.json", "none"])],
    branches=[branch.name for branch in api.list_repo_refs("{NAME}").branches],
    exists=[api.file_exists("{NAME}", "config.json"), api.file_exists("{NAME}", "none"), api.repo_exists("org/other")],
    tensors=len(api.get_safetensors_metadata("{NAME}").weight_map),
    part=HfFileSystem().cat_file("{NAME}/config.json", start=2, end=9).decode(),
    errors=[],
)
for wanted, repo, name, revision in [
    (EntryNotFoundError, "{NAME}", "none", None),
    (RevisionNotFoundError, "{NAME}", "config.json", "v1"),
    (RepositoryNotFoundError, "org/other", "config.json", None),
]:
    try:
        hf_hub_download(repo, name, revision=revision)
    except wanted:
        found["errors"].append(wanted.__name__)
print(json.dumps(found))
"""
    found = json.loads(client(code, endpoint, tmp_path))
    sizes = {path.name: path.stat().st_size for path in written.iterdir()}
    assert found["files"] == sorted(sizes)
    assert found["sizes"] == found["siblings"] == sizes
    assert (found["paths"], found["branches"]) == (["config.json"], ["main"])
    assert found["exists"] == [True, False, False]
    index = json.loads((written / "model.safetensors.index.json").read_text())
    assert found["tensors"] == len(index["weight_map"])
    assert found["part"] == (written / "config.json").read_text()[2:9]
    assert found["errors"] == ["EntryNotFoundError", "RevisionNotFoundError", "RepositoryNotFoundError"]


def hf(*arguments) -> list[str]:
    return [str(Path(sys.executable).parent / "hf"), *map(str, arguments)]


def test_a_download_that_was_killed_is_completed_and_keeps_what_it_had(endpoint, written, tmp_path):
    out = tmp_path / "out"
    command = hf("download", NAME, "--local-dir", out, "--max-workers", 1)
    process = subprocess.Popen(
        command, env=environment(endpoint, tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + SECONDS_TO_DOWNLOAD
    # Killed in the middle of a shard, after another file is complete.
    while not (any(out.glob(".cache/huggingface/download/*.incomplete")) and any(out.glob("*.*"))):
        assert time.monotonic() < deadline and process.poll() is None, "the download was not seen under way"
        time.sleep(0.002)
    process.kill()
    process.wait()
    had = {path.name: path.stat().st_ino for path in out.iterdir() if path.is_file()}
    done = subprocess.run(command, env=environment(endpoint, tmp_path), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sums(out) == sums(written)
    assert {name: (out / name).stat().st_ino for name in had} == had


def test_a_client_goes_on_after_the_server_was_started_again(view, written, tmp_path):
    """What it has is of the same commit, so it loads nothing again."""
    code = f"from huggingface_hub import snapshot_download; print(snapshot_download('{NAME}', allow_patterns=PATTERNS))"
    paths = []
    for patterns in [["*.json"], None]:
        with served(view) as endpoint:
            paths.append(client(f"PATTERNS={patterns!r}\n{code}", endpoint, tmp_path))
    assert paths[0] == paths[1]
    assert sums(Path(paths[1])) == sums(written)


def test_with_a_token_clients_need_it(view, written, tmp_path):
    (tmp_path / "token").write_text("hf_secret\n")
    code = f"from huggingface_hub import hf_hub_download; print(hf_hub_download('{NAME}', 'config.json'))"
    with served(view, "--token-file", tmp_path / "token") as endpoint:
        path = Path(client(code, endpoint, tmp_path / "with", HF_TOKEN="hf_secret"))
        assert path.read_bytes() == (written / "config.json").read_bytes()
        for token in [{}, {"HF_TOKEN": "hf_other"}]:
            done = subprocess.run(
                [sys.executable, "-c", code], env=environment(endpoint, tmp_path / "without", **token),
                capture_output=True, text=True,
            )
            assert done.returncode != 0 and "401" in done.stderr


def test_transformers_loads_the_model_and_its_tokenizer(endpoint, written, tmp_path):
    code = """
import hashlib, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
place = sys.argv[1] if len(sys.argv) > 1 else "NAME"
model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.bfloat16)
sum = hashlib.sha256()
for name, tensor in sorted(model.state_dict().items()):
    sum.update(name.encode() + tensor.contiguous().view(torch.uint8).numpy().tobytes())
print(sum.hexdigest(), AutoTokenizer.from_pretrained(place)("The capital of France is")["input_ids"])
""".replace("NAME", NAME)
    from_server = client(code, endpoint, tmp_path)
    assert from_server == client(f"import sys; sys.argv = ['', {str(written)!r}]\n{code}", endpoint, tmp_path)


def test_vllm_generates_the_tokens_that_it_does_from_disk(endpoint, written, tmp_path, monkeypatch):
    prompts = [AutoTokenizer.from_pretrained(written)("The capital of France is")["input_ids"]]
    with Engines() as engines:
        expected = engines.generate(written, prompts)
    for name, value in environment(endpoint, tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with Engines() as engines:
        made = engines.generate(NAME, prompts)
    assert "error" not in made, made["error"]
    assert [len(tokens) for tokens in made["tokens"]] == [NEW_TOKENS]
    assert made == expected
