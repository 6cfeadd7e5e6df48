"""Keyword arguments of a view, as the extension takes them."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ckptfs import _native

if TYPE_CHECKING:
    from ckptfs._native import Arguments

StrPath = str | os.PathLike[str]

# Arguments of a view that are no settings of operators.
_OTHERS = ["base", "recipe", "model", "shard_size", "repack", "no_repack", "single_file"]
_SHARDS = ["repack", "no_repack", "single_file"]
_KINDS: dict[str, tuple[str, str]] = {}


def _kinds() -> dict[str, tuple[str, str]]:
    """The kind of each argument, and what its values are called."""
    if not _KINDS:
        for name, kind, value, _choices, _help, former in _native.settings():
            _KINDS[name] = kind, value
            if former:
                _KINDS[former] = kind, value
    return _KINDS


def _names() -> dict[str, str]:
    """Former names of arguments, and the present ones."""
    return {former: name for name, *_, former in _native.settings() if former}


def arguments(base: StrPath | None, settings: dict[str, Any]) -> Arguments:
    """What the extension takes for `View(base, **settings)`.

    Raises TypeError for an argument that there is not, or whose value is of another type.
    """
    settings = {name: value for name, value in settings.items() if value is not None}
    for name in settings:
        if name not in _kinds() and name not in _OTHERS:
            near = difflib.get_close_matches(name, [*_kinds(), *_OTHERS], n=1)
            meant = f"; did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"View() got an unexpected keyword argument {name!r}{meant}")
    recipe = settings.pop("recipe", None)
    if (base is None) == (recipe is None):
        raise TypeError("View() takes a base or a recipe, and not both of them")
    model = settings.pop("model", {})
    if not isinstance(model, Mapping):
        raise TypeError(f"model: {{id: directory}} is expected, not {model!r}")
    shard_size = settings.pop("shard_size", None)
    shards = [word for word in _SHARDS if _switch(word, settings.pop(word, False))]
    if len(shards) > 1 or (shards and "shards" in settings):
        raise TypeError(f"{shards[0]} and {[*shards[1:], 'shards'][0]} exclude each other")
    former = _names()
    asked = []
    for name, value in settings.items():
        kind, called = _kinds()[name]
        asked += [(former.get(name, name), one) for one in _values(name, kind, called, value)]
    return {
        "base": None if base is None else os.fspath(base),
        "recipe": None if recipe is None else os.fspath(recipe),
        "models": [(str(name), os.fspath(path)) for name, path in model.items()],
        "asked": asked,
        "shards": shards[0] if shards else None,
        "shard_size": None if shard_size is None else str(shard_size),
    }


def _switch(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name}: True or False is expected, not {value!r}")
    return value


def _values(name: str, kind: str, called: str, value: Any) -> list[Any]:
    """The values that `value` is for an argument of this kind."""
    if kind == "switch":
        return [True] if _switch(name, value) else []
    if kind == "scope":
        if isinstance(value, bool):
            return [True] if value else []
        return [_text(name, "True or a regular expression", one) for one in _each(value)]
    if kind == "number":
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise TypeError(f"{name}: a whole number is expected, not {value!r}")
        return [value]
    if kind == "text":
        # dtype=torch.bfloat16 reads as well as dtype="bf16".
        text = str(value) if type(value).__module__ == "torch" else value
        if isinstance(text, str):
            text = text.removeprefix("torch.").replace("bfloat", "bf").replace("float", "f")
        return [_text(name, "a text", text)] if name == "dtype" else [_text(name, "a text", value)]
    if kind == "texts":
        if isinstance(value, Mapping):
            written = json.dumps if called.endswith("=JSON") else str
            return [f"{key}={written(one)}" for key, one in value.items()]
        return [_text(name, "a text or several", one) for one in _each(value)]
    if kind == "file":
        if not isinstance(value, (str, os.PathLike)):
            raise TypeError(f"{name}: a path is expected, not {value!r}")
        return [(os.fspath(value), None)]
    if kind == "files":
        if isinstance(value, Mapping):
            return [(str(key), os.fspath(path)) for key, path in value.items()]
        return [_text(name, "{name: path}", one) for one in _each(value)]
    return [_source(name, kind, one) for one in _sources(kind, value)]


def _text(name: str, expected: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name}: {expected} is expected, not {value!r}")
    return value


def _each(value: Any) -> Iterable[Any]:
    """The items of a list; a lone value is a list of one."""
    if isinstance(value, (str, bytes, os.PathLike)) or not isinstance(value, Iterable):
        return [value]
    return value


def _sources(kind: str, value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return list(value.items())
    if kind == "weighted" and _is_weighted(value):
        return [value]
    return _each(value)


def _is_weighted(value: object) -> bool:
    return (isinstance(value, tuple) and len(value) == 2
            and isinstance(value[1], (int, float)) and not isinstance(value[1], bool))


def _source(name: str, kind: str, value: Any) -> Any:
    """A text is as on a command line; a path object is a path, whatever characters it has."""
    if isinstance(value, str):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value), 1.0 if kind == "weighted" else None
    if kind == "weighted" and _is_weighted(value):
        return os.fspath(value[0]), float(value[1])
    if kind == "selective" and isinstance(value, tuple) and len(value) == 2:
        return os.fspath(value[0]), value[1]
    raise TypeError(f"{name}: a directory or several are expected, not {value!r}")
