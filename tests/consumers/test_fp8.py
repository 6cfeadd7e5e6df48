"""Codes and scales of an FP8 view equal the definition, computed with torch, bit for bit."""

from pathlib import Path

import pytest
import torch

import fp8_definition as fp8
import planted
from checkpoint import Checkpoint, same_bits
from views import gemma_fp8, gemma_fp8_float32, patched_fp8

SCALE_FMTS = ["ue8m0", "float32"]


def wrong_tensors(view_dir: Path, source_dir: Path, scale_fmt: str) -> list[str]:
    """Names whose codes, scales or kept values are not what the definition says."""
    view, source = Checkpoint(view_dir), Checkpoint(source_dir)
    selected = {name for name in source.names() if fp8.is_quantised(name)}
    assert selected
    assert view.names() == source.names() | {f"{name}_scale_inv" for name in selected}
    wrong = []
    for name in sorted(source.names()):
        if name not in selected:
            if not same_bits(view[name], source[name]):
                wrong.append(name)
            continue
        codes, scales = fp8.quantise(source[name], scale_fmt)
        if not same_bits(view[name], codes):
            wrong.append(name)
        if not same_bits(view[f"{name}_scale_inv"], scales):
            wrong.append(f"{name}_scale_inv")
    return wrong


@pytest.mark.parametrize("view, source, scale_fmt", [
    (gemma_fp8, "gemma3", "ue8m0"),
    (gemma_fp8_float32, "gemma3", "float32"),
    (patched_fp8, "smollm2", "ue8m0"),
])
def test_every_tensor_of_a_real_model_equals_the_definition(
    view, source, scale_fmt, mount, checkpoints
):
    with mount(view) as path:
        assert wrong_tensors(path, checkpoints / source, scale_fmt) == []


@pytest.mark.parametrize("scale_fmt", SCALE_FMTS)
def test_every_planted_edge_case_equals_the_definition(
    scale_fmt, mount_planted, planted_checkpoint
):
    cases = {name: case for name, (case, _) in planted.quantised().items()}
    with mount_planted("--scale-fmt", scale_fmt) as path:
        wrong = wrong_tensors(path, planted_checkpoint, scale_fmt)
        assert [(name, cases.get(name.removesuffix("_scale_inv"))) for name in wrong] == []


@pytest.mark.parametrize("scale_fmt", SCALE_FMTS)
def test_a_block_of_zeros_has_scale_one_and_codes_that_keep_the_sign(scale_fmt, mount_planted):
    with mount_planted("--scale-fmt", scale_fmt) as path:
        for name, (case, weight) in planted.quantised().items():
            if case.endswith("zero blocks"):
                codes, scales = read(path, name)
                block = (slice(0, 128), slice(0, 384))
                assert scales[0, :3].tolist() == [1.0, 1.0, 1.0], case
                assert torch.equal(codes.view(torch.uint8)[block],
                                   weight[block].signbit().to(torch.uint8) * 0x80), case


def test_ue8m0_scales_are_the_smallest_powers_of_two_that_do_not_saturate(mount_planted):
    exactly, above = "amax exactly 448 * 2^k", "amax next above 448 * 2^k"
    with mount_planted("--scale-fmt", "ue8m0") as path:
        for name, (case, weight) in planted.quantised().items():
            if case.endswith((exactly, above)):
                exponents = torch.tensor(planted.POWERS[weight.dtype]) + case.endswith(above)
                expected = [max(2.0**k, 2.0**-126) for k in exponents.tolist()]
                assert read(path, name)[1].flatten().tolist() == expected, case


def test_partial_blocks_are_kept_in_their_dtype_when_asked(mount_planted, planted_checkpoint):
    source = Checkpoint(planted_checkpoint)
    partial = {
        name for name in planted.quantised()
        if source[name].shape[-1] % 128 or source[name].shape[-2] % 128
    }
    with mount_planted("--partial-blocks", "keep") as path:
        assert kept_among(path, planted_checkpoint) == partial


def read(view_dir: Path, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    view = Checkpoint(view_dir)
    return view[name].clone(), view[f"{name}_scale_inv"].clone()


def kept_among(view_dir: Path, source_dir: Path) -> set[str]:
    """Names of the tensors for FP8 that the view shows without a scale, unchanged."""
    view, source = Checkpoint(view_dir), Checkpoint(source_dir)
    kept = {name for name in planted.quantised() if f"{name}_scale_inv" not in view.names()}
    assert all(same_bits(view[name], source[name]) for name in kept)
    return kept
