"""Types of the keyword arguments of a view, made from what the library says of its settings:

    python python/tests/settings_stub.py >python/ckptfs/_settings.pyi
"""

TYPES = {
    "switch": "bool",
    "scope": "bool | str | Iterable[str]",
    "number": "int",
    "text": "str",
    "texts": "str | Iterable[str] | Mapping[str, Any]",
    "file": "_Path",
    "files": "str | Iterable[str] | Mapping[str, _Path]",
    "sources": "_Path | Iterable[_Path]",
    "weighted": "_Path | tuple[_Path, float] | Iterable[_Path | tuple[_Path, float]] | Mapping[str, float]",
    "selective": "_Path | Iterable[_Path | tuple[_Path, str]] | Mapping[_Path, str]",
}
HEAD = '''# Made by python/tests/settings_stub.py.
import os
from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

_Path = str | os.PathLike[str]

class Settings(TypedDict, total=False):
    recipe: _Path | None
    model: Mapping[str, _Path] | None
    shard_size: int | str | None
    repack: bool | None
    no_repack: bool | None
    single_file: bool | None
'''


def stub(settings: list) -> str:
    lines = [HEAD]
    for name, kind, _value, _choices, _help, former in settings:
        # A dtype of torch says the same as its name.
        kind = "Any" if name == "dtype" else TYPES[kind]
        for argument in [name, former] if former else [name]:
            lines.append(f"    {argument}: {kind} | None\n")
    return "".join(lines)


if __name__ == "__main__":
    from ckptfs import _native

    print(stub(_native.settings()), end="")
