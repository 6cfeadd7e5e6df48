"""A plugin of vLLM: `--load-format ckptfs` reads the weights of a view in vLLM's own processes.

The model is a stub: `ckptfs plan … --emit-stub DIR`, or `View.write_stub`.
"""

from __future__ import annotations


def register() -> None:
    """Registers the load format. vLLM calls this in each of its processes."""
    from vllm.model_executor.model_loader import register_model_loader

    from ckptfs._vllm import Loader

    register_model_loader("ckptfs")(Loader)
