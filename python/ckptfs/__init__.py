"""Views of checkpoints, without a mount and with one.

    import ckptfs

    view = ckptfs.View("models/base", fp8=True)
    state = ckptfs.load_state_dict(view)

A `View` is planned when it is made: names, shapes, dtypes, files and sizes are known then. Bytes are
computed when they are read.
"""

from ckptfs._error import Error
from ckptfs._native import VERSION as __version__
from ckptfs._mount import Mount
from ckptfs._network import network
from ckptfs._tensors import Slice, Tensors
from ckptfs._transformers import from_pretrained
from ckptfs._view import View, diff, load_state_dict, verify

__all__ = [
    "Error",
    "Mount",
    "Slice",
    "Tensors",
    "View",
    "__version__",
    "diff",
    "from_pretrained",
    "load_state_dict",
    "network",
    "verify",
]
