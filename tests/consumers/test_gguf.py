"""Views as GGUF: byte for byte the files of llama.cpp's converter, and of its quantizer after it."""

import filecmp
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from gguf import GGUFReader

import ckptfs
import gguf_models
import llama_cpp

REPOSITORY = Path(__file__).resolve().parents[2]
# What the converter writes itself.
CONVERTED = ["f32", "f16", "bf16", "auto", "q8_0"]
QUANTIZED = [kind for kind in llama_cpp.FILE_TYPES if kind != "q8_0"]
MODELS = gguf_models.OF_PIECES + gguf_models.OF_BYTES
# One of each family of blocks, and two mixes: models of bytes have large vocabularies, and it is
# on those of pieces that every type is tried.
OF_LARGE_MODELS = [*CONVERTED, "q4_0", "q5_1", "q3_k_m", "q4_k_m", "q6_k", "mxfp4"]


@pytest.fixture(scope="session")
def llama() -> Path:
    """The directory of llama.cpp; fetched by the first test run that needs it."""
    script = REPOSITORY / "scripts" / "llama-cpp"
    done = subprocess.run([script, sys.executable], stdout=subprocess.PIPE, text=True, check=True)
    return Path(done.stdout.strip())


def view(model: Path, kind: str, *flags) -> list:
    return ["--base", model, "--gguf", kind, *flags]


def file_of(directory: Path) -> Path:
    """The one file of a view."""
    (path,) = directory.iterdir()
    return path


def assert_same(found: Path, expected: Path, what: str) -> None:
    """Compares files; of those that differ, says where their headers do."""
    if filecmp.cmp(found, expected, shallow=False):
        return
    ours, theirs = GGUFReader(found), GGUFReader(expected)
    assert list(ours.fields) == list(theirs.fields), what
    for key, field in theirs.fields.items():
        assert ours.fields[key].contents() == field.contents(), f"{what}: {key}"
        assert ours.fields[key].types == field.types, f"{what}: {key}"
    kinds = [[(t.name, t.tensor_type, list(t.shape)) for t in reader.tensors]
             for reader in (ours, theirs)]
    assert kinds[0] == kinds[1], what
    for mine, other in zip(ours.tensors, theirs.tensors):
        assert (mine.data == other.data).all(), f"{what}: {mine.name}"
    raise AssertionError(f"{what}: the files differ beyond keys and tensors")


def assert_views(llama: Path, model: Path, tmp_path: Path, kinds: list, source: str) -> None:
    """Every kind of view of `model` is the file that llama.cpp makes: `source` is what it quantizes."""
    made = {kind: tmp_path / f"{kind}.gguf" for kind in [*kinds, source]}
    converted = [kind for kind in made if kind in CONVERTED]
    llama_cpp.run(llama, "convert", *(part for kind in converted
                                      for part in (model, made[kind], kind)))
    quantized = [kind for kind in kinds if kind not in CONVERTED]
    llama_cpp.run(llama, "quantize", *(part for kind in quantized
                                       for part in (made[source], made[kind], kind)))
    for kind in kinds:
        out = tmp_path / f"view-{kind}"
        ckptfs.run("materialize", *view(model, kind), "--out", out)
        assert_same(file_of(out), made[kind], f"{model.name} {kind}")


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_a_file_of_any_type_is_that_of_llama_cpp(llama, checkpoints, tmp_path, model):
    saved = gguf_models.save(model, tmp_path / "Tiny-1M-Instruct-v0.1", checkpoints / "smollm2")
    kinds = CONVERTED + QUANTIZED if model in gguf_models.OF_PIECES else OF_LARGE_MODELS
    assert_views(llama, saved, tmp_path, kinds, "f32")


def test_a_checkpoint_in_f16_gives_the_same_files_too(llama, checkpoints, tmp_path):
    saved = gguf_models.save(
        gguf_models.gemma3, tmp_path / "tiny-f16", checkpoints / "smollm2", torch.float16)
    assert_views(llama, saved, tmp_path, [*CONVERTED, "q4_0", "q6_k"], "f32")


@pytest.mark.parametrize("model", ["smollm2", "gemma3"])
def test_files_of_real_models_are_those_of_llama_cpp(llama, checkpoints, tmp_path, model):
    # Gemma has the larger vocabulary, and a tokenizer of pieces: for what else is in the file, one
    # type of each kind says as much as many.
    kinds = {
        "smollm2": ["bf16", "q8_0", "q4_0", "q4_k_m", "q5_k_s", "q6_k"],
        "gemma3": ["bf16", "q4_k_m"],
    }
    assert_views(llama, checkpoints / model, tmp_path, kinds[model], "bf16")


@pytest.mark.parametrize("model", ["smollm2", "gemma3"])
def test_llama_cpp_loads_a_mounted_file(llama, checkpoints, tmp_path, model):
    out = tmp_path / "written"
    asked = view(checkpoints / model, "q4_k_m")
    ckptfs.run("materialize", *asked, "--out", out)
    prompt = "The capital of France is"
    with ckptfs.mounted(asked, tmp_path) as mount:
        mounted = file_of(mount)
        assert filecmp.cmp(mounted, file_of(out), shallow=False)
        said = llama_cpp.run(llama, "generate", mounted, prompt)
    assert said == llama_cpp.run(llama, "generate", file_of(out), prompt)
    if model == "smollm2":
        assert "Paris" in said


def test_a_patched_and_quantized_view_is_what_the_converter_makes_of_the_same_safetensors(
        llama, checkpoints, tmp_path):
    """What is mounted as safetensors is converted; the view as GGUF is that."""
    changes = ["--base", checkpoints / "smollm2-base", "--extra", checkpoints / "smollm2-extra",
               "--fp8"]
    name = "smollm2-base"  # general.name is that of the directory
    shown = tmp_path / "shown" / name
    ckptfs.run("materialize", *changes, "--out", shown)
    made = tmp_path / "made.gguf"
    llama_cpp.run(llama, "convert", shown, made, "f32")
    out = tmp_path / "view"
    ckptfs.run("materialize", *changes, "--gguf", "f32", "--out", out)
    assert_same(file_of(out), made, "patched and quantized")


def test_gguf_py_reads_every_split_file(checkpoints, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    ckptfs.run("materialize", *view(checkpoints / "smollm2", "q8_0"), "--out", whole)
    split = view(checkpoints / "smollm2", "q8_0", "--gguf-split", "40MB")
    ckptfs.run("materialize", *split, "--out", parts)
    expected = {t.name: bytes(t.data) for t in GGUFReader(file_of(whole)).tensors}
    files = sorted(parts.iterdir())
    assert [f.name for f in files] == [
        f"smollm2-Q8_0-{i + 1:05}-of-{len(files):05}.gguf" for i in range(len(files))]
    found = {}
    for number, file in enumerate(files):
        reader = GGUFReader(file)
        keys = {key: field.contents() for key, field in reader.fields.items()}
        assert (keys["split.no"], keys["split.count"]) == (number, len(files))
        assert keys["split.tensors.count"] == len(expected)
        found |= {t.name: bytes(t.data) for t in reader.tensors}
        assert sum(t.n_bytes for t in reader.tensors) <= 40_000_000
    assert found == expected


def test_llama_cpp_loads_split_files(llama, checkpoints, tmp_path):
    split = view(checkpoints / "smollm2", "q8_0", "--gguf-split", "40MB")
    with ckptfs.mounted(split, tmp_path) as mount:
        said = llama_cpp.run(
            llama, "generate", sorted(mount.iterdir())[0], "The capital of France is")
    assert "Paris" in said


def test_single_tensors_have_the_types_that_are_asked_for(checkpoints, tmp_path):
    asked = ["--gguf-type", "attn_v=f16", "--gguf-type", r"^blk\.0\.=q8_0"]
    ckptfs.run("materialize", *view(checkpoints / "smollm2", "q4_0", *asked), "--out", tmp_path / "v")
    kinds = {t.name: t.tensor_type.name for t in GGUFReader(file_of(tmp_path / "v")).tensors}
    assert kinds["blk.0.attn_v.weight"] == kinds["blk.7.attn_v.weight"] == "F16"
    assert kinds["blk.0.ffn_up.weight"] == "Q8_0"
    assert kinds["blk.0.attn_norm.weight"] == "F32"
    assert kinds["blk.1.ffn_up.weight"] == "Q4_0"
