"""Views as GGUF: byte for byte the files of llama.cpp's converter, and of its quantizer after it."""

import filecmp
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFReader, dequantize

import ckptfs
import gguf_models
import imatrix
import llama_cpp

REPOSITORY = Path(__file__).resolve().parents[2]
# What the converter writes itself.
CONVERTED = ["f32", "f16", "bf16", "auto", "q8_0"]
QUANTIZED = [kind for kind in llama_cpp.FILE_TYPES if kind != "q8_0"]
MODELS = gguf_models.OF_PIECES + gguf_models.OF_BYTES + gguf_models.QUANTIZED
# Whose tokenizer transformers makes itself, so that the converter does not know it.
WITHOUT_PRE = [gguf_models.qwen3_5_moe]


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


def converted(llama: Path, model: Path, out: Path, kinds: list, pre: str = "") -> dict:
    """The files of `kinds` that the converter makes of `model`."""
    made = {kind: out / f"{kind}.gguf" for kind in kinds}
    triples = [part for kind in kinds for part in (model, made[kind], kind)]
    llama_cpp.run(llama, *(["convert-pre", pre] if pre else ["convert"]), *triples)
    return made


def quantized(llama: Path, source: Path, out: Path, kinds: list, weights: Path | None = None) -> dict:
    """The files of `kinds` that llama-quantize makes of `source`."""
    made = {kind: out / f"{kind}{'-by-weights' if weights else ''}.gguf" for kind in kinds}
    triples = [part for kind in kinds for part in (source, made[kind], kind)]
    llama_cpp.run(llama, *(["quantize-by", weights] if weights else ["quantize"]), *triples)
    return made


def assert_views(model: Path, tmp_path: Path, made: dict, *flags) -> None:
    """Every kind of view of `model` is the file that llama.cpp made."""
    for kind, expected in made.items():
        out = tmp_path / f"view-{expected.stem}"
        ckptfs.run("materialize", *view(model, kind, *flags), "--out", out)
        assert_same(file_of(out), expected, f"{model.name} {kind}")


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_a_file_of_any_type_is_that_of_llama_cpp(llama, checkpoints, tmp_path, model):
    saved = gguf_models.save(model, tmp_path / "Tiny-1M-Instruct-v0.1", checkpoints / "smollm2")
    pre = "smollm" if model in WITHOUT_PRE else ""
    made = converted(llama, saved, tmp_path, CONVERTED, pre)
    made |= quantized(llama, made["f32"], tmp_path, QUANTIZED)
    assert_views(saved, tmp_path, made, *(["--gguf-pre", pre] if pre else []))


# Rows that are not whole blocks; single experts; heads as experts; eight experts; stored MXFP4.
@pytest.mark.parametrize("model, write", [
    (gguf_models.llama, imatrix.write_older), (gguf_models.qwen3_moe, imatrix.write),
    (gguf_models.deepseek_v3, imatrix.write), (gguf_models.gpt_oss_mxfp4, imatrix.write),
], ids=lambda value: value.__name__)
def test_a_file_by_an_importance_matrix_is_that_of_llama_cpp(
        llama, checkpoints, tmp_path, model, write):
    saved = gguf_models.save(model, tmp_path / "tiny", checkpoints / "smollm2")
    source = converted(llama, saved, tmp_path, ["f32"])["f32"]
    weights = tmp_path / "imatrix.file"
    write(weights, imatrix.of_model(source, np.random.default_rng(5)))
    made = quantized(llama, source, tmp_path, [*QUANTIZED, "q8_0"], weights)
    assert_views(saved, tmp_path, made, "--imatrix", weights)


def test_a_checkpoint_in_f16_gives_the_same_files_too(llama, checkpoints, tmp_path):
    saved = gguf_models.save(
        gguf_models.gemma3, tmp_path / "tiny-f16", checkpoints / "smollm2", torch.float16)
    made = converted(llama, saved, tmp_path, CONVERTED)
    made |= quantized(llama, made["f32"], tmp_path, ["q4_0", "q6_k"])
    assert_views(saved, tmp_path, made)


def test_gguf_py_reads_every_mounted_type(checkpoints, tmp_path):
    """Its numbers are near those of the F32 file: the nearer, the more bits a weight has."""
    saved = gguf_models.save(gguf_models.qwen3_moe, tmp_path / "tiny", checkpoints / "smollm2")
    errors = {}
    expected = None
    for kind in ["f32", "bf16", "f16", *llama_cpp.FILE_TYPES]:
        scratch = tmp_path / kind
        scratch.mkdir()
        with ckptfs.mounted(view(saved, kind), scratch) as mount:
            found = {tensor.name: dequantize(tensor.data, tensor.tensor_type)
                     for tensor in GGUFReader(file_of(mount)).tensors
                     if tensor.name != "token_embd.weight"}
        expected = expected or found
        assert found.keys() == expected.keys()
        off = sum(np.square(found[name] - expected[name]).sum() for name in expected)
        errors[kind] = (off / sum(np.square(x).sum() for x in expected.values())) ** 0.5
    assert errors["bf16"] == errors["f32"] == 0
    assert all(0 < errors[kind] < 0.3 for kind in llama_cpp.FILE_TYPES), errors
    assert errors["q2_k"] > errors["q3_k_m"] > errors["q4_k_m"] > errors["q5_k_m"] > errors["q8_0"]


REAL = ["smollm2", "gemma3"]


@pytest.fixture(scope="session")
def of_real_models(llama, checkpoints, tmp_path_factory) -> dict:
    """Q4_K_M of real models, made by llama-quantize of BF16 views while they are mounted."""
    made = {}
    for model in REAL:
        out = tmp_path_factory.mktemp(model)
        with ckptfs.mounted(view(checkpoints / model, "bf16"), out) as mount:
            made |= {model: quantized(llama, file_of(mount), out, ["q4_k_m"])["q4_k_m"]}
    return made


@pytest.mark.parametrize("model", REAL)
def test_files_of_real_models_are_those_of_llama_cpp(
        llama, checkpoints, tmp_path, of_real_models, model):
    """The converter's BF16 file is the view that llama-quantize read, so it quantizes that."""
    made = converted(llama, checkpoints / model, tmp_path, ["bf16"])
    assert_views(checkpoints / model, tmp_path, made | {"q4_k_m": of_real_models[model]})


@pytest.mark.parametrize("model", REAL)
def test_a_mounted_file_is_to_llama_cpp_what_its_own_is(
        llama, checkpoints, tmp_path, of_real_models, model):
    own, prompt = of_real_models[model], "The capital of France is"
    text = "In the beginning there were few who knew the river, and fewer who had crossed it."
    with ckptfs.mounted(view(checkpoints / model, "q4_k_m"), tmp_path) as mount:
        said = llama_cpp.run(llama, "generate", file_of(mount), prompt)
        found = llama_cpp.run(llama, "perplexity", file_of(mount), text)
    assert said == llama_cpp.run(llama, "generate", own, prompt)
    assert found == llama_cpp.run(llama, "perplexity", own, text)
    if model == "smollm2":
        assert "Paris" in said
        assert 5 < float(found) < 100


def test_a_written_file_is_verified_and_put_beside_others(checkpoints, tmp_path):
    saved = gguf_models.save(gguf_models.qwen3, tmp_path / "tiny", checkpoints / "smollm2")
    out, beside = tmp_path / "out", tmp_path / "beside"
    asked = view(saved, "q4_0")
    ckptfs.run("materialize", *asked, "--out", out)
    ckptfs.run("verify", *asked, "--out", out)
    beside.mkdir()
    (beside / "notes.txt").write_text("mine")
    ckptfs.run("materialize", *asked, "--out", beside, "--weights-only")
    name = file_of(out).name
    assert sorted(path.name for path in beside.iterdir()) == ["notes.txt", name]
    assert filecmp.cmp(file_of(out), beside / name, shallow=False)
    data = bytearray(file_of(out).read_bytes())
    data[-40] ^= 1
    file_of(out).write_bytes(data)
    done = ckptfs.attempt("verify", *asked, "--out", out)
    assert done.returncode == 1
    assert name in done.stdout and "output.weight" not in done.stdout, done.stdout
    assert "blk.8." in done.stdout, done.stdout


def test_a_patched_and_quantized_view_is_what_the_converter_makes_of_the_same_safetensors(
        llama, checkpoints, tmp_path):
    """What is mounted as safetensors is converted; the view as GGUF is that."""
    changes = ["--base", checkpoints / "smollm2-base", "--extra", checkpoints / "smollm2-extra",
               "--fp8"]
    name = "smollm2-base"  # general.name is that of the directory
    shown = tmp_path / "shown" / name
    ckptfs.run("materialize", *changes, "--out", shown)
    made = converted(llama, shown, tmp_path, ["f32"])["f32"]
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
