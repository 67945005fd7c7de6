"""Secrets that are changed while functions run: those that asked for it (`rotation: live`) get them without a redeploy.

The stores of secrets tell nobody when something is changed in them, so they are looked at from time to time, for all
functions of the nexlet one after another; each does what is to be done for itself (`Function.renew_secrets`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import structlog

from nexlet_functions.functions.function import Function

__all__ = ["watch_secrets"]

_log = structlog.stdlib.get_logger("nexlet_functions.functions")


async def watch_secrets(functions: Callable[[], Iterable[Function]], *, interval: float) -> None:
    """Look for changed secrets until cancelled.

    Args:
        functions: those that are here.
        interval: seconds between two looks.
    """
    while True:
        await asyncio.sleep(interval)
        for function in tuple(functions()):
            try:
                await function.renew_secrets()
            except Exception:  # noqa: BLE001  # one function's, or one store's: the others are looked after
                _log.exception("looking at the secrets of a function failed", workload_id=function.workload_id)
