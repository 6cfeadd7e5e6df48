"""The ways in which engines read the tensors of a checkpoint, all of them into memory of their own.

What an engine does with a GPU alone, or needs one to be imported, is done here as it does it.
"""

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from fastsafetensors import SingleGroup, fastsafe_open
from fastsafetensors.parallel_loader import ParallelLoader
from safetensors import safe_open
from safetensors.torch import load, load_file
from vllm.config.load import LoadConfig
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader
from vllm.model_executor.model_loader.runai_streamer_loader import RunaiModelStreamerLoader

from checkpoint import read_index
from in_flight import read_files

Tensors = dict[str, torch.Tensor]


def shards(directory: Path) -> list[Path]:
    """Those of the index, in natural order."""
    numbers = lambda name: [int(number) for number in re.findall(r"\d+", name)]
    names = set(read_index(directory)["weight_map"].values())
    return [directory / name for name in sorted(names, key=numbers)]


def own(tensors) -> Tensors:
    """Copies: what safe_open gives is a mapping of the file until somebody reads it."""
    return {name: tensor.clone() for name, tensor in tensors}


def by_vllm(directory: Path, **config) -> Tensors:
    config = LoadConfig(load_format="safetensors", use_tqdm_on_load=False, **config)
    source = DefaultModelLoader.Source(str(directory), revision=None)
    tensors = own(DefaultModelLoader(config)._get_weights_iterator(source))
    # What reads ahead may not be done yet. Others, such as tqdm's, never end.
    for thread in threading.enumerate():
        if "_run_prefetch" in thread.name:
            thread.join()
    return tensors


def vllm_default(directory: Path) -> Tensors:
    """One thread, key by key, from mappings."""
    return by_vllm(directory)


def vllm_prefetch(directory: Path) -> Tensors:
    """The same, and 8 threads that read whole files, 16 MiB at a time."""
    return by_vllm(directory, safetensors_load_strategy="prefetch")


def vllm_eager(directory: Path) -> Tensors:
    """Whole files by read."""
    return by_vllm(directory, safetensors_load_strategy="eager")


def vllm_multithread(directory: Path) -> Tensors:
    """`load_file` in 8 threads."""
    return by_vllm(directory, model_loader_extra_config={"enable_multithread_load": True})


def vllm_runai_streamer(directory: Path) -> Tensors:
    """16 threads, 2 MiB at a time."""
    config = LoadConfig(load_format="runai_streamer", use_tqdm_on_load=False)
    loader = RunaiModelStreamerLoader(config)
    return own(loader._get_weights_iterator(str(directory), revision=None))


def sglang(directory: Path) -> Tensors:
    """`load_file` in 8 threads, then 32 that copy, and so have the pages mapped.

    The package itself is not installed: it asks for kernels of CUDA and for another torch.
    """
    with ThreadPoolExecutor(8) as loading:
        files = list(loading.map(load_file, shards(directory)))
    mapped = [item for tensors in files for item in tensors.items()]
    with ThreadPoolExecutor(32) as copying:
        return dict(copying.map(lambda item: (item[0], item[1].clone()), mapped))


def sglang_without_mmap(directory: Path) -> Tensors:
    """Whole files by read, in 8 threads."""
    with ThreadPoolExecutor(8) as loading:
        files = loading.map(lambda shard: load(shard.read_bytes()), shards(directory))
        return {name: tensor for tensors in files for name, tensor in tensors.items()}


def slices_in_threads(directory: Path) -> Tensors:
    """4 threads that take tensors as slices of shared mappings, as transformers does.

    It has as many threads as processors, but no more than 4. Page faults from all of them at once
    have stopped another filesystem for ever.
    """
    opened = [safe_open(shard, "pt") for shard in shards(directory)]
    wanted = sorted((name, file) for file in opened for name in file.keys())
    with ThreadPoolExecutor(4) as threads:
        return dict(threads.map(lambda item: (item[0], item[1].get_slice(item[0])[...].clone()), wanted))


def fastsafetensors(directory: Path) -> Tensors:
    """16 threads of pread, 16 MiB at a time, all files at once."""
    files = [str(shard) for shard in shards(directory)]
    with fastsafe_open(filenames=files, nogds=True, device="cpu") as tensors:
        return own((name, tensors.get_tensor(name)) for name in tensors.keys())


def fastsafetensors_one_by_one(directory: Path) -> Tensors:
    """The same a file after the other, the next one while tensors are taken: vLLM's way."""
    files = [str(shard) for shard in shards(directory)]
    loader = ParallelLoader(
        pg=SingleGroup(), hf_weights_files=files, use_tqdm_on_load=False, device="cpu", nogds=True
    )
    try:
        return own(loader.iterate_weights())
    finally:
        loader.close()


def direct_in_flight(directory: Path) -> Tensors:
    """Reads of 8 MiB past the page cache, as many at once as there are: InstantTensor's way."""
    return {
        name: tensor
        for file in read_files(shards(directory))
        for name, tensor in load(file).items()
    }


LOADERS = [
    vllm_default, vllm_prefetch, vllm_eager, vllm_multithread, vllm_runai_streamer, sglang,
    sglang_without_mmap, slices_in_threads, fastsafetensors, fastsafetensors_one_by_one, direct_in_flight,
]  # fmt: skip
