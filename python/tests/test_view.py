"""What a view is asked for, and what it says of itself."""

import io
import json
import pickle
from pathlib import Path

import pytest
import torch
from settings_stub import stub

import ckptfs
from ckptfs import _native
from conftest import run


def test_an_argument_that_there_is_not_is_a_type_error_with_the_nearest_one(base):
    with pytest.raises(TypeError, match="'quantise'; did you mean 'quantize'"):
        ckptfs.View(base, quantise="fp8")
    with pytest.raises(TypeError, match="'zzzzzzzz'$"):
        ckptfs.View(base, zzzzzzzz=1)


@pytest.mark.parametrize("settings", [
    {"fp8": "yes"}, {"vocab_multiple": "64"}, {"dtype": 3}, {"extra": 3}, {"model": "x"}, {"only": 3},
    {"repack": True, "single_file": True},
], ids=str)
def test_a_value_of_another_type_is_a_type_error(base, settings):
    with pytest.raises(TypeError):
        ckptfs.View(base, **settings)


def test_a_view_has_a_base_or_a_recipe(base):
    with pytest.raises(TypeError):
        ckptfs.View()
    with pytest.raises(TypeError):
        ckptfs.View(base, recipe="x.yml")


@pytest.mark.parametrize("settings, flags", [
    ({}, []),
    ({"fp8": True}, ["--fp8"]),
    ({"fp8": False, "dtype": None}, []),
    ({"dtype": torch.float16}, ["--dtype", "f16"]),
    ({"dtype": "f32", "repack": True, "shard_size": "1MiB"}, ["--dtype", "f32", "--repack", "--shard-size", "1MiB"]),
    ({"rename": {"^model\\.": "language_model."}}, ["--rename", "^model\\.=language_model."]),
    ({"set": {"use_cache": False, "rope": {"a": [1]}}}, ["--set", "use_cache=false", "--set", 'rope={"a": [1]}']),
    ({"vocab_multiple": 64, "single_file": True}, ["--vocab-multiple", "64", "--single-file"]),
    ({"drop": ["lm_head.*", "model\\.norm.*"]}, ["--drop", "lm_head.*", "--drop", "model\\.norm.*"]),
], ids=str)
def test_arguments_say_what_flags_say(base, settings, flags):
    plan = ckptfs.View(base, **settings).plan()
    printed = json.loads(run("plan", "--base", base, *flags, "--json"))
    # These have the settings as their outlet spells them.
    assert [w["code"] for w in plan.pop("warnings")] == [w["code"] for w in printed.pop("warnings")]
    assert plan == printed


def test_sources_have_weights_and_names(base, tmp_path):
    extra = ckptfs.View(base, only="other.*|model\\.norm.*", rename={"lm_head": "other"})
    extra.materialize(tmp_path / "a:b")
    view = ckptfs.View(base, extra=[tmp_path / "a:b"])
    assert "other.weight" in view.tensors()
    graft = ckptfs.View(base, graft={tmp_path / "a:b": "model\\.norm.*"})
    assert graft.plan()["figures"]["grafted"] == 1


def test_every_argument_is_in_the_types():
    path = Path(ckptfs.__file__).with_name("_settings.pyi")
    assert path.read_text() == stub(_native.settings())


def test_a_recipe_makes_the_same_view(fp8, tmp_path):
    recipe = tmp_path / "view.yml"
    recipe.write_text(fp8.recipe())
    again = ckptfs.View(recipe=recipe)
    assert again.plan()["shards"] == fp8.plan()["shards"]
    assert again.recipe() == fp8.recipe()


def test_files_are_those_of_a_copy(fp8, copy):
    files = {str(path.relative_to(copy)): path for path in copy.rglob("*") if path.is_file()}
    assert fp8.files == {name: path.stat().st_size for name, path in files.items()}
    for name, path in files.items():
        with fp8.open(name) as file:
            assert file.read() == path.read_bytes(), name
    assert fp8.config == json.loads((copy / "config.json").read_text())


def test_an_open_file_is_read_as_files_are(fp8, copy):
    expected = open(copy / "model.safetensors", "rb", buffering=0)
    with expected, fp8.open("model.safetensors") as file:
        for offset, whence in [(10, io.SEEK_SET), (5, io.SEEK_CUR), (-7, io.SEEK_END), (3, io.SEEK_END)]:
            assert file.seek(offset, whence) == expected.seek(offset, whence)
            buffers = bytearray(20), bytearray(20)
            assert file.readinto(buffers[0]) == expected.readinto(buffers[1])
            assert buffers[0] == buffers[1]
            assert file.tell() == expected.tell()
        with pytest.raises(ValueError):
            file.seek(-1)
        with pytest.raises(TypeError):
            file.readinto(b"12")
        with pytest.raises(io.UnsupportedOperation):
            file.write(b"12")
        assert io.BufferedReader(file).peek(4)[:4] == b""
    with pytest.raises(ValueError):
        file.read(1)
    with pytest.raises(FileNotFoundError):
        fp8.open("other")


def test_an_error_says_what_it_is_about(base, tmp_path):
    with pytest.raises(ckptfs.Error) as caught:
        ckptfs.View(tmp_path / "missing")
    assert caught.value.code == "not-found"
    with pytest.raises(ckptfs.Error) as caught:
        ckptfs.View(base, dtype="bf17")
    error = caught.value
    assert (error.code, error.file, error.tensor) == ("bad-value", None, None)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.code, again.hint) == (str(error), error.code, error.hint)


def test_a_hint_spells_settings_as_arguments(base):
    with pytest.raises(ckptfs.Error) as caught:
        ckptfs.View(base, single_file=True, shard_size=1)
    assert caught.value.code == "conflict"
    assert caught.value.hint == "leave out shards or shard_size"
    warnings = ckptfs.View(base, fp8=True, shard_size=1).plan()["warnings"]
    assert any("shards=\"repack\"" in warning["text"] for warning in warnings), warnings


def test_a_value_that_cannot_be_quantized_names_its_tensor(base, tmp_path):
    from conftest import CONFIG, tensors
    from safetensors.torch import save_file

    bad = tensors()
    name = "model.layers.0.self_attn.o_proj.weight"
    bad[name][3, 5] = torch.inf
    save_file(bad, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(ckptfs.Error) as caught:
        ckptfs.load_state_dict(ckptfs.View(tmp_path, fp8=True))
    assert (caught.value.code, caught.value.tensor) == ("non-finite", name)


def test_a_notebook_shows_the_plan(fp8):
    html = fp8._repr_html_()
    assert "model.safetensors" in html and str(fp8.plan()["figures"]["quantized"]) in html
    assert repr(fp8).startswith("<ckptfs.View of ")
