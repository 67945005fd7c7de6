"""What a handler is given beside the message: `Context`, with its log and its metrics.

One context serves all invocations of a worker. What it shows of the running one comes from callables that the loop
gives it, so that it holds no way into the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import orjson

from nexlet_sandboxes.texts import text_of
from nexlet_sandboxes.worker import grants
from nexlet_sandboxes.worker.event import Event
from nexlet_sandboxes.worker.grants import Calls, KeyValue, Message, Objects, PubAck
from nexlet_sandboxes.worker.http import Http
from nexlet_sandboxes.worker.uncopyable import Uncopyable

__all__ = ["Context", "Log", "Metrics"]

MAX_METRIC: Final = 8 * 1024
"""Characters of a metric's name and labels, as many as a log line may have bytes."""

Emit = Callable[[str, str, dict[str, object]], None]


class Environment(Uncopyable, Mapping[str, str]):
    """A function's environment, read-only; its values may be secrets, so its own text shows the names alone.

    Not a `MappingProxyType`: that one hands the dictionary behind it to whatever it is compared with.
    """

    __slots__ = ("__values",)

    def __init__(self, values: Mapping[str, str]) -> None:
        self.__values: Final = dict(values)

    def __getitem__(self, name: str) -> str:
        return self.__values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self.__values))

    def __len__(self) -> int:
        return len(self.__values)

    def __contains__(self, name: object) -> bool:
        return name in self.__values

    def __or__(self, other: Mapping[str, str]) -> dict[str, str]:
        return {**self.__values, **other}

    def copy(self) -> dict[str, str]:
        """The same as a dict of one's own."""
        return dict(self.__values)

    def __repr__(self) -> str:
        return f"<Environment: {', '.join(self.__values)}>"


class Log(Uncopyable):
    """`context.log.info("charged", order=17)`: a line of JSON on the workload's log feed.

    debug and info go to the stdout feed, warning, error and critical to stderr.
    """

    __slots__ = ("_emit",)

    def __init__(self, emit: Emit) -> None:
        self._emit = emit

    def debug(self, message: object, /, **fields: object) -> None:
        """A line for whoever looks for a fault."""
        self._emit("debug", text_of(message), fields)

    def info(self, message: object, /, **fields: object) -> None:
        """A line about what happened."""
        self._emit("info", text_of(message), fields)

    def warning(self, message: object, /, **fields: object) -> None:
        """A line about what someone should look at."""
        self._emit("warning", text_of(message), fields)

    def error(self, message: object, /, **fields: object) -> None:
        """A line about what went wrong."""
        self._emit("error", text_of(message), fields)

    def critical(self, message: object, /, **fields: object) -> None:
        """A line about what must be seen now."""
        self._emit("critical", text_of(message), fields)


class Metrics(Uncopyable):
    """`context.metrics.count("orders", 1, currency="EUR")`: figures on the workload's metrics feed."""

    __slots__ = ("_emit",)

    def __init__(self, emit: Callable[[bytes], None]) -> None:
        self._emit = emit

    def count(self, name: str, value: float = 1, /, **labels: str) -> None:
        """Something happened `value` times."""
        self._send("counter", name, value, labels)

    def gauge(self, name: str, value: float, /, **labels: str) -> None:
        """Something is at `value` now."""
        self._send("gauge", name, value, labels)

    def observe(self, name: str, value: float, /, **labels: str) -> None:
        """One sample of a distribution: a duration, a size."""
        self._send("histogram", name, value, labels)

    def _send(self, kind: str, name: str, value: float, labels: Mapping[str, str]) -> None:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"a metric's value is a number, not {type(value).__name__}")
        if value != value or value in (float("inf"), float("-inf")):
            raise ValueError(f"a metric's value is a finite number, not {value}")
        text = text_of(name)
        plain = {text_of(key): text_of(label) for key, label in labels.items()}
        if len(text) + sum(len(key) + len(label) for key, label in plain.items()) > MAX_METRIC:
            raise ValueError(f"a metric's name and labels are at most {MAX_METRIC} characters together")
        entry: dict[str, object] = {"name": text, "kind": kind, "value": value}
        if plain:
            entry["labels"] = plain
        self._emit(orjson.dumps(entry))


class Context(Uncopyable):
    """What a function knows of itself and of the time it has.

    Attributes:
        workload_id, name, namespace: of this workload.
        env: its environment, read-only; secrets are in it in the clear.
        log: structured lines on the log feed.
        metrics: figures on the metrics feed.
    """

    __slots__ = ("_calls", "_remaining", "env", "log", "metrics", "name", "namespace", "workload_id")

    def __init__(
        self,
        *,
        workload_id: str,
        name: str,
        namespace: str,
        environment: Mapping[str, str],
        log: Log,
        metrics: Metrics,
        remaining: Callable[[], float],
        calls: Calls,
    ) -> None:
        self.workload_id = workload_id
        self.name = name
        self.namespace = namespace
        self.env: Mapping[str, str] = Environment(environment)
        self.log = log
        self.metrics = metrics
        self._remaining = remaining
        self._calls = calls

    def remaining_ms(self) -> int:
        """Milliseconds until this invocation is ended from outside; of a batch, until the first caller gives up."""
        return max(0, int(self._remaining() * 1000))

    def publish(
        self,
        subject: str,
        data: object = None,
        *,
        headers: Mapping[str, str] | None = None,
        event: Event | None = None,
    ) -> PubAck | None:
        """Publish a message, where the function was granted to (`grants.publish`).

        It returns when the server has taken the message; of a subject that a stream keeps, when the stream has it.
        A stream drops what this message's invocation has published before, at another attempt. In a batch of several
        it does so only where `event` says whose message this is: who is in a batch is another matter each time.

        Args:
            data: None, bytes, text, or anything that JSON can say.
            event: the one of a batch that it is published for; None: for all of them.

        Returns:
            The stream's acknowledgement; None where no stream keeps the subject.

        Raises:
            Denied, TimedOut, TooLarge, Unavailable: it was not published, or nobody knows.
            TypeError, ValueError: `event` is none that is being handled.
        """
        return grants.publish(self._calls, subject, data, headers, event)

    def request(
        self,
        subject: str,
        data: object = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Message:
        """Send a request and wait for the answer, where the function was granted to (`grants.request`).

        Args:
            data: None, bytes, text, or anything that JSON can say.
            timeout: seconds; None waits as long as the invocation has.

        Raises:
            Unavailable: nobody listens there.
            Denied, TimedOut, TooLarge: see there.
        """
        return grants.request(self._calls, subject, data, headers, timeout)

    def kv(self, bucket: str) -> KeyValue:
        """A bucket of keys and values that the function was granted (`grants.kv`). Nothing is asked of it yet."""
        return KeyValue(self._calls, bucket)

    def objects(self, bucket: str) -> Objects:
        """An object store that the function was granted (`grants.objects`). Nothing is asked of it yet."""
        return Objects(self._calls, bucket)

    @property
    def http(self) -> Http:
        """HTTP to the hosts that the function was granted (`grants.http`)."""
        return Http(self._calls)

    def __repr__(self) -> str:
        return f"<Context {self.namespace}/{self.name}>"


Context.__module__ = "nexlet_functions.authoring"  # where authors import it from: its text is theirs to see
