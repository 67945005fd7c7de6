"""`time.sleep` that ends with the invocation, at its deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from nexlet_sandboxes.language.host import Host

__all__ = ["LEEWAY", "sleeper"]

LEEWAY: Final = 1.0
"""Seconds after the deadline in which the worker is certain to be ended."""


def sleeper(host: Host) -> Callable[[float], None]:
    """The `sleep` of the functions that this host serves."""

    def sleep(seconds: float, /) -> None:
        """Sleeps for a number of seconds. At its deadline the invocation is ended from outside, asleep or not.

        Raises:
            TimeoutError: the deadline passed and nobody ended it.
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
        # Not woken at the deadline: the call would end as an error or as a timeout, by whoever is quicker.
        time.sleep(max(left, 0.0) + LEEWAY)
        raise TimeoutError(f"sleep({asked:g}) reached the deadline")

    return sleep
