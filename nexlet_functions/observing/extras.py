"""What is only there with an extra, and the word to whoever asks for it without."""

from __future__ import annotations

from nexlet_functions.errors import NexletFunctionsError

__all__ = ["ExtraMissing"]


class ExtraMissing(NexletFunctionsError):
    """What a setting asks for needs packages that are not installed. The message says which, and how to get them."""

    code = "extra-missing"

    def __init__(self, setting: str, missing: str, extra: str) -> None:
        super().__init__(
            f"--{setting} needs {missing}, which is not installed here: install 'nexlet-functions[{extra}]'"
        )
