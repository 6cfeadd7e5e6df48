"""Views of sources at URLs: another view, which the program serves."""

import os
import signal
import socket
import subprocess
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import ckptfs
from ckptfs._mount import program
from conftest import wait_until


@pytest.fixture
def address(base, monkeypatch, tmp_path):
    """Where `base` is served as plain files."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    command = [program(), "serve", "--base", base, "--quiet", "--name", "org/model", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            process.stdout.readline()
            yield process.stdout.readline().split("HF_ENDPOINT=")[1].split()[0]
        finally:
            process.terminate()
            ckptfs.network()


def blocks(cache: Path) -> int:
    """Bytes on disk."""
    return sum(path.stat().st_blocks * 512 for path in cache.rglob("*") if path.is_file())


def test_a_view_of_a_url_has_the_tensors_of_its_files(address, base, tmp_path):
    ckptfs.network(block_cache=tmp_path / "cache", block_cache_size="1GiB")
    view = ckptfs.View(f"{address}/", dtype="f32")
    state = ckptfs.load_state_dict(view)
    expected = load_file(base / "model.safetensors")
    assert state.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name].float()) for name, tensor in state.items())
    wait_until(lambda: blocks(tmp_path / "cache") >= sum(tensor.nbytes for tensor in expected.values()))


def test_a_mount_reads_urls_as_its_process_does(address, base, tmp_path):
    ckptfs.network(block_cache=tmp_path / "cache", network_timeout=30)
    with ckptfs.View(f"{address}/").mount() as path:
        assert Path(path, "model.safetensors").read_bytes() == (base / "model.safetensors").read_bytes()
        # Blocks are written in the background; what planning read of the first may be kept in memory alone.
        wait_until(lambda: blocks(tmp_path / "cache") >= os.path.getsize(base / "model.safetensors") // 2)


def test_a_view_that_is_served_is_a_repository_of_the_hub(address, base, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_HUB_OFFLINE")
    ckptfs.network()
    view = ckptfs.View("hf://org/model")
    state = ckptfs.load_state_dict(view)
    expected = load_file(base / "model.safetensors")
    assert state.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in state.items())
    with pytest.raises(ckptfs.Error) as caught:
        ckptfs.View("hf://org/other")
    assert caught.value.code == "not-found"


def test_pins_are_taken_from_a_file(address, tmp_path):
    command = [program(), "plan", "--base", f"{address}/", "--pin", tmp_path / "pins", "--summary"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    ckptfs.network(pinned=tmp_path / "pins")
    assert ckptfs.View(f"{address}/").shards == ["model.safetensors"]
    with pytest.raises(ckptfs.Error) as caught:
        ckptfs.network(pinned=tmp_path / "none")
    assert caught.value.file == str(tmp_path / "none")


def test_a_signal_ends_waiting_for_a_server_that_does_not_answer(address, base):
    ckptfs.network(network_timeout=3600)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        def interrupt_when_asked():
            connection, _ = silent.accept()
            with connection:
                assert connection.recv(1)
                os.kill(os.getpid(), signal.SIGINT)
                interrupted.wait()

        interrupted = threading.Event()
        thread = threading.Thread(target=interrupt_when_asked)
        thread.start()
        try:
            with pytest.raises(KeyboardInterrupt):
                ckptfs.View(f"http://127.0.0.1:{silent.getsockname()[1]}/")
        finally:
            interrupted.set()
            thread.join()
    # Others are waited for as ever.
    with ckptfs.View(f"{address}/").open("model.safetensors") as file:
        assert file.read() == (base / "model.safetensors").read_bytes()


def test_arguments_that_are_wrong_are_errors():
    with pytest.raises(ValueError, match="block_cache_size"):
        ckptfs.network(block_cache="cache", block_cache_size="much")
    with pytest.raises(ValueError, match="network_timeout"):
        ckptfs.network(network_timeout=0)
    with pytest.raises(TypeError):
        ckptfs.network(pins="file")
