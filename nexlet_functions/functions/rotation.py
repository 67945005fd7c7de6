"""Secrets that are changed while functions run: those that asked for it (`rotation: live`) get them without a redeploy.

The stores of secrets tell nobody when something is changed in them, so they are looked at from time to time, for all
functions of the nexlet one after another; each does what is to be done for itself (`Function.renew_secrets`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from nexlet_functions.functions.function import Function

__all__ = ["watch_secrets"]


async def watch_secrets(functions: Callable[[], Iterable[Function]], *, interval: float) -> None:
    """Look for changed secrets until cancelled.

    Args:
        functions: those that are here.
        interval: seconds between two looks.
    """
    while True:
        await asyncio.sleep(interval)
        for function in tuple(functions()):
            await function.renew_secrets()
