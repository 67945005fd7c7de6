"""Ten times the load that can be served: what of it is answered how, and what the nexlet's memory does meanwhile.

`python -m benchmarks overload`. A slow function is sent ten times the requests that its workers get through, and who
asked never reads an answer; a quick one is sent as much as goes; somebody subscribes to every feed and does not read
it. The nexlet's proportional memory is read each second.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from dataclasses import asdict, dataclass

from benchmarks.accounts import outcomes
from benchmarks.bench import Bench, open_bench
from benchmarks.kinds import Kind, Options
from benchmarks.load import Load
from benchmarks.processes import proportional_mib
from nexlet_functions.control import ControlClient

__all__ = ["KIND", "Deaf", "Overload", "measure_on"]

SLOW = "import time\ndef handler(event, context):\n    time.sleep(0.01)\n    return event.data\n"
QUICK = "def handler(event, context):\n    print(event.subject)\n    return event.data\n"
WORKERS = 2
SERVED = WORKERS * 100
"""Requests a second that the slow function gets through."""

TIMES = 10
PAYLOAD = b"x" * 4096
SETTLED = 10.0
"""Seconds after which memory is to stay as it is."""


@dataclass(frozen=True, slots=True)
class Overload:
    """What was seen.

    Attributes:
        seconds: of load.
        sent: requests by function.
        outcomes: ended invocations by function and outcome.
        memory_mib: proportional memory of the nexlet's process, second by second.
        growth_mib: the most it was after ten seconds over what it was then.
    """

    seconds: float
    sent: dict[str, int]
    outcomes: dict[str, dict[str, int]]
    memory_mib: list[float]
    growth_mib: float

    @property
    def unaccounted(self) -> dict[str, int]:
        """Requests that ended in no way at all, by function."""
        return {name: count - sum(self.outcomes[name].values()) for name, count in self.sent.items()}

    def as_json(self) -> dict[str, object]:
        """For `--json`."""
        return asdict(self) | {"unaccounted": self.unaccounted}

    def table(self) -> list[str]:
        """For people."""
        lines = [f"ten times what can be served, for {self.seconds:.0f} s, to consumers that do not read"]
        for name, ended in self.outcomes.items():
            told = ", ".join(f"{count} {outcome}" for outcome, count in ended.items())
            lines.append(f"  {name:6} {self.sent[name]} sent: {told}; unaccounted {self.unaccounted[name]}")
        lines.append(f"  memory of the nexlet grew by {self.growth_mib:.2f} MiB after the tenth second (less than 10)")
        return lines


class Deaf:
    """A connection that never reads: as a subscriber, it is one that does not keep up. The server cuts it in time."""

    def __init__(self, url: str, first: bytes = b"") -> None:
        host, _, port = url.removeprefix("nats://").partition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=30)
        self._socket.sendall(b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\n' + first)

    def send(self, data: bytes) -> None:
        """Send, however long the server takes to take it."""
        self._socket.sendall(data)

    def settle(self) -> None:
        """Return when the server has read everything that was sent."""
        self._socket.sendall(b"PING\r\n")
        heard = b""
        while not heard.endswith(b"PONG\r\n"):
            heard = heard[-16:] + self._socket.recv(65536)

    def close(self) -> None:
        self._socket.close()


async def measure_on(bench: Bench, *, seconds: float = 60.0) -> Overload:
    """Run it."""
    limits = {"max_pending": 1024, "queue_timeout": "2s", "timeout": "5s"}
    for name, source in (("slow", SLOW), ("quick", QUICK)):
        await bench.start_workload(
            f"overload-{name}",
            {"source": source, "triggers": [f"overload.{name}"], "limits": limits, "workers": {"max": WORKERS}},
        )
    over = threading.Event()
    sent = {"slow": 0, "quick": 0}
    threads = [
        threading.Thread(target=_publish, args=(bench.url, over, sent)),
        threading.Thread(target=_hammer, args=(bench.url, over, sent)),
    ]
    deaf = Deaf(bench.url, b"SUB $NEX.FEED.> 1\r\n")
    memory = []
    began = time.monotonic()
    try:
        for thread in threads:
            thread.start()
        while time.monotonic() - began < seconds:
            await asyncio.sleep(1)
            memory.append(proportional_mib(bench.processes["nexlet"]))
    finally:
        over.set()
        for thread in threads:
            await asyncio.to_thread(thread.join)
        deaf.close()
    control = ControlClient(bench.client, namespace="bench", nodes=1)
    ended = await _ended(control, sent)
    for name in sent:
        await bench.stop_workload(f"overload-{name}")
    settled = memory[int(SETTLED) - 1] if len(memory) > SETTLED else memory[0]
    growth = max(memory[int(SETTLED) :], default=memory[-1]) - settled
    return Overload(seconds, sent, ended, memory, growth)


async def _ended(control: ControlClient, sent: dict[str, int]) -> dict[str, dict[str, int]]:
    """How everything ended, once all that was sent has, or nothing changes any more."""
    before: dict[str, dict[str, int]] = {}
    while True:
        found = {name: await outcomes(control, f"overload-{name}") for name in sent}
        if all(sum(found[name].values()) >= count for name, count in sent.items()) or found == before:
            return found
        before = found
        await asyncio.sleep(3)


def _publish(url: str, over: threading.Event, sent: dict[str, int]) -> None:
    """Ten times what the slow function gets through, evenly; answers go where nobody reads them."""
    publisher, deaf = Deaf(url), Deaf(url, b"SUB _INBOX.deaf 1\r\n")
    request = b"PUB overload.slow _INBOX.deaf %d\r\n%b\r\n" % (len(PAYLOAD), PAYLOAD)
    began = time.monotonic()
    while not over.is_set():
        due = int((time.monotonic() - began) * SERVED * TIMES) - sent["slow"]
        if due > 0:
            publisher.send(request * due)
            sent["slow"] += due
        over.wait(0.02)
    publisher.settle()
    publisher.close()
    deaf.close()


def _hammer(url: str, over: threading.Event, sent: dict[str, int]) -> None:
    """As much as goes to the quick one, a thousand in flight, by one who reads the answers."""
    with Load(url) as load:
        while not over.is_set():
            sent["quick"] += load.requests("overload.quick", count=20_000, in_flight=1000, payload=PAYLOAD).answers


async def _measure(options: Options) -> Overload:
    async with open_bench(floors=()) as bench:
        return await measure_on(bench)


KIND = Kind("overload", "ten times what can be served, for a minute: its account, and memory", _measure, short=False)
