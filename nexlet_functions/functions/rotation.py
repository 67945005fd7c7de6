"""Secrets that are changed while functions run: those that asked for it (`rotation: live`) get them without a redeploy.

The stores of secrets tell nobody when something is changed in them, so they are looked at from time to time, for all
functions of the nexlet one after another (`watch_secrets`). In one look a secret is read once, however many functions
have it. `Rotation` is one function's part: where a value is another, workers that have it take over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog
from pydantic import SecretStr

from nexlet_functions.functions.environment import Secrets, open_environment
from nexlet_functions.functions.keys import CurveKey
from nexlet_functions.functions.refusals import Refusal
from nexlet_models.start_request import StartRequest
from nexlet_sandboxes.outcomes import LoadRefused, SandboxError
from nexlet_sandboxes.pool import Pool

if TYPE_CHECKING:
    from nexlet_functions.functions.function import Function

__all__ = ["Rotation", "watch_secrets"]

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


class Rotation:
    """How one function comes by the secrets that there are now.

    Attributes:
        trouble: why it has not those that there are now; "" where it has.
    """

    def __init__(
        self, start: StartRequest, namespace: str, *, key: CurveKey, log: structlog.stdlib.BoundLogger
    ) -> None:
        """It has those that it starts with.

        Args:
            namespace: whose secrets they are.
            key: what environments are sealed to.
        """
        self.trouble = ""
        self._start = start
        self._namespace = namespace
        self._key = key
        self._log = log
        self._not_loaded: dict[str, str] | None = None

    async def renew(self, pool: Pool, secrets: Secrets) -> None:
        """Where a secret is another than it was, let workers with the new values take over.

        Where that cannot be done the ones it has go on with what they have, and `trouble` says why.
        """
        try:
            opened = await open_environment(self._start, self._namespace, secrets=secrets, key=self._key)
            values = {name: value.get_secret_value() for name, value in opened.items()}
            before = pool.program.environment
            if values not in (before, self._not_loaded):
                self._not_loaded = values
                await pool.renew(replace(pool.program, environment=values))
                changed = sorted(name for name in values if values[name] != before.get(name))
                self._not_loaded = None
                self._log.info("secrets renewed", variables=changed)
            elif values != before:
                return  # tried before; it costs a worker each time
        except Refusal as refusal:
            self._not_renewed(refusal.problems[0].message)
        except LoadRefused:
            # What it raised may have the new value in it.
            self._not_renewed("it does not load with the new values: deploy it anew to see why")
        except SandboxError as error:
            self._not_loaded = None
            self._not_renewed(f"no worker could be made: {error}")
        else:
            self.trouble = ""

    def _not_renewed(self, reason: str) -> None:
        if reason != self.trouble:
            self._log.warning("secrets not renewed", reason=reason, consequence="it goes on with those it has")
        self.trouble = reason
