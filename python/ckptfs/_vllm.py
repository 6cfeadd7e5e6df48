"""The loader of vLLM for views. Imports vLLM: nothing else imports this."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from vllm.model_executor.model_loader.default_loader import DefaultModelLoader
from vllm.model_executor.model_loader.ep_weight_filter import should_skip_weight

from ckptfs._error import Error
from ckptfs._lazy import LazyTensor
from ckptfs._view import View

# In a stub, and in a mount.
RECIPES = ["ckptfs.yml", ".ckptfs/recipe.yml"]


class Loader(DefaultModelLoader):
    """Gives vLLM tensors that are read when it copies them; where it takes a slice of one, as ranks of
    tensor parallelism do, only that is read.

    `model_loader_extra_config={"threads": N}` says how many threads read.
    """

    def __init__(self, load_config: Any) -> None:
        extra = dict(load_config.model_loader_extra_config or {})
        self.threads = extra.pop("threads", None)
        super().__init__(replace(load_config, model_loader_extra_config=extra))

    def download_model(self, model_config: Any) -> None:
        """A stub is on this machine, or nowhere."""

    def _get_weights_iterator(self, source: Any) -> Iterator[tuple[str, Any]]:
        directory = os.path.join(source.model_or_path, source.subfolder or "")
        recipes = [os.path.join(directory, name) for name in RECIPES]
        recipe = next(filter(os.path.isfile, recipes), None)
        if recipe is None:
            raise Error(f"{directory}: this is no stub and no mount: there is no {' and no '.join(RECIPES)}",
                        "not-found", file=directory, hint="write a stub with `ckptfs plan … --emit-stub DIR`")
        tensors = View(recipe=recipe).tensors(threads=self.threads)
        if self.counter_before_loading_weights == 0.0:  # type: ignore[has-type]
            self.counter_before_loading_weights = time.perf_counter()
        for name in tensors.offset_keys():
            if should_skip_weight(name, self.local_expert_ids):
                continue
            if source.is_unused_weight is not None and source.is_unused_weight(name):
                continue
            yield source.prefix + name, LazyTensor(tensors.get_slice(name))
