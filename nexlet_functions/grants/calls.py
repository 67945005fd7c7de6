"""One function's calls to what it was granted: checked, bounded, done in the workload's name, and answered.

`Calls` is the answerer of the function's pool. A call is looked at where it comes in, before anything is done: whoever
asks in a form that no worker of ours has is ended, what was not granted is denied. What is left runs in a task of its
own, within the time of its invocation and with room (`room`) among the calls of all functions; the task ends with the
call, with its invocation, with its worker, and with the function.

A kind of call is a module with a class that has `verbs`: for each verb what checks it and gives back the work.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol

import structlog

from nexlet_functions.grants.failures import CallFailed, Failure
from nexlet_functions.grants.kv import Buckets
from nexlet_functions.grants.objects import Stores
from nexlet_functions.grants.room import Room
from nexlet_functions.grants.subjects import Subjects
from nexlet_functions.natsio.asking import Questions
from nexlet_functions.natsio.connection import Connection
from nexlet_functions.natsio.errors import (
    ConnectFailed,
    ConnectionClosed,
    ConnectionLost,
    NoResponders,
    PublishRefused,
    RequestTimeout,
)
from nexlet_models.start_request import GrantsRequest
from nexlet_sandboxes.asking import Ask, Status, Verb
from nexlet_sandboxes.frames import FrameError

__all__ = ["Calls", "Kind", "Work"]

_log = structlog.stdlib.get_logger("nexlet_functions.functions")

Work = Callable[[], Awaitable[Sequence[bytes]]]
"""What is to be done, once there is room: gives the parts of the answer."""

_STATUS: Final = {
    Failure.NOT_FOUND: Status.NOT_FOUND,
    Failure.CONFLICT: Status.CONFLICT,
    Failure.DENIED: Status.DENIED,
    Failure.TIMED_OUT: Status.TIMED_OUT,
    Failure.TOO_LARGE: Status.TOO_LARGE,
    Failure.UNAVAILABLE: Status.UNAVAILABLE,
}

_STATUSES: Final = tuple(status.name.lower() for status in sorted(Status))
_KINDS: Final = ("publish", "request", "kv", "objects", "http")
"""As grants have them."""
_KIND: Final[Mapping[int, str]] = {
    verb: next(kind for kind in _KINDS if verb.name.lower().startswith(kind.removesuffix("s"))) for verb in Verb
}

_WHOLE_OBJECTS: Final = frozenset({Verb.OBJECT_GET, Verb.OBJECT_PUT})


class Kind(Protocol):
    """One kind of call."""

    @property
    def verbs(self) -> Mapping[int, Callable[[Ask], Work]]:
        """For each verb: looks at a call and gives back what is to be done.

        Raises, without doing anything:
            CallFailed: it is not granted, or cannot be done.
            FrameError: no worker of ours asks so.
        """
        ...


class Further(Kind, Protocol):
    """A kind of call that has bounds of its own: it takes no room of the others."""

    @property
    def max_size(self) -> int:
        """Bytes of a call's parts together."""
        ...


class Calls:
    """Implements `nexlet_sandboxes.asking.Answerer`. `open` comes first, `close` last.

    Attributes:
        counts: calls that were answered, by kind (`publish`, `request`, `kv`, `objects`, `http`) and status in small
            letters; of each kind that was granted all are there.
    """

    def __init__(
        self,
        grants: GrantsRequest,
        connection: Connection,
        *,
        identity: Callable[[Ask], str],
        room: Room,
        owner: str = "",
        max_size: int,
        more: Sequence[Further] = (),
    ) -> None:
        """Nothing is asked yet.

        Args:
            connection: the workload's, with its credentials.
            identity: of who asks: an invocation's is the same when its message is delivered again, a batch's another.
            room: shared with other functions.
            owner: of the part of it that these calls take: the namespace.
            max_size: bytes of the largest object.
            more: further kinds of calls.
        """
        self._grants = grants
        self._connection = connection
        self._questions = Questions(connection)
        self._room = room
        self._owner = owner
        self._max_object = max_size
        self._tasks: set[asyncio.Task[None]] = set()
        self._handlers: dict[int, Callable[[Ask], Work]] = {}
        kinds: list[Kind] = [
            Subjects(
                grants.publish,
                grants.request,
                self._questions,
                identity=identity,
                max_payload=lambda: connection.max_payload,
            ),
            Buckets(grants.kv, self._questions, max_size=lambda: connection.max_payload),
            Stores(
                grants.objects,
                self._questions,
                max_size=lambda: self._max_object,
                piece=lambda: connection.max_payload,
            ),
            *more,
        ]
        for kind in kinds:
            self._handlers |= kind.verbs
        self._more = more
        self._elsewhere = {verb for kind in more for verb in kind.verbs}
        granted = [kind for kind in _KINDS if getattr(grants, kind)]
        self.counts = Counter({(kind, status): 0 for kind in granted for status in _STATUSES})

    async def open(self) -> None:
        """Be ready for answers.

        Raises:
            NatsioError: the server does not let this workload hear them, or cannot be reached.
        """
        await self._questions.open()

    async def close(self) -> None:
        """End what is under way."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._questions.close()

    @property
    def max_size(self) -> int:
        """See `Answerer.max_size`."""
        return max(
            self._connection.max_payload,
            self._max_object if self._grants.objects else 0,
            *(kind.max_size for kind in self._more),
        )

    @property
    def under_way(self) -> int:
        """Calls that are done at the moment, or wait for room."""
        return len(self._tasks)

    def asked(self, ask: Ask) -> None:
        """See `Answerer.asked`."""
        handler = self._handlers.get(ask.verb)
        if handler is None:
            raise FrameError(f"a call {ask.verb} that does not exist")
        try:
            work = handler(ask)
        except CallFailed as failed:
            self._fail(ask, failed)
            return
        except FrameError:
            raise
        except Exception as error:  # noqa: BLE001  # ours, and one call's: what was read with it is still to be served
            self._ours(ask, error)
            return
        task = asyncio.get_running_loop().create_task(self._run(ask, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        ask.on_drop = task.cancel

    async def _run(self, ask: Ask, work: Work) -> None:
        size = self._max_object if ask.verb in _WHOLE_OBJECTS else sum(map(len, ask.parts))
        room = contextlib.nullcontext() if ask.verb in self._elsewhere else self._room.enter(size, self._owner)
        left = (ask.deadline_ns - time.monotonic_ns()) / 1e9
        try:
            async with asyncio.timeout(left), room:
                parts = await work()
        except CallFailed as failed:
            self._fail(ask, failed)
        except (TimeoutError, RequestTimeout):
            self._fail(ask, CallFailed(Failure.TIMED_OUT, f"{_named(ask)} had no answer in time"))
        except NoResponders as error:
            self._fail(ask, CallFailed(Failure.UNAVAILABLE, f"nobody listens on '{error.subject}'"))
        except PublishRefused as refused:
            text = (
                f"the server does not let this workload publish on '{refused.subject}': ask the operator for that "
                f"permission (it says {refused.permission!r})"
            )
            self._fail(ask, CallFailed(Failure.DENIED, text))
        except (ConnectionLost, ConnectFailed, ConnectionClosed) as error:
            text = f"{_named(ask)}: {error}; whether it was done is not known"
            self._fail(ask, CallFailed(Failure.UNAVAILABLE, text))
        except Exception as error:  # noqa: BLE001  # ours, whatever it is, and one call's: the nexlet goes on
            self._ours(ask, error)
        else:
            self._count(ask, Status.OK)
            ask.answer(Status.OK, *parts)

    def _ours(self, ask: Ask, error: Exception) -> None:
        error_id = secrets.token_hex(8)
        _log.exception("a call of a function failed", verb=_named(ask), error_id=error_id, error=str(error))
        text = f"the nexlet failed to do it (error id {error_id}): ask its operator"
        self._fail(ask, CallFailed(Failure.UNAVAILABLE, text))

    def _fail(self, ask: Ask, failed: CallFailed) -> None:
        status = _STATUS[failed.failure]
        self._count(ask, status)
        ask.answer(status, failed.text.encode("utf-8", "replace"))

    def _count(self, ask: Ask, status: Status) -> None:
        self.counts[_KIND[ask.verb], _STATUSES[status]] += 1


def _named(ask: Ask) -> str:
    return Verb(ask.verb).name.lower().replace("_", " ")
