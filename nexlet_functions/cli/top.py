"""`top`: how all functions of a namespace fare, live.

What is shown is made of two things, see `activity`: the events about invocations, as they come, and what nodes and
nexlets list when they are asked, every now and then. Where one of them cannot be had, the other one does, and the line
above the table says what is missing.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from nexlet_functions.cli.activity import Activity, Row
from nexlet_functions.cli.nodes import EVERYWHERE, Namespace, Nodes, Session, session
from nexlet_functions.cli.options import CREDENTIALS, Form, Json, Workloads, duration, setting_flags
from nexlet_functions.cli.output import Output, has_screen, styled
from nexlet_functions.cli.own_log import set_up_logging

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from nexlet_models.workloads import WorkloadSummary

__all__ = ["Sort", "top"]

REFRESH: Final = 0.5
"""Seconds between two pictures on a terminal."""

WITH_IDS: Final = 120
"""Columns of a terminal from which on there is room for ids."""


class Sort(enum.StrEnum):
    """What comes first."""

    NAME = "name"
    RATE = "rate"
    P99 = "p99"
    ERRORS = "errors"


_ORDERS: Final[Mapping[Sort, Callable[[Row], float]]] = {
    Sort.NAME: lambda row: 0,  # as they are
    Sort.RATE: lambda row: -row.rate,
    Sort.P99: lambda row: -(row.p99_ms or 0),
    Sort.ERRORS: lambda row: -row.errors,
}


@setting_flags(NATS=CREDENTIALS)
def top(
    workloads: Workloads = None,
    *,
    once: Annotated[
        bool, typer.Option("--once", envvar="NEXFN_ONCE", help="Watch for one interval, show the table and end.")
    ] = False,
    interval: Annotated[
        str,
        typer.Option(
            "--interval",
            envvar="NEXFN_INTERVAL",
            metavar="DURATION",
            help="How often nexlets are asked, and a pipe gets figures.",
        ),
    ] = "2s",
    sort: Annotated[
        Sort,
        typer.Option("--sort", envvar="NEXFN_SORT", metavar="name|rate|p99|errors", help="What comes first."),
    ] = Sort.NAME,
    namespace: Namespace = EVERYWHERE,
    nodes: Nodes = None,
    format: Annotated[  # noqa: A002  # the option's name
        Form | None,
        typer.Option(
            envvar="NEXFN_FORMAT",
            metavar="text|json",
            help="Goes before --json and --text.",
            show_default=False,
        ),
    ] = None,
    json: Json = None,
    flags: Mapping[str, object],
) -> None:
    """Show how functions fare, live: rate, run times, errors, what is in flight, workers and the last outcome.

    All of the namespace, or those of that name or id. A rate is of the last 10 seconds; run times (median and 99th
    percentile) and errors are of the last minute, from when the command began. Ctrl-C ends it.
    """
    from nexlet_functions.cli.running import run_until_signalled

    set_up_logging(level="error")
    output = Output(json=json if format is None else format is Form.JSON)
    seconds = duration(interval, "--interval")
    wanted = frozenset(workloads or ())

    async def watch(asked: asyncio.Event) -> bool:
        async with session("top", namespace, flags, nodes=nodes) as to:
            watching = _Top(to, output, wanted, sort, seconds)
            await watching.begin()
            if once:
                await watching.once()
            elif has_screen(output):
                await watching.show()
            else:
                await watching.write()
        return True

    run_until_signalled(watch, on_signal=lambda: None)


class _Top:
    """One run of the command; the sink of the event feed."""

    def __init__(self, to: Session, output: Output, wanted: frozenset[str], sort: Sort, interval: float) -> None:
        self._to = to
        self._output = output
        self._wanted = wanted
        self._order = _ORDERS[sort]
        self._interval = interval
        self._activity = Activity()
        self._clock = asyncio.get_running_loop().time
        self._look = asyncio.Event()
        self._deaf = ""  # why there are no events
        self._blind = ""  # why the latest list did not come

    async def begin(self) -> None:
        """Subscribe, and see what is there.

        Raises:
            UnknownWorkload: what is wanted is not.
        """
        from nexlet_functions.natsio.errors import SubscriptionRefused
        from nexlet_functions.shipping import choose
        from nexlet_models import subjects

        try:
            await self._to.listen(subjects.all_events, self)
        except SubscriptionRefused as refused:
            self._deaf = str(refused).splitlines()[0]
        running = await self._to.workloads()
        for each in sorted(self._wanted):
            choose(each, running, self._to.namespace)
        self._learn(running)

    # --- what comes ------------------------------------------------------------------------------------------------

    def message(self, subject: str, reply: str, payload: bytes, headers: bytes) -> None:
        """See `nexlet_functions.natsio.MessageSink`."""
        from nexlet_models.errors import MalformedMessage
        from nexlet_models.events import EventName, WorkloadStoppedEvent, WorkloadTriggeredEvent

        name = subject.rpartition(".")[2]
        try:
            if name == EventName.WORKLOAD_TRIGGERED:
                triggered = WorkloadTriggeredEvent.from_json(payload)
                if self._is_ours(triggered.namespace):
                    self._activity.observe(triggered, self._clock())
                    if self._activity.unknown:
                        self._look.set()
            elif name == EventName.WORKLOAD_STOPPED:
                stopped = WorkloadStoppedEvent.from_json(payload)
                if self._is_ours(stopped.namespace):
                    self._activity.stopped(stopped, self._clock())
            elif name == EventName.WORKLOAD_STARTED:
                self._look.set()
        except MalformedMessage:
            pass  # another program's event, which nobody can mend from here

    def _is_ours(self, namespace: str) -> bool:
        return self._to.namespace in (EVERYWHERE, namespace)

    def _learn(self, running: Sequence[WorkloadSummary]) -> None:
        self._activity.learn(running, self._clock())

    async def _ask(self) -> None:
        """Ask what runs. Nodes that are not there for a while are no reason to end."""
        import nats.errors

        from nexlet_functions.errors import NexletFunctionsError

        try:
            self._learn(await self._to.workloads())
            self._blind = ""
        except (NexletFunctionsError, nats.errors.Error) as error:
            self._blind = str(error).partition("\n")[0]

    async def _keep_asking(self) -> None:
        """Ask every interval, and soon after something was heard of that is not known."""
        while True:
            # Before it is asked: what is heard of while nodes answer may not be in their answers.
            self._look.clear()
            await self._ask()
            try:
                async with asyncio.timeout(self._interval):
                    await self._look.wait()
                    await asyncio.sleep(self._interval / 4)  # several may come together
            except TimeoutError:
                pass

    # --- what is shown ---------------------------------------------------------------------------------------------

    def _rows(self) -> list[Row]:
        rows = self._activity.rows(self._clock())
        wanted = [row for row in rows if not self._wanted or row.id in self._wanted or row.name in self._wanted]
        return sorted(wanted, key=self._order)

    async def once(self) -> None:
        """Watch for an interval, and show what there was."""
        await asyncio.sleep(self._interval)
        await self._ask()
        self._write(self._rows())

    async def write(self) -> None:
        """Go on writing, each time all that there is."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_asking())
            while True:
                await asyncio.sleep(self._interval)
                self._write(self._rows())

    def _write(self, rows: Sequence[Row]) -> None:
        if self._output.json:
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            for row in rows:
                self._output.record("function", time=now, **row.fields())
            for text in filter(None, (self._deaf, self._blind)):
                self._output.record("incomplete", time=now, reason=text)
            return
        from rich.measure import Measurement

        from nexlet_functions.cli.activity_table import table

        self._output.record("top", self._headline(rows))
        if rows:
            console, made = self._output.console, table(rows, namespaces=self._to.namespace == EVERYWHERE)
            # As wide as it is: where there is no terminal, there is no edge.
            options = console.options.update(max_width=10_000)
            console.print(made, width=Measurement.get(console, options, made).maximum, crop=False)

    async def show(self) -> None:
        """The table on the whole of a terminal, until the task is cancelled."""
        from rich.live import Live

        console = self._output.console
        with Live(self._picture(), console=console, screen=True, auto_refresh=False) as live:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._keep_asking())
                while True:
                    await asyncio.sleep(REFRESH)
                    live.update(self._picture(), refresh=True)

    def _picture(self) -> RenderableType:
        from rich.console import Group

        from nexlet_functions.cli.activity_table import table

        rows, console = self._rows(), self._output.console
        made = table(rows, namespaces=self._to.namespace == EVERYWHERE, ids=console.width >= WITH_IDS)
        return Group(*self._headline(rows), styled(("Ctrl-C ends it", "dim")), "", made)

    def _headline(self, rows: Sequence[Row]) -> list[Text]:
        where = "all namespaces" if self._to.namespace == EVERYWHERE else f"namespace {self._to.namespace}"
        errors = sum(row.errors for row in rows)
        parts: list[Any] = [
            (f"{datetime.now().astimezone():%H:%M:%S}  ", "dim"),
            f"{where}: {len(rows)} function{'' if len(rows) == 1 else 's'}",
            f", {sum(row.rate for row in rows):.1f}/s",
            (f", {errors} errors in the last minute", "red") if errors else ", no errors in the last minute",
        ]
        missing = [
            styled((f"{what}: {why}", "yellow"))
            for what, why in (("without events", self._deaf), ("nodes do not answer", self._blind))
            if why
        ]
        return [styled(*parts), *missing]
