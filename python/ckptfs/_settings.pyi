# Made by python/tests/settings_stub.py.
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
    like: _Path | Iterable[_Path] | None
    set: str | Iterable[str] | Mapping[str, Any] | None
    unset: str | Iterable[str] | Mapping[str, Any] | None
    promote: str | Iterable[str] | Mapping[str, Any] | None
    keep: str | Iterable[str] | Mapping[str, Any] | None
    add_file: str | Iterable[str] | Mapping[str, _Path] | None
    drop_file: str | Iterable[str] | Mapping[str, Any] | None
    untie: bool | None
    tie: bool | None
    lora: _Path | tuple[_Path, float] | Iterable[_Path | tuple[_Path, float]] | Mapping[str, float] | None
    lora_experts: str | None
    extra: _Path | Iterable[_Path] | None
    graft: _Path | Iterable[_Path | tuple[_Path, str]] | Mapping[_Path, str] | None
    names: str | None
    rename: str | Iterable[str] | Mapping[str, Any] | None
    only: str | Iterable[str] | Mapping[str, Any] | None
    drop: str | Iterable[str] | Mapping[str, Any] | None
    cast: str | Iterable[str] | Mapping[str, Any] | None
    dtype: Any | None
    vocab_size: int | None
    vocab_multiple: int | None
    vocab_pad: str | None
    unfuse_experts: bool | str | Iterable[str] | None
    fuse_experts: bool | str | Iterable[str] | None
    linear_attention: str | None
    quantize: str | None
    dialect: str | None
    fp8: bool | None
    quantize_rules: str | None
    fp8_rules: str | None
    reference: _Path | Iterable[_Path] | None
    quantize_pattern: str | Iterable[str] | Mapping[str, Any] | None
    fp8_pattern: str | Iterable[str] | Mapping[str, Any] | None
    scale_fmt: str | None
    partial_blocks: str | None
    allow_rounding: bool | None
    gguf: str | None
    gguf_type: str | Iterable[str] | Mapping[str, Any] | None
    gguf_split: str | None
    gguf_pre: str | None
    imatrix: _Path | None
    shards: str | None
