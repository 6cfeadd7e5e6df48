"""The exception of this package."""

from __future__ import annotations


class Error(Exception):
    """A view cannot be planned, read, written or mounted.

    `code` is stable, and docs/TROUBLESHOOTING.md has an entry for each. `file` and `tensor` are what it
    is about, and `hint` what to do; None where there is no such thing.
    """

    def __init__(self, message: str, code: str = "internal", file: str | None = None,
                 tensor: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.file = file
        self.tensor = tensor
        self.hint = hint

    def __str__(self) -> str:
        return f"[{self.code}] {self.args[0]}"

    def __reduce__(self) -> tuple[type[Error], tuple[str, str, str | None, str | None, str | None]]:
        return type(self), (self.args[0], self.code, self.file, self.tensor, self.hint)
