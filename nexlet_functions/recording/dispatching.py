"""A function's dispatcher that also gives each invocation which has ended to a recorder.

It takes the place of the plain one where a function is started while somebody records, so that recording costs nothing
where nobody does.
"""

from __future__ import annotations

import functools
from collections.abc import Collection
from typing import Any

from nexlet_functions.functions.dispatch import Dispatcher
from nexlet_functions.functions.means import DispatcherFactory
from nexlet_functions.recording.recorder import Invoked, Recorder
from nexlet_functions.streams.deliveries import Delivery
from nexlet_sandboxes.calls import Call, Result
from nexlet_sandboxes.worker.event import parse_headers

__all__ = ["RecordingDispatcher", "recording_to"]


class RecordingDispatcher(Dispatcher):
    """A dispatcher whose invocations are recorded."""

    def __init__(self, *, recorder: Recorder, name: str, secrets: Collection[str], **arguments: Any) -> None:
        """See `Dispatcher`.

        Args:
            recorder: takes the invocations.
            name: of the function.
            secrets: values of its environment that must not be kept.
        """
        super().__init__(name=name, **arguments)
        self._recorder = recorder
        self._name = name
        self._masks = recorder.masks_with(tuple(secrets))

    def finished(self, call: Call, result: Result) -> None:
        """See `Dispatcher.finished`."""
        super().finished(call, result)
        if isinstance(call.tag, Delivery) and call.tag.waits:
            return  # it was not run, and is put in line once more
        if not self._recorder.has_room(self._name):
            return  # before anything is made for it
        self._recorder.take(
            self._masks,
            Invoked(
                function=self._name,
                subject=call.subject.decode("utf-8", "replace"),
                headers=parse_headers(call.headers),
                payload=bytes(call.payload),
                outcome=result.outcome,
                code=result.code,
                body=bytes(result.body),
                reply_headers=parse_headers(b"NATS/1.0\r\n" + result.headers),
                error=result.error,
            ),
        )


def recording_to(recorder: Recorder) -> DispatcherFactory:
    """Makes dispatchers that record, for `nexlet_functions.nexlet.Nexlet`."""
    return functools.partial(RecordingDispatcher, recorder=recorder)
