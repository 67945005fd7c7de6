"""`logs`: what functions print and log, as it comes off the feeds.

A feed keeps nothing, so that what is shown begins when the command does. A name goes on being followed when another
workload takes its place: who a line is from is looked up when an id is new.
"""

from __future__ import annotations

import asyncio
import enum
import json as json_
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from nexlet_functions.cli.exits import CommandFailed
from nexlet_functions.cli.nodes import EVERYWHERE, Namespace, Nodes, Session, session
from nexlet_functions.cli.options import CREDENTIALS, Json, Workloads, duration, setting_flags
from nexlet_functions.cli.output import Output, styled
from nexlet_functions.cli.own_log import set_up_logging
from nexlet_functions.errors import NexletFunctionsError
from nexlet_models.events import INVOCATION_HEADER

if TYPE_CHECKING:
    from nexlet_models.workloads import WorkloadSummary

__all__ = ["Level", "Stream", "logs"]


class Level(enum.StrEnum):
    """The levels of `context.log`, in their order."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


class Stream(enum.StrEnum):
    """What a line was written to."""

    STDOUT = "stdout"
    STDERR = "stderr"


_ORDER: Final = {level.value: number for number, level in enumerate(Level)}
_WAITING: Final = 1000
"""Lines that are kept while it is looked up whose they are."""

AGAIN: Final = 1.0
"""Seconds until nodes are asked once more that could not be asked: one is started anew, or the server is."""

ANEW: Final = 10.0
"""Seconds after which an id that nobody knew is looked up once more: its node may have answered too late."""


@setting_flags(NATS=CREDENTIALS)
def logs(
    workloads: Workloads = None,
    *,
    level: Annotated[
        Level,
        typer.Option(
            "--level",
            "-l",
            envvar="NEXFN_LEVEL",
            metavar="LEVEL",
            help="Lowest level: debug, info, warning, error, critical. Print is info, stderr is error.",
        ),
    ] = Level.DEBUG,
    invocation: Annotated[
        str | None,
        typer.Option(
            "--invocation",
            "-i",
            envvar="NEXFN_INVOCATION",
            metavar="ID",
            help="Lines of this invocation: what it printed and logged, and what became of it.",
        ),
    ] = None,
    stream: Annotated[
        Stream | None,
        typer.Option("--stream", envvar="NEXFN_STREAM", metavar="stdout|stderr", help="Lines of this stream alone."),
    ] = None,
    follow: Annotated[  # whoever types it expects what is done anyway
        bool,
        typer.Option(
            "--follow", "-f", envvar="NEXFN_FOLLOW", hidden=True, help="Until Ctrl-C, which is what it does anyway."
        ),
    ] = True,
    count: Annotated[
        int | None,
        typer.Option("--count", envvar="NEXFN_COUNT", min=1, metavar="N", help="End after so many lines."),
    ] = None,
    period: Annotated[
        str | None,
        typer.Option("--for", envvar="NEXFN_FOR", metavar="DURATION", help="End after this time; else at Ctrl-C."),
    ] = None,
    namespace: Namespace = EVERYWHERE,
    nodes: Nodes = None,
    json: Json = None,
    flags: Mapping[str, object],
) -> None:
    """Follow what functions print and log, from now on: nothing keeps what was logged before.

    Of all functions, or of those of that name or id; a name is followed on when the function is replaced.
    """
    from nexlet_functions.cli.running import run_until_signalled

    set_up_logging(level="error")
    seconds = duration(period, "--for") if period is not None else None
    wanted = tuple(workloads or ())

    async def until_asked(asked: asyncio.Event) -> bool:
        async with session("logs", namespace, flags, nodes=nodes) as to:
            following = _Following(to, Output(json=json), wanted, _passes(level, invocation, stream), count)
            await following.begin()
            await following.until(asked, seconds)
        return True

    run_until_signalled(until_asked, on_signal=lambda: None)


class _Line:
    """One message of a log feed.

    Attributes:
        workload_id, stream: off its subject.
        invocation_id: off its header; None where it is of none.
        level, message, fields: of what `context.log` wrote; of anything else, what it amounts to.
    """

    def __init__(self, workload_id: str, stream: str, text: str, invocation_id: str | None) -> None:
        self.at = datetime.now(UTC)
        self.workload_id = workload_id
        self.stream = stream
        self.invocation_id = invocation_id
        self.level = "error" if stream == "stderr" else "info"
        self.message = text
        self.fields: dict[str, Any] = {}
        try:
            entry = json_.loads(text)
        except (ValueError, RecursionError):
            return
        if isinstance(entry, dict) and entry.get("level") in _ORDER and isinstance(entry.get("message"), str):
            self.level, self.message = entry.pop("level"), entry.pop("message")
            entry.pop("invocation_id", None)
            self.fields = entry


def _passes(level: Level, invocation: str | None, stream: Stream | None) -> Callable[[_Line], bool]:
    def passes(line: _Line) -> bool:
        return (
            _ORDER[line.level] >= _ORDER[level]
            and (stream is None or line.stream == stream)
            and (invocation is None or line.invocation_id == invocation)
        )

    return passes


class _Following:
    """Shows the lines that are wanted, and finds out whose they are."""

    def __init__(
        self,
        to: Session,
        output: Output,
        wanted: Sequence[str],
        passes: Callable[[_Line], bool],
        count: int | None,
    ) -> None:
        self._to = to
        self._output = output
        self._wanted = frozenset(wanted)
        self._passes = passes
        self._left = count
        self._enough = asyncio.Event()
        self._unread: Exception | None = None
        self._known: dict[str, WorkloadSummary] = {}
        self._elsewhere: dict[
            str, float
        ] = {}  # ids that are in none of the namespaces that we may look at, and since when
        self._clock = asyncio.get_running_loop().time
        self._waiting: deque[_Line] = deque(maxlen=_WAITING)
        self._look = asyncio.Event()
        self._width = 0

    async def begin(self) -> None:
        """Subscribe, and see that what is wanted is there. When this returns, nothing is missed.

        Raises:
            UnknownWorkload: it is not.
        """
        from nexlet_functions.shipping import choose
        from nexlet_models import subjects

        await self._to.listen(subjects.all_logs, self)
        running = await self._to.workloads()
        for each in sorted(self._wanted):
            choose(each, running, self._to.namespace)
        self._learn(running)
        self._output.record(
            "following",
            styled((f"following {', '.join(sorted(self._wanted)) or 'all functions'}; Ctrl-C ends it", "dim")),
            functions=[one.name for one in running if self._is_wanted(one)],
        )

    async def until(self, asked: asyncio.Event, seconds: float | None) -> None:
        """Follow until it is asked to end, the time is over, or there were lines enough.

        Raises:
            BrokenPipeError, CommandFailed: see `Output.record`.
        """
        looking = asyncio.ensure_future(self._keep_looking())
        ends = [asyncio.ensure_future(each.wait()) for each in (asked, self._enough)]
        try:
            await asyncio.wait([looking, *ends], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if looking.done():
                looking.result()
            if self._unread is not None:
                raise self._unread
        finally:
            for task in (looking, *ends):
                task.cancel()
            await asyncio.wait([looking, *ends])

    def message(self, subject: str, reply: str, payload: bytes, headers: bytes) -> None:
        """See `nexlet_functions.natsio.MessageSink`."""
        from nexlet_functions.natsio.protocol import decode_headers

        tokens = subject.split(".")
        if len(tokens) != 6 or self._is_elsewhere(tokens[4]):
            return
        invocation_id = decode_headers(headers).get(INVOCATION_HEADER)
        line = _Line(tokens[4], tokens[5], payload.decode("utf-8", "replace"), invocation_id)
        if not self._passes(line):
            return
        if self._waiting or line.workload_id not in self._known:
            self._waiting.append(line)  # behind those that came before it
            self._look.set()
        else:
            self._show(line)

    async def _keep_looking(self) -> None:
        while True:
            await self._look.wait()
            self._look.clear()
            if any(line.workload_id not in self._known for line in self._waiting):
                asked = {line.workload_id for line in self._waiting}
                try:
                    self._learn(await self._to.workloads())
                except NexletFunctionsError:  # they answered before; until they do again, what came waits
                    await asyncio.sleep(AGAIN)
                    self._look.set()
                    continue
                self._elsewhere |= dict.fromkeys(asked - self._known.keys(), self._clock())
            while self._waiting and (
                self._waiting[0].workload_id in self._known or self._waiting[0].workload_id in self._elsewhere
            ):
                line = self._waiting.popleft()
                if line.workload_id in self._known:
                    self._show(line)

    def _is_elsewhere(self, workload_id: str) -> bool:
        since = self._elsewhere.get(workload_id)
        if since is not None and self._clock() - since > ANEW:
            del self._elsewhere[workload_id]
            return False
        return since is not None

    def _learn(self, running: Sequence[WorkloadSummary]) -> None:
        self._known |= {one.id: one for one in running}
        self._width = max((len(one.name) for one in self._known.values() if self._is_wanted(one)), default=0)

    def _is_wanted(self, one: WorkloadSummary) -> bool:
        return not self._wanted or one.id in self._wanted or one.name in self._wanted

    def _show(self, line: _Line) -> None:
        of = self._known[line.workload_id]
        if not self._is_wanted(of) or self._enough.is_set():
            return
        try:
            self._record(line, of)
        except (
            OSError,
            CommandFailed,
        ) as error:  # raised here it would be taken for one about a message, and following would go on
            self._unread = error
            self._enough.set()
            return
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                self._enough.set()

    def _record(self, line: _Line, of: WorkloadSummary) -> None:
        first, *rest = line.message.splitlines() or [""]
        told = (f"{name}={each if isinstance(each, str) else json_.dumps(each)}" for name, each in line.fields.items())
        head = (f"{line.at.astimezone():%H:%M:%S}  ", f"{line.level:<8}  ", f"{of.name:<{self._width}}  ")
        indent = " " * sum(map(len, head))
        self._output.record(
            "log",
            [
                styled((head[0], "dim"), (head[1], _STYLES[line.level]), head[2], "  ".join([first, *told])),
                *(f"{indent}{each}" for each in rest),
            ],
            time=line.at.isoformat(timespec="milliseconds"),
            id=of.id,
            name=of.name,
            namespace=of.namespace,
            stream=line.stream,
            level=line.level,
            message=line.message,
            invocation_id=line.invocation_id,
            fields=line.fields or None,
        )


_STYLES: Final = {"debug": "dim", "info": "cyan", "warning": "yellow", "error": "red", "critical": "bold red"}
