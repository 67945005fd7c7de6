"""Secrets that are changed while functions run: those that asked for it (`rotation: live`) get them without a redeploy.

The stores of secrets tell nobody when something is changed in them, so they are looked at from time to time, for all
functions of the nexlet one after another; each does what is to be done for itself (`Function.renew_secrets`). In one
look a secret is read once, however many functions have it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import structlog
from pydantic import SecretStr

from nexlet_functions.functions.environment import Secrets
from nexlet_functions.functions.function import Function

__all__ = ["watch_secrets"]

_log = structlog.stdlib.get_logger("nexlet_functions.functions")


async def watch_secrets(functions: Callable[[], Iterable[Function]], secrets: Secrets, *, interval: float) -> None:
    """Look for changed secrets until cancelled.

    Args:
        functions: those that are here.
        secrets: where they come from.
        interval: seconds between two looks.
    """
    while True:
        await asyncio.sleep(interval)
        look = _Look(secrets)
        for function in [one for one in functions() if one.start_request.rotation == "live"]:
            try:
                await function.renew_secrets(look)
            except Exception:  # noqa: BLE001  # one function's, or one store's: the others are looked after
                _log.exception("looking at the secrets of a function failed", workload_id=function.workload_id)


class _Look:
    """What the stores had of each secret when it was first asked for. Implements `Secrets`."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets
        self._read: dict[tuple[str, str], asyncio.Task[SecretStr]] = {}

    async def get_namespace_secret(self, namespace: str, key: str) -> SecretStr:
        """See `Secrets`. That there is none is remembered as well."""
        reading = self._read.get((namespace, key))
        if reading is None:
            reading = self._read[namespace, key] = asyncio.ensure_future(
                self._secrets.get_namespace_secret(namespace, key)
            )
        return await reading
