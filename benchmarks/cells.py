"""A cell of a grid: one way of asking, ours and the floors measured in turn, and what came of it.

Every repetition measures ours and then each floor, for about as long; a ratio is that of two neighbours in time, so
that what the machine does otherwise is in both, and the cell's is the median of these.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Final

from benchmarks.bench import ECHO, FLOORS, Bench, Refused, responder
from benchmarks.feed import Listener, listening
from benchmarks.load import Load, Measured
from benchmarks.spread import ratios, spread
from nexlet_models.events import EventName
from nexlet_models.subjects import event

__all__ = ["COUNTING", "Cell", "Missing", "Shape", "measure_cell"]

COUNTING: Final = """
count = 0

def handler(event, context):
    global count
    count += 1
    if event.reply:
        return str(count)
"""
"""Of the messages that nobody waits for: the answers to the few that somebody does wait for say how many there were."""

_UNDER_WAY: Final = 8 * 1024 * 1024
"""Bytes of payload that may be under way: half of what one function's queue takes (docs/operations.md, "Bounds")."""

_BATCH: Final = 256
"""Messages of which the last one is a request, where they are published; two such batches are under way."""

_WARM_S: Final = 0.1
_SUBJECT: Final = "bench.cell"


@dataclass(frozen=True, slots=True)
class Shape:
    """What a cell asks for.

    Attributes:
        in_flight: requests under way at a time, fewer where their payloads would fill a function's queue.
        payload: bytes of a message.
        published: whether messages are published, with no answer but the one to each 256th.
        heard: whether somebody listens to the events.
        profile: of the function's sandbox.
        public: whether the nexlet has nats-py's public interface alone.
    """

    in_flight: int = 64
    payload: int = 128
    published: bool = False
    heard: bool = False
    profile: str = "strict"
    public: bool = False

    @property
    def requests(self) -> int:
        """How many requests are under way."""
        if self.published:
            return 2
        return max(1, min(self.in_flight, _UNDER_WAY // max(self.payload, 1)))

    @property
    def quiet(self) -> int:
        """How many messages that want no answer go before each request."""
        if not self.published:
            return 0
        return max(1, min(_BATCH, _UNDER_WAY // 2 // max(self.payload, 1))) - 1


@dataclass(frozen=True, slots=True)
class Cell:
    """Medians over the repetitions, and how far they lay apart.

    Attributes:
        shape: what was asked for.
        ours, floors: messages a second, of ours and of the bare responders by their event loop.
        ratio: ours to the floor on uvloop.
        ratio_mad: the median absolute deviation of the repetitions' own ratios.
        p50_ms, p99_ms: of our answers, as the load generator saw them; of each 256th where messages are published.
        floor_p50_ms, floor_p99_ms: of the floor on uvloop.
        cpu_us: microseconds of processor time a message of ours, by process.
        floor_cpu_us: and a message of the floor on uvloop.
        generator: the share of one core that the load generator took, at most: near 1 it is what was measured.
        events: of our messages, the share whose event was heard; None where nobody listened.
    """

    shape: Shape
    ours: float
    floors: dict[str, float]
    ratio: float
    ratio_mad: float
    p50_ms: float
    p99_ms: float
    floor_p50_ms: float
    floor_p99_ms: float
    cpu_us: dict[str, float]
    floor_cpu_us: dict[str, float]
    generator: float
    events: float | None = None

    def as_json(self) -> dict[str, object]:
        """For `--json`: what was asked for beside what came of it."""
        told = asdict(self)
        del told["shape"]
        return asdict(self.shape) | told

    def cpu(self) -> str:
        """Processor time a message, for people."""
        ours = ", ".join(f"{name} {us:.1f}" for name, us in self.cpu_us.items())
        floor = ", ".join(f"{name} {us:.1f}" for name, us in self.floor_cpu_us.items())
        return f"{ours}; floor: {floor}; generator at most {self.generator:.0%} of a core"


@dataclass(frozen=True, slots=True)
class Missing:
    """A cell that cannot be had here, and why, in a phrase."""

    shape: Shape
    reason: str

    def as_json(self) -> dict[str, object]:
        """For `--json`."""
        return asdict(self.shape) | {"missing": self.reason}


@dataclass(slots=True)
class _Turns:
    """Of one of those that take turns: its repetitions.

    Attributes:
        subject: where it is asked.
        processes: those that work for it, by their names in the bench.
        count: requests of one repetition.
        sent: messages so far, with those that were not measured.
        seconds: of all repetitions.
    """

    subject: str
    shape: Shape
    processes: tuple[str, ...]
    count: int = 0
    sent: int = 0
    seconds: float = 0.0
    runs: list[Measured] = field(default_factory=list)
    cpu: dict[str, float] = field(default_factory=dict)

    def warm_up(self, load: Load, seconds: float) -> None:
        """Until it is known how many requests make about so many seconds."""
        count = self.shape.requests * 2
        while True:
            measured = self._once(load, count)
            if measured.seconds >= min(_WARM_S, seconds):
                break
            count *= 4
        self.count = max(self.shape.requests * 4, int(measured.answers / measured.seconds * seconds))

    def take(self, load: Load, bench: Bench) -> None:
        """One repetition."""
        before, began = bench.cpu_seconds(), time.perf_counter()
        self.runs.append(self._once(load, self.count))
        self.seconds += time.perf_counter() - began
        after = bench.cpu_seconds()
        for name in self.processes:
            self.cpu[name] = self.cpu.get(name, 0.0) + after[name] - before[name]

    def _once(self, load: Load, count: int) -> Measured:
        shape = self.shape
        known = self._counted(load)
        measured = load.requests(
            self.subject, count=count, in_flight=shape.requests, payload=bytes(shape.payload), quiet=shape.quiet
        )
        self.sent += measured.messages
        if measured.errors:
            raise RuntimeError(f"{measured.errors} of {measured.answers} answers on {self.subject} were errors")
        if shape.published and (run := self._counted(load) - known - 1) != measured.messages:
            raise RuntimeError(f"of {measured.messages} messages on {self.subject} {run} were run")
        return measured

    def _counted(self, load: Load) -> int:
        """How many messages were run, this one included; 0 where nobody counts."""
        if not self.shape.published:
            return 0
        self.sent += 1
        return int(load.ask(self.subject))

    @property
    def rates(self) -> list[float]:
        return [one.rate for one in self.runs]

    @property
    def generator(self) -> float:
        return self.cpu["load"] / self.seconds

    def cpu_us(self) -> dict[str, float]:
        messages = sum(one.messages for one in self.runs)
        return {name.partition(" ")[0]: seconds / messages * 1e6 for name, seconds in self.cpu.items()}

    def percentile(self, share: float) -> float:
        return spread(one.percentile(share) for one in self.runs).median


async def measure_cell(
    bench: Bench, shape: Shape, *, seconds: float, rounds: int, loops: Sequence[str] = FLOORS
) -> Cell | Missing:
    """Measure one, `rounds` times for about `seconds`, ours and floors in turn.

    Args:
        bench: with its floors; where the shape wants the public interface alone, the one with that nexlet.
        loops: event loops of the floors, `uvloop` at least.

    Raises:
        RuntimeError: an answer was an error, or a message was not run.
    """
    with contextlib.ExitStack() as stack:
        processes = dict(bench.processes)
        floors = {loop: f"floor.{loop}" for loop in loops}
        listener: Listener | None = None
        if shape.published:
            for loop in loops:
                floors[loop] = f"count.{loop}"
                pid = stack.enter_context(responder(bench.url, floors[loop], "count", loop=loop))
                processes[f"floor {loop}"] = pid
        if shape.heard:
            listener = stack.enter_context(listening(bench.url, event("bench", EventName.WORKLOAD_TRIGGERED)))
            processes["listener"] = listener.pid
        bench = replace(bench, processes=processes)
        request: dict[str, object] = {"source": ECHO, "triggers": [_SUBJECT], "sandbox": shape.profile}
        if shape.published:
            # One worker: it counts all of them, and has them in their order.
            request |= {"source": COUNTING, "workers": {"max": 1}}
        try:
            await bench.start_workload("bench-cell", request)
        except Refused as refused:
            return Missing(shape, refused.phrase)
        try:
            return await asyncio.to_thread(_cell, bench, shape, floors, listener, seconds, rounds)
        finally:
            await bench.stop_workload("bench-cell")
    raise AssertionError("an exit stack of these swallows nothing")


def _cell(
    bench: Bench, shape: Shape, floors: dict[str, str], listener: Listener | None, seconds: float, rounds: int
) -> Cell:
    working = ("server", "load", "nexlet", "workers", *(("listener",) if listener is not None else ()))
    ours = _Turns(_SUBJECT, shape, working)
    bare = {loop: _Turns(subject, shape, ("server", "load", f"floor {loop}")) for loop, subject in floors.items()}
    with Load(bench.url) as load:
        for one in (ours, *bare.values()):
            one.warm_up(load, seconds)
        for _ in range(rounds):
            for one in (ours, *bare.values()):
                one.take(load, bench)
    floor = bare["uvloop"]
    ratio = ratios(ours.rates, floor.rates)
    return Cell(
        shape=shape,
        ours=spread(ours.rates).median,
        floors={loop: spread(one.rates).median for loop, one in bare.items()},
        ratio=ratio.median,
        ratio_mad=ratio.mad,
        p50_ms=ours.percentile(0.5),
        p99_ms=ours.percentile(0.99),
        floor_p50_ms=floor.percentile(0.5),
        floor_p99_ms=floor.percentile(0.99),
        cpu_us=ours.cpu_us(),
        floor_cpu_us=floor.cpu_us(),
        generator=max(one.generator for one in (ours, *bare.values())),
        events=None if listener is None else _heard(listener, ours.sent) / ours.sent,
    )


def _heard(listener: Listener, sent: int) -> int:
    """How many events were heard, once all were or no more come."""
    before = -1
    while (count := listener.count()) != before and count < sent:
        before = count
        time.sleep(0.2)
    return count
