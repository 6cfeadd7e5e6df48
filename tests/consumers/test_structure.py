"""A view is a well-formed checkpoint directory, read with nothing but JSON."""

import filecmp

import pytest

from checkpoint import INDEX, read_header, read_index
from views import ALL_VIEWS, PATCH_SHARD_GIB, REPACK_SHARD_GIB, patched, patched_fp8, repacked

BITS = {"F64": 64, "I64": 64, "F32": 32, "I32": 32, "BF16": 16, "F16": 16, "F8_E4M3": 8}


def tensor_bytes(entry: dict) -> int:
    count = 1
    for dimension in entry["shape"]:
        count *= dimension
    return count * BITS[entry["dtype"]] // 8


def tensors_of(shard) -> dict[str, dict]:
    header, _ = read_header(shard)
    return {name: entry for name, entry in header.items() if name != "__metadata__"}


@pytest.mark.parametrize("view", ALL_VIEWS)
def test_the_index_is_the_union_of_the_headers_without_duplicates(view, mount):
    with mount(view) as path:
        weight_map = read_index(path)["weight_map"]
        in_headers = [
            (name, shard) for shard in sorted(set(weight_map.values()))
            for name in tensors_of(path / shard)
        ]
        assert sorted(in_headers) == sorted(weight_map.items())


@pytest.mark.parametrize("view", ALL_VIEWS)
def test_total_size_is_the_sum_of_tensor_bytes(view, mount):
    with mount(view) as path:
        index = read_index(path)
        assert index["metadata"]["total_size"] == sum(
            tensor_bytes(entry) for shard in set(index["weight_map"].values())
            for entry in tensors_of(path / shard).values()
        )


@pytest.mark.parametrize("view", ALL_VIEWS)
def test_the_only_weights_shown_are_the_numbered_shards_of_the_index(view, mount):
    with mount(view) as path:
        shards = sorted(set(read_index(path)["weight_map"].values()))
        assert shards == [f"model-{i:05}-of-{len(shards):05}.safetensors"
                          for i in range(1, len(shards) + 1)]
        shown = sorted(p.name for p in path.iterdir() if ".safetensors" in p.name)
        assert shown == [*shards, INDEX]


@pytest.mark.parametrize("view", ALL_VIEWS)
def test_shards_have_no_holes_and_end_with_their_last_tensor(view, mount):
    with mount(view) as path:
        for shard in path.glob("*.safetensors"):
            header, payload = read_header(shard)
            assert header.pop("__metadata__")["format"] == "pt"
            end = 0
            for name, entry in header.items():
                begin, next_begin = entry["data_offsets"]
                assert begin == end, f"a hole or a disorder before {name} in {shard.name}"
                assert next_begin - begin == tensor_bytes(entry), name
                assert (payload + begin) % (BITS[entry["dtype"]] // 8) == 0, f"{name} is unaligned"
                end = next_begin
            assert shard.stat().st_size == payload + end


@pytest.mark.parametrize("view", ALL_VIEWS)
def test_a_weight_and_its_scales_share_a_shard(view, mount):
    with mount(view) as path:
        weight_map = read_index(path)["weight_map"]
        for name, shard in weight_map.items():
            if name.endswith("_scale_inv"):
                assert weight_map[name.removesuffix("_scale_inv")] == shard


def test_a_patched_view_begins_with_the_base_shards_unchanged(mount, checkpoints):
    base = checkpoints / "smollm2-base"
    with mount(patched) as path:
        in_index_order = list(dict.fromkeys(read_index(base)["weight_map"].values()))
        first = sorted(path.glob("*.safetensors"))[: len(in_index_order)]
        for shown, original in zip(first, in_index_order, strict=True):
            assert filecmp.cmp(shown, base / original, shallow=False), (shown.name, original)


def test_a_patched_view_shows_the_aux_files_of_the_base_alone(mount, checkpoints):
    base = checkpoints / "smollm2-base"
    aux = sorted(path.name for path in base.iterdir() if ".safetensors" not in path.name)
    assert "tokenizer.json" in aux and "config.json" in aux
    with mount(patched) as path:
        assert sorted(p.name for p in path.iterdir() if ".safetensors" not in p.name) == aux
        for name in aux:
            assert (path / name).read_bytes() == (base / name).read_bytes()


@pytest.mark.parametrize("view, gib, first_packed", [
    (patched, PATCH_SHARD_GIB, 4),
    (patched_fp8, PATCH_SHARD_GIB, 4),
    (repacked, REPACK_SHARD_GIB, 0),
])
def test_packed_shards_hold_at_most_the_shard_size(view, gib, first_packed, mount):
    with mount(view) as path:
        packed = sorted(path.glob("*.safetensors"))[first_packed:]
        assert len(packed) > 1
        for shard in packed:
            sizes = [tensor_bytes(entry) for entry in tensors_of(shard).values()]
            assert sum(sizes) <= gib * 2**30 or len(sizes) == 1
