"""What a server sends, walked once: the messages of our subscriptions go to their sinks, all else is given back whole.

It knows the protocol's framing and nothing of nats-py: `fast` feeds it, from wherever the bytes come.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from nexlet_functions.natsio.complaints import TOO_MANY_SUBSCRIPTIONS
from nexlet_functions.natsio.sinks import BatchSink, MessageSink

__all__ = ["Router"]

_CRLF: Final = b"\r\n"
_TOO_MANY: Final = TOO_MANY_SUBSCRIPTIONS.encode()


class _Route:
    """Where the messages of one subscription go."""

    __slots__ = ("end", "sink", "take")

    def __init__(self, sink: MessageSink | BatchSink) -> None:
        self.take: Callable[[bytes, bytes, bytes, bytes], None]
        self.end: Callable[[], None] | None = None
        self.sink: MessageSink | None = None
        if isinstance(sink, BatchSink):
            self.take, self.end = sink.take, sink.batch_end
        else:
            self.sink, self.take = sink, self._decoded

    def _decoded(self, subject: bytes, reply: bytes, payload: bytes, headers: bytes) -> None:
        assert self.sink is not None
        self.sink.message(subject.decode(), reply.decode(), payload, headers)


class Router:
    """The messages of known subscriptions, out of the bytes of a connection.

    What is incomplete at the end of a read is kept in pieces until all of it is there, so that a large payload is
    joined once, and whoever takes the rest sees whole lines and whole messages only.

    Attributes:
        reads: how often something was read.
    """

    def __init__(
        self,
        stats: dict[str, int],
        *,
        failed: Callable[[BaseException], None],
        complained: Callable[[str], None],
    ) -> None:
        """No subscription is known yet.

        Args:
            stats: `in_msgs` and `in_bytes` are counted in it.
            failed: told what a sink raised, which must not end the reading.
            complained: told that the server takes no more subscriptions: it goes on without that one.
        """
        self._stats = stats
        self._failed = failed
        self._complained = complained
        self._routes: dict[bytes, _Route] = {}  # by subscription id, as the server writes it
        self.reads = 0
        self._touched: list[_Route] = []  # since `end`
        self.reset()

    def add(self, sid: int, sink: MessageSink | BatchSink) -> None:
        """From now on `sink` has the messages of subscription `sid`."""
        self._routes[b"%d" % sid] = _Route(sink)

    def remove(self, sid: int) -> None:
        """From now on the messages of `sid`, should any come, are given back."""
        self._routes.pop(b"%d" % sid, None)

    def clear(self) -> None:
        """Know no subscription any more."""
        self._routes.clear()

    def reset(self) -> None:
        """Forget what is incomplete: the connection it came over is gone."""
        self._parts: list[bytes] = []
        self._have = 0
        self._want = 0

    @property
    def missing(self) -> int:
        """Bytes that the message lacks of which a part is here; 0 where it is not known."""
        return max(0, self._want - self._have) if self._parts else 0

    def walk(self, data: bytes) -> list[bytes]:
        """Take what was read, and return what of it is not ours: whole lines, whole messages, or what is malformed.

        `end` must follow, after one or several of these.
        """
        self.reads += 1
        if self._parts:
            self._parts.append(data)
            self._have += len(data)
            if self._have < self._want:
                return []
            data = b"".join(self._parts)
            self._parts.clear()
        at, size, want = 0, len(data), 0
        find, routes = data.find, self._routes
        messages = payload_bytes = 0
        last: _Route | None = None
        touched = self._touched
        others: list[bytes] = []
        while at < size:
            end = find(_CRLF, at)
            if end < 0:
                break
            first = data[at]
            if first != 77 and first != 72:  # neither MSG nor HMSG: a line without a body
                line = data[at : end + 2]
                if first == 45 and _TOO_MANY in line.lower():
                    # nats-py would close the connection of all other subscriptions over it.
                    self._complained(TOO_MANY_SUBSCRIPTIONS)
                else:
                    others.append(line)
                at = end + 2
                continue
            words = data[at:end].split()
            try:
                total, route = int(words[-1]), routes.get(words[2])
            except (ValueError, IndexError):
                others.append(data[at:])  # malformed: whoever takes it says so
                at = size
                break
            start = end + 2
            stop = start + total
            if stop + 2 > size:
                want = stop + 2 - at
                break
            if route is None:
                others.append(data[at : stop + 2])
                at = stop + 2
                continue
            # What is raised here would end the reading.
            try:
                if first == 77:
                    route.take(words[1], words[3] if len(words) == 5 else b"", data[start:stop], b"")
                else:
                    body = start + int(words[-2])
                    route.take(words[1], words[3] if len(words) == 6 else b"", data[body:stop], data[start:body])
            except Exception as error:  # noqa: BLE001  # a sink's bug, or a subject that is no UTF-8: reported
                self._failed(error)
            if route is not last:
                last = route
                touched.append(route)
            messages += 1
            payload_bytes += total
            at = stop + 2
        if at < size:
            self._parts.append(data[at:])
            self._have = size - at
            self._want = want
        if messages:
            stats = self._stats
            stats["in_msgs"] += messages
            stats["in_bytes"] += payload_bytes
        return others

    def end(self) -> None:
        """Tell the sinks that had messages since the last time that their batch is over."""
        touched = self._touched
        if not touched:
            return
        self._touched = []
        for route in touched if len(touched) == 1 else dict.fromkeys(touched):
            if route.end is not None:
                try:
                    route.end()
                except Exception as error:  # noqa: BLE001  # a sink's bug: reported, and the reading goes on
                    self._failed(error)
