"""Views of checkpoints in stores (S3, Azure), on a web server and in the cache of huggingface_hub, by the programs
that others run."""

import os
import subprocess
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name
from safetensors import safe_open
from safetensors.torch import save_file

import ckptfs
import remote_stores

def save(directory: Path, suffix: str = "w") -> dict[str, torch.Tensor]:
    """A checkpoint of two shards."""
    generator = torch.Generator().manual_seed(1)
    tensors = {f"model.layers.{i}.{suffix}": torch.randn(512, 1024, generator=generator) for i in range(4)}
    directory.mkdir()
    names = list(tensors)
    for number, part in enumerate([names[:2], names[2:]], 1):
        shard = {name: tensors[name] for name in part}
        save_file(shard, directory / f"model-{number:05}-of-00002.safetensors", {"format": "pt"})
    weight_map = {name: f"model-{1 + i // 2:05}-of-00002.safetensors" for i, name in enumerate(names)}
    text = str({"metadata": {}, "weight_map": weight_map}).replace("'", '"')
    (directory / "model.safetensors.index.json").write_text(text)
    (directory / "config.json").write_text('{"model_type": "llama"}')
    return tensors


@pytest.fixture(scope="module", params=[remote_stores.moto, remote_stores.azurite])
def running(request):
    """A store in memory."""
    with request.param() as store:
        yield store


@pytest.fixture
def store(running, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, value in running.settings.items():
        monkeypatch.setenv(name, value)
    return running


def put(store: remote_stores.Store, prefix: str, directory: Path) -> None:
    for path in directory.iterdir():
        store.put(f"{prefix}/{path.name}", path.read_bytes())


def read(directory: Path) -> dict[str, torch.Tensor]:
    tensors = {}
    for path in directory.glob("*.safetensors"):
        with safe_open(path, "pt") as shard:
            # A tensor that is mapped would keep the mount busy.
            tensors |= {name: shard.get_tensor(name).clone() for name in shard.keys()}
    return tensors


def test_a_checkpoint_in_a_store_is_mounted_written_and_verified(store, tmp_path):
    tensors = save(tmp_path / "model")
    put(store, "models/a", tmp_path / "model")
    with ckptfs.mounted(["--base", f"{store.url}/models/a"], tmp_path) as mount:
        found = read(mount)
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    view = ["--base", f"{store.url}/models/a", "--dtype", "bf16"]
    ckptfs.run("materialize", *view, "--out", tmp_path / "out")
    assert all(torch.equal(value, tensors[name].bfloat16()) for name, value in read(tmp_path / "out").items())
    ckptfs.run("verify", *view, "--out", tmp_path / "out")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may tell the kernel how far to read ahead")
@pytest.mark.parametrize(("flags", "expected"), [([], "1024"), (["--readahead", "4MiB"], "4096")])
def test_the_kernel_reads_less_ahead_of_who_reads_a_store(store, tmp_path, flags, expected):
    save(tmp_path / "model")
    put(store, "models/ahead", tmp_path / "model")
    with ckptfs.mounted(["--base", f"{store.url}/models/ahead", *flags], tmp_path) as mount:
        device = mount.stat().st_dev
        number = f"{os.major(device)}:{os.minor(device)}"
        assert Path(f"/sys/class/bdi/{number}/read_ahead_kb").read_text().strip() == expected


def test_a_view_is_written_to_a_store_and_loaded_from_there(store, tmp_path):
    save(tmp_path / "model", "mlp.up_proj.weight")
    view = ["--base", tmp_path / "model", "--quantize", "fp8-block", "--quantize-pattern", ".*up_proj.*"]
    ckptfs.run("materialize", *view, "--sha256", "--out", tmp_path / "expected")
    ckptfs.run("materialize", *view, "--sha256", "--out", f"{store.url}/models/fp8")
    ckptfs.run("verify", *view, "--out", f"{store.url}/models/fp8")
    ckptfs.run("verify", f"{store.url}/models/fp8")
    expected = read(tmp_path / "expected")
    with ckptfs.mounted(["--base", f"{store.url}/models/fp8"], tmp_path) as mount:
        found = read(mount)
    assert found.keys() == expected.keys() and len(found) == 8
    assert all(torch.equal(found[name].view(torch.uint8), expected[name].view(torch.uint8)) for name in expected)
    again = subprocess.run(
        [ckptfs.binary(), "materialize", *view, "--out", f"{store.url}/models/fp8"], capture_output=True, text=True)
    assert again.returncode == 1 and "not-empty" in again.stderr, again.stderr
    ckptfs.run("materialize", *view[:2], "--overwrite", "--out", f"{store.url}/models/fp8")
    ckptfs.run("verify", *view[:2], "--out", f"{store.url}/models/fp8")


def test_an_object_of_several_parts_is_written_to_a_store(store, tmp_path):
    (tmp_path / "large").mkdir()
    tensor = torch.arange(5 << 20, dtype=torch.float32).reshape(-1, 1024)
    save_file({"model.w": tensor}, tmp_path / "large" / "model.safetensors", {"format": "pt"})
    (tmp_path / "large" / "config.json").write_text("{}")
    for part in [["--part", "1/2"], ["--part", "2/2"], ["--finish"]]:
        ckptfs.run("materialize", "--base", tmp_path / "large", *part, "--out", f"{store.url}/models/large")
    ckptfs.run("verify", "--base", tmp_path / "large", "--out", f"{store.url}/models/large")
    ckptfs.run("materialize", "--base", f"{store.url}/models/large", "--out", tmp_path / "back")
    assert torch.equal(read(tmp_path / "back")["model.w"], tensor)


def test_an_object_that_is_written_again_is_an_error_and_no_other_bytes(store, tmp_path):
    save(tmp_path / "model")
    put(store, "models/b", tmp_path / "model")
    with ckptfs.mounted(["--base", f"{store.url}/models/b"], tmp_path) as mount:
        name = "model-00002-of-00002.safetensors"
        other = bytearray((tmp_path / "model" / name).read_bytes())
        other[-1] ^= 1
        store.put(f"models/b/{name}", bytes(other))
        with pytest.raises(OSError):
            (mount / name).read_bytes()
        assert os.listdir(mount)
        log = (tmp_path / "mount.log").read_text()
    assert "source-changed" in log


def test_what_a_store_lacks_or_refuses_is_said(store, tmp_path):
    elsewhere = store.url.replace("bucket", "no-such-bucket")
    for url, word in [(f"{store.url}/none", "not-found"), (f"{elsewhere}/x", "not-found")]:
        command = [ckptfs.binary(), "plan", "--base", url]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 1 and word in done.stderr, done.stderr


def test_a_checkpoint_on_a_web_server_is_mounted_and_a_file_that_was_replaced_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "served").mkdir()
    save(tmp_path / "served" / "model")
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "config.json"]
    contents = {name: (tmp_path / "served" / "model" / name).read_bytes() for name in names}
    with remote_stores.nginx(tmp_path / "served", tmp_path) as url:
        with ckptfs.mounted(["--base", f"{url}/model/"], tmp_path) as mount:
            assert all((mount / name).read_bytes() == contents[name] for name in names)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other-cache"))
        with ckptfs.mounted(["--base", f"{url}/model/"], tmp_path) as mount:
            # Of the same length, as a deployment replaces it.
            other = tmp_path / "served" / "model" / "new"
            other.write_bytes(contents[names[1]][:-1] + b"?")
            os.utime(other, (1, 1))
            other.rename(other.with_name(names[1]))
            with pytest.raises(OSError):
                (mount / names[1]).read_bytes()
            assert (mount / names[0]).read_bytes() == contents[names[0]]
            log = (tmp_path / "mount.log").read_text()
    assert "source-changed" in log


def test_an_encrypted_web_server_is_read_if_its_authority_is_trusted(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "served").mkdir()
    tensors = save(tmp_path / "served" / "model")
    with remote_stores.nginx(tmp_path / "served", tmp_path, remote_stores.CERTIFICATES / "localhost.pem") as url:
        monkeypatch.setenv("SSL_CERT_FILE", str(remote_stores.AUTHORITY))
        with ckptfs.mounted(["--base", f"{url}/model/"], tmp_path) as mount:
            found = read(mount)
        assert found.keys() == tensors.keys()
        assert all(torch.equal(found[name], tensors[name]) for name in tensors)
        monkeypatch.setenv("SSL_CERT_FILE", str(remote_stores.CERTIFICATES / "other-name.pem"))
        refused = ckptfs.attempt("plan", "--base", f"{url}/model/")
    assert refused.returncode == 1 and "untrusted-server" in refused.stderr, refused.stderr


def test_the_cache_of_huggingface_hub_is_used_offline(monkeypatch, tmp_path):
    tensors = save(tmp_path / "model")
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / repo_folder_name(repo_id="org/model", repo_type="model")
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "blobs").mkdir()
    (repository / "refs" / constants.DEFAULT_REVISION).write_text(commit)
    for number, path in enumerate((tmp_path / "model").iterdir()):
        blob = repository / "blobs" / f"{number:064x}"
        blob.write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(os.path.relpath(blob, snapshot))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with ckptfs.mounted(["--base", "hf://org/model"], tmp_path) as mount:
        found = read(mount)
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
