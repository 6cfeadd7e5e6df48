"""Views that are written to an object store."""

import os
import signal
import threading

import pytest
import torch
from safetensors.torch import save_file

import ckptfs
import store as stores

OUT = "s3://bucket/models/m"
PREFIX = OUT.removeprefix("s3://") + "/"


@pytest.fixture
def store(monkeypatch):
    """A store that URLs lead to."""
    with stores.running() as store:
        for name, value in store.settings.items():
            monkeypatch.setenv(name, value)
        ckptfs.network()
        yield store
    monkeypatch.undo()
    ckptfs.network()


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> ckptfs.View:
    """A view whose shard is sent in several parts."""
    directory = tmp_path_factory.mktemp("large")
    weight = torch.arange(24 << 18, dtype=torch.float32).reshape(-1, 1024)
    save_file({"w": weight}, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "config.json").write_text("{}")
    return ckptfs.View(directory)


def test_a_view_is_written_to_a_store_and_is_the_base_of_another(store, large):
    calls = []
    written = large.materialize(OUT, progress=lambda *call: calls.append(call))
    assert written["files"] == len(large.files) and written["bytes"] == sum(large.files.values())
    assert calls[-1][0] == calls[-1][1] == written["bytes"]
    assert store.uploads == {} and store.begun == 1
    assert {path.removeprefix(PREFIX) for path in store.objects} == {str(path) for path in large.files}
    for name in large.files:
        assert store.objects[f"{PREFIX}{name}"] == large.open(name).read()
    assert large.verify(OUT)["problems"] == []
    assert ckptfs.verify(OUT)["problems"] == []
    again = ckptfs.load_state_dict(ckptfs.View(OUT))
    assert torch.equal(again["w"], ckptfs.load_state_dict(large)["w"])
    with pytest.raises(ckptfs.Error) as caught:
        large.materialize(OUT)
    assert caught.value.code == "not-empty"


def test_ctrl_c_ends_the_uploads_that_were_begun(store, large):
    store.takes_parts.clear()

    def interrupt():
        store.part_waits.wait()
        assert store.uploads
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        large.materialize(OUT)
    thread.join()
    assert store.begun == 1 and store.uploads == {}
    assert f"{PREFIX}config.json" not in store.objects
    # The same call goes on, and others wait for the network as ever.
    store.takes_parts.set()
    large.materialize(OUT)
    assert large.verify(OUT)["problems"] == []
    assert {path.removeprefix(PREFIX) for path in store.objects} == {str(path) for path in large.files}


def test_a_place_that_is_not_written_to_is_an_error(large):
    with pytest.raises(ckptfs.Error) as caught:
        large.materialize("hf://org/model")
    assert caught.value.code == "unsupported-place"
