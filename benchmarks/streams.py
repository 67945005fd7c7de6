"""Messages of a stream a second, beside a bare nats-py pull consumer with the same batch and acknowledgements.

Each has a stream and a durable consumer of its own. So many messages are put into the one, and the time runs until the
consumer has all of them acknowledged; then the other, in turn: `python -m benchmarks streams`.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, dataclass
from typing import Final

from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig, StorageType

from benchmarks.bench import Bench, bare_consumer, open_bench
from benchmarks.kinds import Kind, Options
from benchmarks.spread import ratios, spread

__all__ = ["KIND", "PROMISE", "Pulled"]

PROMISE: Final = 0.5
"""What a stream trigger is to reach at least, as a share of the bare consumer."""

SOURCE: Final = "def handler(event, context):\n    return None\n"


@dataclass(frozen=True, slots=True)
class Pulled:
    """What came of it.

    Attributes:
        batch, messages: asked for at a time, and in one repetition.
        ours, floor: messages a second, medians.
        ratio, ratio_mad: of the repetitions' own ratios the median, and their median absolute deviation.
    """

    batch: int
    messages: int
    ours: float
    floor: float
    ratio: float
    ratio_mad: float

    def as_json(self) -> dict[str, object]:
        """For `--json`."""
        return asdict(self)

    def table(self) -> list[str]:
        """For people."""
        return [
            f"messages of a stream, {self.messages} at a time; ratio to a bare nats-py pull consumer on uvloop",
            f"  batches of {self.batch}, each acknowledged: ours {self.ours:.0f}/s, bare {self.floor:.0f}/s, "
            f"ratio {self.ratio:.2f} +- {self.ratio_mad:.2f}  (at least {PROMISE:g})",
        ]


async def _measure(options: Options) -> Pulled:
    async with open_bench(floors=(), jetstream=True) as bench:
        return await _pulled(bench, batch=256, messages=20_000, rounds=options.rounds, payload=options.payload)


async def _pulled(bench: Bench, *, batch: int, messages: int, rounds: int, payload: int) -> Pulled:
    """Measure each in turn, `rounds` times.

    Raises:
        TimeoutError: not all were acknowledged within a minute.
    """
    stream = bench.client.jetstream()
    for name in ("OURS", "FLOOR"):
        await stream.add_stream(name=name, subjects=[f"bench.{name}"], storage=StorageType.MEMORY)
    await stream.add_consumer(
        "FLOOR", ConsumerConfig(durable_name="floor", ack_policy=AckPolicy.EXPLICIT, max_ack_pending=1000)
    )
    await bench.start_workload("bench-stream", {"source": SOURCE, "triggers": [{"stream": "OURS", "batch": batch}]})
    try:
        with bare_consumer(bench.url, "FLOOR", "floor", batch):
            whom = {"ours": ("OURS", "bench-bench-stream"), "floor": ("FLOOR", "floor")}
            rates: dict[str, list[float]] = {name: [] for name in whom}
            for name in whom:
                await _drained(bench.client, *whom[name], messages // 4, payload)  # everything is warm from then on
            for _ in range(rounds):
                for name, (of, consumer) in whom.items():
                    rates[name].append(messages / await _drained(bench.client, of, consumer, messages, payload))
    finally:
        await bench.stop_workload("bench-stream")
    ratio = ratios(rates["ours"], rates["floor"])
    return Pulled(
        batch=batch,
        messages=messages,
        ours=spread(rates["ours"]).median,
        floor=spread(rates["floor"]).median,
        ratio=ratio.median,
        ratio_mad=ratio.mad,
    )


async def _drained(client: Client, stream: str, consumer: str, count: int, payload: int) -> float:
    """Seconds from the first of so many messages until all are acknowledged."""
    body, began = bytes(payload), time.perf_counter()
    for _ in range(count):
        await client.publish(f"bench.{stream}", body)
    await client.flush()
    await client.flush()  # nats-py lets the first overtake what it holds back
    context = client.jetstream()
    async with asyncio.timeout(60):
        while True:
            info = await context.consumer_info(stream, consumer)
            if not info.num_pending and not info.num_ack_pending:
                return time.perf_counter() - began
            await asyncio.sleep(0.01)


KIND = Kind("streams", "messages of a stream a second, beside a bare nats-py pull consumer", _measure)
