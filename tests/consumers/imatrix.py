"""Importance matrices as llama-imatrix writes them, in both forms, and as llama-quantize reads them."""

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGUFReader, GGUFWriter


@dataclass
class Matrix:
    """Sums of squares, [experts, columns], and how many were added up, for each expert."""

    sums: np.ndarray
    counts: np.ndarray


def of_model(model: Path, random: np.random.Generator) -> dict[str, Matrix]:
    """A made-up one for the matrices of a GGUF file. Some are missing, as those of layers that were never
    reached are, and one expert of each was never chosen."""
    matrices = {}
    for tensor in GGUFReader(model).tensors:
        shape = [int(n) for n in tensor.shape]
        is_missing = tensor.name in ("output.weight", "blk.1.attn_q.weight")
        if len(shape) < 2 or not tensor.name.endswith(".weight") or is_missing:
            continue
        columns, experts = shape[0], shape[2] if len(shape) > 2 else 1
        if tensor.name == "token_embd.weight":
            columns //= 2  # What llama.cpp overlooks of the embedding.
        sums = np.exp(2 * random.standard_normal((experts, columns))).astype(np.float32)
        counts = random.integers(1, 900, experts).astype(np.float32)
        if experts > 1:
            counts[experts // 2] = 0
        matrices[tensor.name] = Matrix(sums, counts)
    return matrices


def write(path: Path, matrices: dict[str, Matrix]) -> None:
    """In GGUF."""
    writer = GGUFWriter(path, "imatrix")
    writer.add_string("general.type", "imatrix")
    writer.add_array("imatrix.datasets", ["wiki.train.raw", "second"])
    writer.add_uint32("imatrix.chunk_count", 7)
    writer.add_uint32("imatrix.chunk_size", 512)
    for name, matrix in matrices.items():
        writer.add_tensor(f"{name}.in_sum2", matrix.sums)
        writer.add_tensor(f"{name}.counts", matrix.counts.reshape(-1, 1))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_older(path: Path, matrices: dict[str, Matrix]) -> None:
    """In the older form, which has one count for all experts."""
    data = struct.pack("<i", len(matrices))
    for name, matrix in matrices.items():
        text = name.encode()
        data += struct.pack("<i", len(text)) + text
        data += struct.pack("<ii", int(matrix.counts[0]), matrix.sums.size)
        data += matrix.sums.astype("<f4").tobytes()
    data += struct.pack("<ii", 7, 4) + b"wiki"
    path.write_bytes(data)


def weights(path: Path) -> tuple[dict[str, np.ndarray], str, int]:
    """What llama-quantize makes of a file: weights by name, the data set, the number of chunks."""
    if path.read_bytes()[:4] != b"GGUF":
        return weights_of_older(path.read_bytes())
    reader = GGUFReader(path)
    tensors = {tensor.name: tensor.data for tensor in reader.tensors}
    found = {}
    for name, sums in tensors.items():
        if not name.endswith(".in_sum2"):
            continue
        name = name.removesuffix(".in_sum2")
        counts = tensors[f"{name}.counts"].reshape(-1, 1)
        by_count = sums.reshape(len(counts), -1)
        with np.errstate(divide="ignore", invalid="ignore"):
            found[name] = np.where(counts > 0, by_count / counts, np.float32(1)).astype(np.float32)
    fields = reader.fields
    return found, fields["imatrix.datasets"].contents(0), fields["imatrix.chunk_count"].contents()


def weights_of_older(data: bytes) -> tuple[dict[str, np.ndarray], str, int]:
    at = 4
    found = {}
    for _ in range(struct.unpack_from("<i", data)[0]):
        (length,) = struct.unpack_from("<i", data, at)
        name = data[at + 4:at + 4 + length].decode()
        calls, columns = struct.unpack_from("<ii", data, at + 4 + length)
        at += 12 + length
        found[name] = np.frombuffer(data, "<f4", columns, at) / np.float32(calls)
        at += 4 * columns
    chunks, length = struct.unpack_from("<ii", data, at)
    return found, data[at + 8:at + 8 + length].decode(), chunks
