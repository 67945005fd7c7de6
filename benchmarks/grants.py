"""What a granted call takes in a function, beside the same thing done with bare nats-py: `python -m benchmarks grants`.

Both ask the same server in turn, one call after another, over a connection that is there. The function's own clock
measures it: from where its author writes the call until the answer is there.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass

from nats.aio.client import Client
from nats.js.api import KeyValueConfig

from benchmarks.bench import Bench, open_bench, responder
from benchmarks.kinds import Kind, Options

__all__ = ["KIND", "MOST", "AllCalls", "Granted"]

MOST = 2.0
"""What a granted `get` of a key may take at most, as a multiple of a bare one."""

COUNT = 500
"""Calls of one repetition: an invocation may make a thousand."""

SOURCE = """
import time

def handler(event, context):
    kind, count = event.json()
    kv = context.kv("bench")
    began = time.perf_counter()
    if kind == "kv get":
        for _ in range(count):
            kv.get("key")
    elif kind == "kv put":
        for _ in range(count):
            kv.put("other", b"value")
    elif kind == "publish to a stream":
        for _ in range(count):
            context.publish("bench.kept", b"value")
    else:
        for _ in range(count):
            context.request("bench.service", b"value")
    return (time.perf_counter() - began) / count
"""


@dataclass(frozen=True, slots=True)
class Granted:
    """One kind of call.

    Attributes:
        kind: which.
        ours_us, bare_us: microseconds of one, from a function and with bare nats-py: medians over the rounds.
        ratio: of the two, the median of the rounds' own.
    """

    kind: str
    ours_us: float
    bare_us: float
    ratio: float


@dataclass(frozen=True, slots=True)
class AllCalls:
    """Each kind of call."""

    calls: list[Granted]

    def as_json(self) -> list[dict[str, object]]:
        """For `--json`."""
        return [asdict(one) for one in self.calls]

    def table(self) -> list[str]:
        """For people."""
        lines = ["a call to what a function was granted, beside the same with bare nats-py, microseconds each"]
        for one in self.calls:
            promise = f" (at most {MOST:g})" if one.kind == "kv get" else ""
            lines.append(
                f"  {one.kind:20} ours {one.ours_us:6.0f}  bare {one.bare_us:6.0f}  ratio {one.ratio:.2f}{promise}"
            )
        return lines


async def _measure(options: Options) -> AllCalls:
    async with open_bench(floors=(), jetstream=True) as bench:
        return AllCalls(await _calls(bench, options.rounds))


async def _calls(bench: Bench, rounds: int) -> list[Granted]:
    """Measure each kind of call, ours and bare in turn."""
    stream = bench.client.jetstream()
    bucket = await stream.create_key_value(KeyValueConfig(bucket="bench", direct=True))
    await bucket.put("key", b"x" * 128)
    await stream.add_stream(name="BENCH", subjects=["bench.kept"])
    request = {
        "source": SOURCE,
        "triggers": ["bench.granted"],
        "grants": {"kv": {"bench": "write"}, "publish": ["bench.kept"], "request": ["bench.service"]},
        "limits": {"timeout": "1m"},
        "workers": {"max": 1},
    }
    await bench.start_workload("granted", request)
    bare: dict[str, Callable[[], Awaitable[object]]] = {
        "kv get": lambda: bucket.get("key"),
        "kv put": lambda: bucket.put("other", b"value"),
        "publish to a stream": lambda: stream.publish("bench.kept", b"value"),
        "request": lambda: bench.client.request("bench.service", b"value"),
    }
    found = []
    with responder(bench.url, "bench.service"):
        for kind, once in bare.items():
            ours, floors = [], []
            for _ in range(rounds + 1):
                ours.append(await _ours(bench.client, kind))
                floors.append(await _bare(once))
            # The first of each warms up.
            ratios = [one / other for one, other in zip(ours[1:], floors[1:], strict=True)]
            found.append(Granted(kind, *map(statistics.median, (ours[1:], floors[1:], ratios))))
    await bench.stop_workload("granted")
    return found


async def _ours(client: Client, kind: str) -> float:
    answer = await client.request("bench.granted", f'["{kind}", {COUNT}]'.encode(), timeout=60)
    if answer.headers and "error" in answer.headers:
        raise RuntimeError(f"{kind}: {answer.headers['error']}")
    return float(answer.data) * 1e6


async def _bare(once: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    for _ in range(COUNT):
        await once()
    return (time.perf_counter() - began) / COUNT * 1e6


KIND = Kind("grants", "a call to what a function was granted, beside the same with bare nats-py", _measure)
