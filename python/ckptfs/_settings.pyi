import os
from typing import Any, TypedDict
class Settings(TypedDict, total=False):
    recipe: str | os.PathLike[str] | None
    fp8: bool | None
