"""llama.cpp: its converter and its libraries, one release of both (see scripts/llama-cpp).

    llama_cpp.py LLAMA_CPP convert MODEL OUT TYPE [MODEL OUT TYPE ...]
    llama_cpp.py LLAMA_CPP quantize GGUF OUT TYPE [GGUF OUT TYPE ...]
    llama_cpp.py LLAMA_CPP generate GGUF PROMPT
    llama_cpp.py LLAMA_CPP load GGUF          (prints the seconds that it takes)

Each runs in a process of its own, as the libraries say all they do on stderr and end the process
where they meet what they do not expect.
"""

import ctypes
import os
import runpy
import subprocess
import sys
import time
from pathlib import Path

# `llama_ftype`: the types of files that the tests ask for.
FILE_TYPES = {
    "q4_0": 2, "q4_1": 3, "q8_0": 7, "q5_0": 8, "q5_1": 9, "q2_k": 10, "q3_k_s": 11, "q3_k_m": 12,
    "q3_k_l": 13, "q4_k_s": 14, "q4_k_m": 15, "q5_k_s": 16, "q5_k_m": 17, "q6_k": 18,
}


def run(llama_cpp: Path, *arguments) -> str:
    """Runs one of the above and gives what it prints."""
    command = [sys.executable, __file__, llama_cpp, *arguments]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, f"{arguments} failed:\n{done.stderr[-4000:]}"
    return done.stdout


def convert(llama_cpp: Path, model: str, out: str, kind: str) -> None:
    # Its own modules lie beside it, its own gguf-py too.
    if str(llama_cpp) not in sys.path:
        sys.path.insert(0, str(llama_cpp))
    sys.argv = ["convert_hf_to_gguf.py", model, "--outfile", out, "--outtype", kind]
    runpy.run_path(str(llama_cpp / "convert_hf_to_gguf.py"), run_name="__main__")


class QuantizeParams(ctypes.Structure):
    _fields_ = [
        ("nthread", ctypes.c_int32),
        ("ftype", ctypes.c_int),
        ("output_tensor_type", ctypes.c_int),
        ("token_embedding_type", ctypes.c_int),
        ("allow_requantize", ctypes.c_bool),
        ("quantize_output_tensor", ctypes.c_bool),
        ("only_copy", ctypes.c_bool),
        ("pure", ctypes.c_bool),
        ("keep_split", ctypes.c_bool),
        ("dry_run", ctypes.c_bool),
        ("imatrix", ctypes.c_void_p),
        ("kv_overrides", ctypes.c_void_p),
        ("tensor_types", ctypes.c_void_p),
        ("prune_layers", ctypes.c_void_p),
        ("max_buf_size", ctypes.c_size_t),
    ]


class Opaque(ctypes.Structure):
    """Parameters that stay as they are. They are handed over in memory, so that more room than they
    take does no harm."""

    _fields_ = [("bytes", ctypes.c_uint64 * 128)]


class Batch(ctypes.Structure):
    _fields_ = [("n_tokens", ctypes.c_int32)] + [
        (name, ctypes.c_void_p)
        for name in ("token", "embd", "pos", "n_seq_id", "seq_id", "logits")
    ]


def library(llama_cpp: Path) -> ctypes.CDLL:
    """libllama, with the processor's backend."""
    lib = llama_cpp / "lib"

    def load(pattern: str) -> ctypes.CDLL:
        (path,) = lib.glob(pattern)
        return ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)

    load("libggml-base.so")
    ggml = load("libggml.v*.so")
    llama = load("libllama.v*.so")
    ggml.ggml_backend_load.restype = ctypes.c_void_p
    has_avx2 = "avx2" in Path("/proc/cpuinfo").read_text()
    backend = lib / f"libggml-cpu-{'haswell' if has_avx2 else 'x64'}.so"
    assert ggml.ggml_backend_load(str(backend).encode()), "no backend"
    return llama


def quantize(llama: ctypes.CDLL, source: str, out: str, kind: str) -> None:
    llama.llama_model_quantize_default_params.restype = QuantizeParams
    params = llama.llama_model_quantize_default_params()
    params.nthread = os.cpu_count()
    params.ftype = FILE_TYPES[kind]
    status = llama.llama_model_quantize(source.encode(), out.encode(), ctypes.byref(params))
    assert status == 0, f"llama_model_quantize gave {status}"


def load(llama: ctypes.CDLL, path: str) -> ctypes.c_void_p:
    llama.llama_model_default_params.restype = Opaque
    llama.llama_model_load_from_file.restype = ctypes.c_void_p
    model = llama.llama_model_load_from_file(path.encode(), llama.llama_model_default_params())
    assert model, f"{path} cannot be loaded"
    return ctypes.c_void_p(model)


def generate(llama: ctypes.CDLL, path: str, prompt: str, count: int = 12) -> str:
    """What the model says after `prompt`, always its most likely token."""
    llama.llama_context_default_params.restype = Opaque
    llama.llama_batch_get_one.restype = Batch
    llama.llama_get_logits_ith.restype = ctypes.POINTER(ctypes.c_float)
    for name in ("llama_init_from_model", "llama_model_get_vocab"):
        getattr(llama, name).restype = ctypes.c_void_p
    model = load(llama, path)
    context = llama.llama_init_from_model(model, llama.llama_context_default_params())
    context = ctypes.c_void_p(context)
    # Threads that spin while they wait make a busy machine many times slower.
    llama.llama_set_n_threads(context, 1, 1)
    vocabulary = ctypes.c_void_p(llama.llama_model_get_vocab(model))
    tokens = (ctypes.c_int32 * 512)()
    text = prompt.encode()
    found = llama.llama_tokenize(
        vocabulary, text, len(text), tokens, len(tokens), ctypes.c_bool(True), ctypes.c_bool(True))
    assert found > 0
    said = b""
    size = llama.llama_vocab_n_tokens(vocabulary)
    for _ in range(count):
        batch = llama.llama_batch_get_one(tokens, found)
        assert llama.llama_decode(context, batch) == 0
        logits = llama.llama_get_logits_ith(context, -1)
        best = max(range(size), key=logits.__getitem__)
        piece = ctypes.create_string_buffer(256)
        length = llama.llama_token_to_piece(
            vocabulary, best, piece, len(piece), 0, ctypes.c_bool(True))
        said += piece.raw[:length]
        tokens[0], found = best, 1
    return said.decode(errors="replace")


def main() -> None:
    llama_cpp, what, *arguments = sys.argv[1:]
    llama_cpp = Path(llama_cpp)
    triples = zip(*[iter(arguments)] * 3)
    if what == "convert":
        for triple in list(triples):
            convert(llama_cpp, *triple)
        return
    llama = library(llama_cpp)
    if what == "quantize":
        for triple in triples:
            quantize(llama, *triple)
    elif what == "load":
        start = time.perf_counter()
        load(llama, *arguments)
        print(time.perf_counter() - start)
    else:
        print(generate(llama, *arguments))


if __name__ == "__main__":
    main()
