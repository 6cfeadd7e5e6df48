"""llama.cpp: its converter and its libraries, one release of both (see scripts/llama-cpp).

    llama_cpp.py LLAMA_CPP convert MODEL OUT TYPE [MODEL OUT TYPE ...]
    llama_cpp.py LLAMA_CPP convert-pre PRE MODEL OUT TYPE [MODEL OUT TYPE ...]
    llama_cpp.py LLAMA_CPP quantize GGUF OUT TYPE [GGUF OUT TYPE ...]
    llama_cpp.py LLAMA_CPP quantize-by IMATRIX GGUF OUT TYPE [GGUF OUT TYPE ...]
    llama_cpp.py LLAMA_CPP generate GGUF PROMPT
    llama_cpp.py LLAMA_CPP load GGUF          (prints the seconds that it takes)
    llama_cpp.py LLAMA_CPP perplexity GGUF TEXT

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
    "q3_k_l": 13, "q4_k_s": 14, "q4_k_m": 15, "q5_k_s": 16, "q5_k_m": 17, "q6_k": 18, "mxfp4": 38,
}


def run(llama_cpp: Path, *arguments) -> str:
    """Runs one of the above and gives what it prints."""
    command = [sys.executable, __file__, llama_cpp, *arguments]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, f"{arguments} failed:\n{done.stderr[-4000:]}"
    return done.stdout


def convert(llama_cpp: Path, model: str, out: str, kind: str, pre: str = "") -> None:
    """`pre` is taken for the pre-tokenizer, if it is given, whatever the tokenizer does."""
    # Its own modules lie beside it, its own gguf-py too.
    if str(llama_cpp) not in sys.path:
        sys.path.insert(0, str(llama_cpp))
    if pre:
        from conversion.base import TextModel

        TextModel.get_vocab_base_pre = lambda self, tokenizer: pre
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


class ImatrixData(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("data", ctypes.c_void_p), ("size", ctypes.c_size_t)]


class OverrideValue(ctypes.Union):
    _fields_ = [("number", ctypes.c_int64), ("text", ctypes.c_char * 128)]


class Override(ctypes.Structure):
    """A key that is written, and its value: tag 0 is a number, 3 a text. The last has no key."""

    _fields_ = [("tag", ctypes.c_int), ("key", ctypes.c_char * 128), ("value", OverrideValue)]


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


def by_imatrix(params: QuantizeParams, path: Path) -> list:
    """Sets what llama-quantize sets for `--imatrix`, and gives what has to live until it is done."""
    import imatrix

    found, dataset, chunks = imatrix.weights(path)
    found = {name: weights.astype("f4").copy() for name, weights in found.items()}
    data = (ImatrixData * (len(found) + 1))()
    for entry, (name, weights) in zip(data, found.items()):
        entry.name, entry.data, entry.size = name.encode(), weights.ctypes.data, weights.size
    keys = (Override * 5)()
    texts = {"file": path.name, "dataset": dataset}
    numbers = {"entries_count": len(found), "chunks_count": chunks}
    for entry, (key, value) in zip(keys, (texts | numbers).items()):
        entry.key = f"quantize.imatrix.{key}".encode()
        if key in texts:
            entry.tag, entry.value.text = 3, value.encode()[:127]
        else:
            entry.tag, entry.value.number = 0, value
    params.imatrix = ctypes.cast(data, ctypes.c_void_p)
    params.kv_overrides = ctypes.cast(keys, ctypes.c_void_p)
    return [found, data, keys]


def quantize(llama: ctypes.CDLL, source: str, out: str, kind: str, imatrix: str = "") -> None:
    llama.llama_model_quantize_default_params.restype = QuantizeParams
    params = llama.llama_model_quantize_default_params()
    params.nthread = os.cpu_count()
    params.ftype = FILE_TYPES[kind]
    # For experts that are stored in MXFP4.
    params.allow_requantize = True
    alive = by_imatrix(params, Path(imatrix)) if imatrix else []
    status = llama.llama_model_quantize(source.encode(), out.encode(), ctypes.byref(params))
    assert status == 0, f"llama_model_quantize gave {status}"
    del alive


class Loaded:
    """A model, and a text in its tokens."""

    def __init__(self, llama: ctypes.CDLL, path: str, text: str):
        self.llama = llama
        self.context, self.vocabulary = context_of(llama, load(llama, path))
        self.tokens = (ctypes.c_int32 * 512)()
        bytes = text.encode()
        self.found = llama.llama_tokenize(
            self.vocabulary, bytes, len(bytes), self.tokens, len(self.tokens),
            ctypes.c_bool(True), ctypes.c_bool(True))
        assert self.found > 0
        self.size = llama.llama_vocab_n_tokens(self.vocabulary)

    def next(self, first: int, count: int):
        """The numbers for the token that follows some."""
        start = ctypes.byref(self.tokens, 4 * first)
        batch = self.llama.llama_batch_get_one(start, count)
        assert self.llama.llama_decode(self.context, batch) == 0
        return self.llama.llama_get_logits_ith(self.context, -1)


def load(llama: ctypes.CDLL, path: str) -> ctypes.c_void_p:
    llama.llama_model_default_params.restype = Opaque
    llama.llama_model_load_from_file.restype = ctypes.c_void_p
    model = llama.llama_model_load_from_file(path.encode(), llama.llama_model_default_params())
    assert model, f"{path} cannot be loaded"
    return ctypes.c_void_p(model)


def context_of(llama: ctypes.CDLL, model: ctypes.c_void_p) -> tuple:
    llama.llama_context_default_params.restype = Opaque
    llama.llama_batch_get_one.restype = Batch
    llama.llama_get_logits_ith.restype = ctypes.POINTER(ctypes.c_float)
    for name in ("llama_init_from_model", "llama_model_get_vocab"):
        getattr(llama, name).restype = ctypes.c_void_p
    context = llama.llama_init_from_model(model, llama.llama_context_default_params())
    context = ctypes.c_void_p(context)
    # Threads that spin while they wait make a busy machine many times slower.
    llama.llama_set_n_threads(context, 1, 1)
    return context, ctypes.c_void_p(llama.llama_model_get_vocab(model))


def generate(llama: ctypes.CDLL, path: str, prompt: str, count: int = 12) -> str:
    """What the model says after `prompt`, always its most likely token."""
    model = Loaded(llama, path, prompt)
    said = b""
    found = model.found
    for _ in range(count):
        logits = model.next(0, found)
        best = max(range(model.size), key=logits.__getitem__)
        piece = ctypes.create_string_buffer(256)
        length = llama.llama_token_to_piece(
            model.vocabulary, best, piece, len(piece), 0, ctypes.c_bool(True))
        said += piece.raw[:length]
        model.tokens[0], found = best, 1
    return said.decode(errors="replace")


def perplexity(llama: ctypes.CDLL, path: str, text: str) -> str:
    """Of `text`, with all digits: exp of the mean of −log p of each token after those before it."""
    import numpy

    model = Loaded(llama, path, text)
    total = 0.0
    for at in range(model.found - 1):
        logits = numpy.ctypeslib.as_array(model.next(at, 1), (model.size,)).astype(float)
        largest = logits.max()
        total += largest + numpy.log(numpy.exp(logits - largest).sum()) - logits[model.tokens[at + 1]]
    return repr(float(numpy.exp(total / (model.found - 1))))


def main() -> None:
    llama_cpp, what, *arguments = sys.argv[1:]
    llama_cpp = Path(llama_cpp)
    more = arguments.pop(0) if what in ("quantize-by", "convert-pre") else ""
    triples = zip(*[iter(arguments)] * 3)
    if what in ("convert", "convert-pre"):
        for triple in list(triples):
            convert(llama_cpp, *triple, more)
        return
    llama = library(llama_cpp)
    if what in ("quantize", "quantize-by"):
        for triple in triples:
            quantize(llama, *triple, more)
    elif what == "load":
        start = time.perf_counter()
        load(llama, *arguments)
        print(time.perf_counter() - start)
    else:
        print({"generate": generate, "perplexity": perplexity}[what](llama, *arguments))


if __name__ == "__main__":
    main()
