"""One nexlet's metrics and health, served at an address.

    /metrics   for Prometheus, as text or as OpenMetrics     /healthz   200 while it is alive, else 503
                                                             /readyz    200 while it is ready, else 503

Needs the extra `metrics` (prometheus-client for the format, h11 for HTTP): an operator who serves none of it does
without both.
"""

from __future__ import annotations

import asyncio
import importlib.util
import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Self

import orjson
import structlog

from nexlet_functions.functions.agent import FunctionAgent
from nexlet_functions.observing.extras import ExtraMissing
from nexlet_functions.observing.figures import NexletFigures
from nexlet_functions.observing.health import Health, liveness, readiness
from nexlet_functions.observing.listening import Address, listen
from nexlet_functions.runner.runner import Runner
from nexlet_sandboxes.zygote import Zygote

if TYPE_CHECKING:
    from nexlet_functions.observing.http import Page, PageServer

__all__ = ["Status", "claim"]

_log = structlog.stdlib.get_logger("nexlet_functions.observing")


def claim(address: Address) -> socket.socket:
    """Take the address, before anything else is started: nobody is answered yet.

    Raises:
        ExtraMissing: the packages are not there.
        AddressUnusable: see `listen`.
    """
    missing = [name for name in ("prometheus_client", "h11") if importlib.util.find_spec(name) is None]
    if missing:
        raise ExtraMissing("metrics", " and ".join(missing), "metrics")
    return listen(address)


class Status:
    """Serves the pages. Make it with `start`, and close it."""

    def __init__(
        self, runner: Runner, zygote: Zygote, figures: NexletFigures, agent: Callable[[], FunctionAgent | None]
    ) -> None:
        self._runner = runner
        self._zygote = zygote
        self._figures = figures
        self._agent = agent
        self._server: PageServer | None = None
        self._scraping = asyncio.Lock()

    @classmethod
    async def start(
        cls,
        listening: socket.socket,
        *,
        runner: Runner,
        zygote: Zygote,
        figures: NexletFigures,
        agent: Callable[[], FunctionAgent | None],
    ) -> Self:
        """Serve on a socket that `claim` made.

        Args:
            agent: there is none before the runner has made it.
        """
        from nexlet_functions.observing.http import PageServer  # needs the extra

        status = cls(runner, zygote, figures, agent)
        pages = {"/metrics": status._metrics, "/healthz": status._healthz, "/readyz": status._readyz}
        status._server = await PageServer.start(listening, pages)
        _log.info("metrics and health are served", address=str(status.address), pages=sorted(pages))
        return status

    @property
    def address(self) -> Address:
        """Where it serves."""
        assert self._server is not None, "it was started"
        return self._server.address

    async def close(self) -> None:
        """End."""
        if self._server is not None:
            await self._server.close()

    async def _metrics(self, headers: Mapping[str, str]) -> Page:
        from nexlet_functions.observing.http import Page
        from nexlet_functions.observing.prometheus import exposition

        # One after another: what many scrapers ask for at once must not fill the executor.
        async with self._scraping:
            ready = readiness(self._runner, self._zygote).well
            figures = await self._figures.read(agent=self._agent(), ready=ready)
            content_type, body = await asyncio.to_thread(exposition, figures, headers.get("accept", ""))
        return Page(200, content_type, body)

    async def _healthz(self, _: Mapping[str, str]) -> Page:
        return _page("alive", liveness(self._zygote))

    async def _readyz(self, _: Mapping[str, str]) -> Page:
        return _page("ready", readiness(self._runner, self._zygote))


def _page(what: str, health: Health) -> Page:
    from nexlet_functions.observing.http import Page

    body = {what: health.well, "reasons": health.reasons, **health.facts}
    return Page(200 if health.well else 503, "application/json", orjson.dumps(body) + b"\n")
