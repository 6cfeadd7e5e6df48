"""Every way of loading reads from every kind of mount what `materialize` writes."""

import mmap
import os
import signal
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

import ckptfs
from checkpoint import Checkpoint, same_bits
from copies import COPIES, digests, one_mapping
from in_flight import MAX_READS, READ, Aio, Read, Uring, address_of, is_refused, same_memory
from loader_views import KINDS, save_model, watched
from loaders import LOADERS, Tensors, shards

PAGE = mmap.PAGESIZE
MIB = 1 << 20
CACHE = 16 * MIB
# What a mount may take beside its cache, whatever it is asked.
BESIDE_CACHE = 100 * MIB
# As many as a mount has on a large machine.
THREADS = 32
PLACES = 8


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.name)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def written(kind, model, tmp_path_factory) -> Path:
    """What `materialize` writes of the kind's view."""
    out = tmp_path_factory.mktemp("written") / "view"
    ckptfs.run("materialize", "--base", model, *kind.flags, "--out", out)
    return out


@pytest.fixture
def mount(kind, model, tmp_path):
    """`with mount() as mount:` has a fresh mount; one that persists begins to write with it."""

    def of_kind(*more):
        persist = ["--persist", tmp_path / "persisted"] if kind.persists else []
        return watched(["--base", model, *kind.flags, *persist, *more], tmp_path)

    return of_kind


def wrong(loaded: Tensors, expected: Tensors | Checkpoint, names: set[str]) -> list[str]:
    """Names of the tensors that were not loaded, were invented, or have other bits."""
    return sorted(loaded.keys() ^ names) + [
        name for name in loaded.keys() & names if not same_bits(loaded[name], expected[name])
    ]


@pytest.mark.parametrize("load", LOADERS, ids=lambda load: load.__name__)
def test_a_loader_gives_the_tensors_that_are_written(load, kind, mount, written):
    expected = Checkpoint(written)
    with mount() as mounted:
        assert wrong(load(mounted.path), expected, expected.names()) == []
        if kind.persists:
            mounted.await_persisted()
            assert wrong(load(mounted.path), expected, expected.names()) == []


def test_transformers_loads_the_model_that_is_written(kind, mount, written):
    transformers_logging.set_verbosity_error()
    load = lambda directory: AutoModelForCausalLM.from_pretrained(directory).state_dict()
    expected = load(written)
    with mount() as mounted:
        assert wrong(load(mounted.path), expected, set(expected)) == []


@pytest.mark.parametrize("copy", COPIES, ids=lambda copy: copy.__name__)
def test_a_program_that_copies_reads_the_bytes_that_are_written(copy, mount, written, tmp_path):
    with mount() as mounted:
        assert copy(mounted.path, tmp_path) == digests(written)


def test_processes_that_fault_one_mapping_all_read_what_is_written(mount, written, tmp_path):
    with mount() as mounted:
        read = one_mapping(mounted.path, tmp_path)
    assert read.items() <= digests(written).items()


def read_many(queue, path: Path, expected: bytearray) -> None:
    """Has many reads of a file in flight; each must find its bytes in memory when it is done.

    The reads are of a few places, each with memory of its own that its reads have in common: they
    all write the same.
    """
    aligned = [at // PAGE * PAGE for at in range(0, len(expected), -(-len(expected) // PLACES))]
    buffers = [mmap.mmap(-1, READ) for _ in aligned]
    file = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        for number in range(MAX_READS):
            place = number % len(aligned)
            read = Read(file, aligned[place], address_of(buffers[place]), READ)
            queue.submit(number, read)
        done = set()
        while len(done) < MAX_READS:
            for number, result in queue.results():
                at, buffer = aligned[number % len(aligned)], buffers[number % len(aligned)]
                assert result == min(READ, len(expected) - at), f"read of {at}: {result}"
                read, wanted = address_of(buffer), address_of(expected) + at
                assert same_memory(read, wanted, result), f"read of {at}: other bytes"
                done.add(number)
        assert len(done) == MAX_READS
    finally:
        os.close(file)


@pytest.mark.parametrize("interface", [Uring, Aio])
def test_hundreds_of_direct_reads_in_flight_are_right_and_take_no_memory(interface, mount, written):
    try:
        queue = interface(MAX_READS)
    except OSError as error:
        if not is_refused(error):
            raise
        pytest.skip(f"{interface.__name__} cannot be used here: {error}")
    largest = max(shards(written), key=lambda path: path.stat().st_size)
    with mount("--cache-size", CACHE, "--threads", THREADS) as mounted:
        read_many(queue, mounted.path / largest.name, bytearray(largest.read_bytes()))
        assert mounted.peak_memory() <= CACHE + BESIDE_CACHE
    queue.close()


@contextmanager
def interrupted(seconds: float):
    """Signals come all the time, while this process reads."""
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_reader_that_is_interrupted_reads_what_is_written_and_leaves_no_error(mount, written):
    # Nothing is answered from a cache: a signal then finds the reader waiting for the mount.
    with mount("--direct-io", "--cache-size", MIB) as mounted, interrupted(seconds=0.0003):
        for shard in shards(written):
            expected = shard.read_bytes()
            file = os.open(mounted.path / shard.name, os.O_RDONLY)
            try:
                for at in range(0, len(expected), MIB):
                    assert os.pread(file, MIB, at) == expected[at : at + MIB], f"{shard.name}: {at}"
            finally:
                os.close(file)
