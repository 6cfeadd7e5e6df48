"""Views."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from html import escape
from typing import TYPE_CHECKING, Any

from ckptfs import _native, _request
from ckptfs._file import ViewFile
from ckptfs._frameworks import framework as _framework
from ckptfs._mount import Mount
from ckptfs._tensors import Tensors

if TYPE_CHECKING:
    from ckptfs._settings import Settings
    from typing_extensions import Unpack

StrPath = str | os.PathLike[str]
Progress = Callable[[int, int, str], object]


class View:
    """A checkpoint that is computed from others when it is read.

    `base` is the directory (or file, or name in the cache of the hub) that it starts from; or `recipe` is
    a file that says all of it. Every flag of `ckptfs plan` is a keyword argument of the same name, with
    `_` for `-`:

    - a switch takes `True`: `fp8=True`, `untie=True`;
    - a choice, a text or a number takes one: `dtype="bf16"`, `vocab_multiple=64`;
    - what can be repeated takes one or a list: `extra=["a", "b"]`, `lora=("adapter", 0.5)`;
    - `NAME=VALUE` may be a dictionary: `rename={"^model": "language_model"}`, `set={"use_cache": False}`,
      `model={"org/model": "/models/model"}`.

    Raises TypeError for an argument that there is not, and `ckptfs.Error` for a view that cannot be.
    """

    def __init__(self, base: StrPath | None = None, **settings: Unpack[Settings]) -> None:
        self._native = _native.View(_request.arguments(base, dict(settings)))
        self._files = {os.fspath(path): length for path, length in self._native.files()}
        self._summary = str(base if base is not None else settings.get("recipe"))

    def plan(self, *, provenance: bool = False) -> dict[str, Any]:
        """What `ckptfs plan --json` prints: figures, shards, tensors, files and warnings.

        With `provenance`, also the sources and steps of each tensor.
        """
        return json.loads(self._native.plan(provenance))

    def recipe(self) -> str:
        """A recipe of this view, with absolute paths."""
        return self._native.recipe()

    @property
    def files(self) -> dict[str, int]:
        """All files, by path, with their lengths in bytes."""
        return dict(self._files)

    @property
    def shards(self) -> list[str]:
        """The files that hold tensors, in order."""
        return self._native.shards()

    @property
    def config(self) -> dict[str, Any]:
        """What config.json says."""
        with self.open("config.json") as file:
            return json.loads(file.readall())

    def open(self, name: StrPath) -> ViewFile:
        """A file of the view: binary, read-only and seekable. Raises FileNotFoundError if there is none."""
        path = os.fspath(name)
        if path not in self._files:
            raise FileNotFoundError(f"the view has no file {path}")
        return ViewFile(self._native, path, self._files[path])

    def safe_open(self, name: str, framework: str = "pt", device: Any = "cpu", *, mmap: bool = True) -> Tensors:
        """The tensors of one shard, as safetensors' `safe_open` of that file has them."""
        if name not in self.shards:
            raise FileNotFoundError(f"the view has no shard {name}")
        return Tensors(self, [name], _framework(framework), device, mmap=mmap)

    def tensors(self, framework: str = "pt", device: Any = "cpu", *, mmap: bool = True,
                threads: int | None = None) -> Tensors:
        """All tensors."""
        return Tensors(self, self.shards, _framework(framework), device, mmap=mmap, threads=threads)

    def mount(self, mountpoint: StrPath | None = None, *, arguments: tuple[str, ...] = ()) -> Mount:
        """`with view.mount() as path:` mounts the view on a temporary directory, or on `mountpoint`.

        `arguments` are further ones of `ckptfs mount`. The mount ends with the `with` block, and in any
        case with this process.
        """
        return Mount(self.recipe, mountpoint, arguments)

    def materialize(self, out: StrPath, *, overwrite: bool = False, hardlink: bool = False,
                    weights_only: bool = False, sha256: bool = False, check_space: bool = True,
                    threads: int | None = None, progress: Progress | None = None) -> dict[str, int]:
        """Writes the view to a directory or an object store (`s3://…`), as `ckptfs materialize` does.

        `progress(done, total, file)` is called now and then, with bytes; what it raises stops the work.
        A run that was stopped resumes when it is started again.
        """
        names = "files", "bytes", "linked", "linked_bytes", "kept", "kept_bytes"
        written = self._native.materialize(
            out, overwrite=overwrite, hardlink=hardlink, weights_only=weights_only, sha256=sha256,
            check_space=check_space, threads=threads, progress=progress)
        return dict(zip(names, written))

    def verify(self, out: StrPath, *, threads: int | None = None,
               progress: Progress | None = None) -> dict[str, Any]:
        """Compares the bytes of a directory with the view. `problems` has a text for each difference."""
        return json.loads(self._native.verify(out, threads, progress))

    def inspect(self, *, compare: str | Iterable[str] = (), threads: int | None = None,
                progress: Progress | None = None) -> dict[str, Any]:
        """What `ckptfs inspect --json` prints: the errors of quantization.

        `compare` is one or several schemes (`["fp8-block", "int4:group=32"]`); what the view would be in
        each is measured in one pass over the sources. The view must not have a scheme then.
        """
        schemes = [compare] if isinstance(compare, str) else list(compare)
        return json.loads(self._native.inspect(schemes, threads, progress))

    def write_stub(self, directory: StrPath) -> None:
        """Writes all files but the weights to a new directory, and the recipe as `ckptfs.yml`."""
        self._native.write_stub(directory)

    def __repr__(self) -> str:
        return f"<ckptfs.View of {self._summary}: {len(self.shards)} shards, {sum(self._files.values())} bytes>"

    def _repr_html_(self) -> str:
        plan = self.plan()
        figures = plan["figures"]
        rows = [("base", self._summary), ("tensors", figures["tensors"]), ("quantized", figures["quantized"]),
                ("unchanged", figures["kept"]), ("bytes of tensors", f"{figures['tensor_bytes']:,}")]
        shards = [(shard["name"], f"{len(shard['tensors'])} tensors, {shard['len']:,} bytes"
                   + (", as in the source" if shard["whole_file"] else "")) for shard in plan["shards"]]
        warnings = [(warning["code"], warning["text"]) for warning in plan["warnings"]]
        parts = [_table("ckptfs view", rows), _table("shards", shards)]
        parts += [_table("warnings", warnings)] if warnings else []
        return "".join(parts)


def _table(title: str, rows: list[tuple[Any, Any]]) -> str:
    cells = "".join(f"<tr><th>{escape(str(name))}</th><td>{escape(str(value))}</td></tr>" for name, value in rows)
    return f"<table><caption>{escape(title)}</caption>{cells}</table>"


def load_state_dict(view: View, *, device: Any = "cpu", threads: int | None = None, mmap: bool = True,
                    framework: str = "pt") -> dict[str, Any]:
    """All tensors of a view by name, each in its memory, computed and read in parallel."""
    return view.tensors(framework, device, mmap=mmap).load(threads=threads)


def verify(directory: StrPath, *, threads: int | None = None,
           progress: Progress | None = None) -> dict[str, Any]:
    """Checks the structure of a checkpoint directory or mount, as `ckptfs verify DIR` does."""
    return json.loads(_native.verify(directory, threads, progress))


def diff(a: View | StrPath, b: View | StrPath, *, values: bool = True, threads: int | None = None,
         progress: Progress | None = None) -> dict[str, Any]:
    """What `ckptfs diff --json` prints of two views or checkpoints. Without `values`, only names, dtypes and
    shapes of tensors are compared."""
    views = [side if isinstance(side, View) else _view_at(side) for side in (a, b)]
    return json.loads(_native.diff(views[0]._native, views[1]._native, values, threads, progress))


def _view_at(path: StrPath) -> View:
    """The view of a checkpoint, or of a recipe if `path` is such a file."""
    return View(recipe=path) if os.fspath(path).endswith((".yml", ".yaml")) else View(path)
