"""How the functions of `nexfn dev` fare, beside what happens: a table on a terminal, lines anywhere else.

On a terminal the table stands above the latest lines of the log, and older lines go up into the terminal's own history,
where they can be read when all is over. In a pipe there is a line for each function now and then, where something was
invoked since the last time. What both show is `nexlet_functions.cli.activity`, as in `nexfn top`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from nexlet_functions.cli.activity import Activity, Row
from nexlet_functions.cli.activity_table import cells, table
from nexlet_functions.cli.output import Output, has_screen, styled
from nexlet_models.workloads import WorkloadState

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from nexlet_functions.cli.watching import Watch
    from nexlet_functions.control import ControlClient

__all__ = ["Board"]

REFRESH: Final = 0.25
"""Seconds between two pictures on a terminal."""

LIST_EVERY: Final = 1.0
"""Seconds between two questions for what is in flight, on a terminal."""

WAITING_LINES: Final = 500
"""Lines of the log that wait for the next picture; of more than that, the oldest are left out and counted."""

_LEFT: Final = frozenset({WorkloadState.STOPPING.value, WorkloadState.STOPPED.value})


class Board:
    """Shows it for as long as `keep` runs."""

    def __init__(self, output: Output, control: ControlClient, watch: Watch, *, interval: float) -> None:
        """Nothing is shown yet.

        Args:
            control: is asked for what nexlets count: what is in flight, and the names of what others deploy.
            watch: tells of invocations; is told the names.
            interval: seconds between two accounts in a pipe.
        """
        self._output = output
        self._control = control
        self._watch = watch
        self._interval = interval
        self._activity: Activity = watch.activity
        self._clock = asyncio.get_running_loop().time
        self._lines: deque[Text] = deque(maxlen=WAITING_LINES)
        self._left_out = 0
        self._recent: deque[Text] = deque()

    async def keep(self) -> None:
        """Show it until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            if has_screen(self._output):
                tasks.create_task(self._learn_always())
                tasks.create_task(self._show())
            else:
                tasks.create_task(self._learn_when_new())
                tasks.create_task(self._account())

    # --- what nexlets count ----------------------------------------------------------------------------------------

    async def _learn(self) -> None:
        import nats.errors

        from nexlet_functions.errors import NexletFunctionsError

        try:
            summaries = await self._control.workloads()
        except (NexletFunctionsError, nats.errors.Error):
            return  # a busy moment: what was heard is shown all the same, and the next question comes
        self._activity.learn(summaries, self._clock())
        for summary in summaries:
            if summary.workload_state not in _LEFT:
                self._watch.names[summary.id] = summary.name

    async def _learn_when_new(self) -> None:
        while True:
            await self._watch.new.wait()
            self._watch.new.clear()
            await self._learn()

    async def _learn_always(self) -> None:
        while True:
            self._watch.new.clear()
            await self._learn()
            try:
                await asyncio.wait_for(self._watch.new.wait(), LIST_EVERY)
            except TimeoutError:
                pass  # nothing new

    def _rows(self) -> list[Row]:
        return [row for row in self._activity.rows(self._clock()) if row.state not in _LEFT]

    # --- in a pipe -------------------------------------------------------------------------------------------------

    async def _account(self) -> None:
        told = 0
        while True:
            await asyncio.sleep(self._interval)
            if self._watch.invocations == told:
                continue
            told = self._watch.invocations
            await self._learn()
            rows = self._rows()
            width = max((len(row.name) for row in rows), default=0)
            for row in rows:
                if row.last_seconds is not None:
                    self._output.record("activity", _line(row, width), **row.fields())

    # --- on a terminal ---------------------------------------------------------------------------------------------

    async def _show(self) -> None:
        from rich.console import Group
        from rich.live import Live

        console = self._output.console

        def draw(live: Live, scrolled: Sequence[Text], picture: RenderableType) -> None:
            if scrolled:
                console.print(Group(*scrolled))
            live.update(picture, refresh=True)

        with Live(self._picture(), console=console, auto_refresh=False, redirect_stdout=False) as live:
            self._output.lines = self._take
            try:
                while True:
                    await asyncio.sleep(REFRESH)
                    # In a thread: a terminal may be stopped (Ctrl-S) or far away, and functions run here.
                    await asyncio.to_thread(draw, live, list(self._scrolled()), self._picture())
            finally:
                self._output.lines = None
                draw(live, list(self._scrolled()), self._picture())

    def _take(self, line: Text) -> None:
        self._left_out += len(self._lines) == WAITING_LINES
        self._lines.append(line)

    def _scrolled(self) -> Iterator[Text]:
        """Takes what came into the picture; what has no room there any more goes up."""
        if self._left_out:
            self._recent.append(styled((f"... {self._left_out} lines left out: too many to be read", "dim")))
            self._left_out = 0
        self._recent.extend(self._lines)
        self._lines.clear()
        room = self._room(len(self._shown_rows()))
        while len(self._recent) > room:
            yield self._recent.popleft()

    def _room(self, rows: int) -> int:
        """Lines of the log that fit below the table."""
        return max(3, self._output.console.height - rows - 4)

    def _shown_rows(self) -> list[Row]:
        """Those that fit into half of the terminal, the busiest where they do not all."""
        rows, most = self._rows(), max(1, self._output.console.height // 2 - 2)
        if len(rows) <= most:
            return rows
        busiest = set(sorted(rows, key=lambda row: -row.rate)[: most - 1])
        return [row for row in rows if row in busiest]

    def _picture(self) -> RenderableType:
        from rich.console import Group

        rows = self._shown_rows()
        more = len(self._rows()) - len(rows)
        return Group(
            "",
            table(rows, ids=False),
            *([styled((f"and {more} more that are less busy", "dim"))] if more else []),
            "",
            *(_on_one_line(line) for line in self._recent),
        )


def _on_one_line(line: Text) -> Text:
    """In the picture, which has to know its height; in the history it is whole."""
    short = line.copy()
    short.no_wrap, short.overflow = True, "ellipsis"
    return short


def _line(row: Row, width: int) -> Text:
    """A row of the table, as a line that is read by itself."""
    said = cells(row)
    parts: Sequence[str] = (
        f"{said['RATE/S'][0]}/s",
        f"p50 {said['P50'][0]}",
        f"p99 {said['P99'][0]}",
        f"errors {said['ERRORS'][0]}",
        f"in flight {said['IN FLIGHT'][0]}",
        f"last {said['LAST'][0]}",
    )
    return styled(("activity", "dim"), f"  {row.name:<{width}}  ", "  ".join(parts))
