"""How sources at URLs are read."""

from __future__ import annotations

import os

from ckptfs import _native

StrPath = str | os.PathLike[str]

_arguments: list[str] = []


def network(*, allow_unpinned: bool = False, allow_http: bool = False, network_timeout: int = 60,
            block_cache: StrPath | None = None, block_cache_size: int | str | None = None,
            pinned: StrPath | None = None) -> None:
    """Chooses how views read sources at URLs: those that are made from now on, in this process and in mounts.

    The arguments are the flags of these names. Nothing is kept on disk without `block_cache`, but by mounts.
    """
    if network_timeout < 1:
        raise ValueError(f"network_timeout: a number of seconds is expected, not {network_timeout!r}")
    # A mount may have another working directory.
    paths = {name: os.path.abspath(os.fspath(path))
             for name, path in [("block_cache", block_cache), ("pinned", pinned)] if path is not None}
    size = None if block_cache_size is None else str(block_cache_size)
    _native.network(allow_unpinned=allow_unpinned, allow_http=allow_http, network_timeout=network_timeout,
                    block_cache=paths.get("block_cache"), block_cache_size=size, pinned=paths.get("pinned"))
    given = {"network_timeout": str(network_timeout), "block_cache_size": size, **paths}
    switches = [name for name, on in [("allow_unpinned", allow_unpinned), ("allow_http", allow_http)] if on]
    _arguments[:] = [_flag(name) for name in switches]
    _arguments.extend(f"{_flag(name)}={value}" for name, value in given.items() if value is not None)


def arguments() -> list[str]:
    """What says the same to the program."""
    return list(_arguments)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
