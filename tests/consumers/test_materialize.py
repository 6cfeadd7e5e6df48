"""`materialize` writes what a mount shows, byte for byte."""

import filecmp
import subprocess
from pathlib import Path

import pytest

import ckptfs
from views import gemma_fp8, hub, patched, patched_fp8, repacked


def files_below(directory: Path) -> dict[str, Path]:
    """Every entry by its relative path; all of them plain files or directories."""
    entries = {str(path.relative_to(directory)): path for path in directory.rglob("*")}
    for path in entries.values():
        assert not path.is_symlink() and (path.is_file() or path.is_dir()), path
    return {name: path for name, path in entries.items() if path.is_file()}


@pytest.mark.parametrize("view", [patched, repacked, hub, gemma_fp8, patched_fp8])
def test_a_copy_of_the_mount_equals_what_materialize_writes(view, mount, checkpoints, tmp_path):
    copied, written = tmp_path / "copied", tmp_path / "written"
    with mount(view) as path:
        subprocess.run(["cp", "-r", path, copied], check=True)
    ckptfs.run("materialize", *view(checkpoints), "--out", written)

    copied_files, written_files = files_below(copied), files_below(written)
    assert copied_files.keys() == written_files.keys()
    assert [
        name for name in copied_files
        if not filecmp.cmp(copied_files[name], written_files[name], shallow=False)
    ] == []
