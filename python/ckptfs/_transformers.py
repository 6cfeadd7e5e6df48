"""Models of transformers from views."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ckptfs._view import View


def from_pretrained(model_class: Any, view: View, **kwargs: Any) -> Any:
    """`model_class.from_pretrained` of a view, whose tensors are read in this process.

    `model_class` is `AutoModelForCausalLM`, or any other class with such a method; `kwargs` are its own.
    """
    import torch
    from transformers import AutoConfig, GenerationConfig

    with tempfile.TemporaryDirectory(prefix="ckptfs-") as scratch:
        stub = os.path.join(scratch, "stub")
        view.write_stub(stub)
        trust = {"trust_remote_code": kwargs.pop("trust_remote_code", False)}
        config = kwargs.pop("config", None)
        config = AutoConfig.from_pretrained(stub, **trust) if config is None else config
        if hasattr(model_class, "from_config"):
            # Which class it stands for. On this device a model has shapes and no numbers.
            with torch.device("meta"):
                model_class = type(model_class.from_config(config, **trust))
        tensors = view.tensors()
        state = {name: tensors.get_slice(name) for name in tensors}
        model = model_class.from_pretrained(None, config=config, state_dict=state, **kwargs)
        if model.can_generate() and os.path.exists(os.path.join(stub, "generation_config.json")):
            model.generation_config = GenerationConfig.from_pretrained(stub)
        return model
