"""`time.sleep` that ends with the invocation's deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nexlet_sandboxes.language.host import Host

__all__ = ["sleeper"]


def sleeper(host: Host) -> Callable[[float], None]:
    """The `sleep` of the functions that this host serves."""

    def sleep(seconds: float, /) -> None:
        """Sleeps for a number of seconds, but not beyond the deadline of the invocation.

        Raises:
            TimeoutError: the deadline came first.
            ValueError: seconds is negative or not a number.
        """
        if not isinstance(seconds, int | float):
            raise TypeError(f"sleep() needs a number of seconds, not {type(seconds).__name__}")
        asked = float(seconds)
        if not asked >= 0:
            raise ValueError("sleep length must not be negative")
        left = host.remaining()
        if asked < left:
            time.sleep(asked)
            return
        time.sleep(max(left, 0.0))
        raise TimeoutError(f"sleep({asked:g}) reached the deadline")

    return sleep
