"""What nats-py does for a call, with an end for it that nats-py does not know: the server says no, or is gone.

nats-py waits for an answer that will not come until its own time is over. `watched` ends what runs in its block as soon
as the server forbids it to publish about that stream, or the connection is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import nats.errors
import nats.js.errors

from nexlet_functions.grants.failures import CallFailed, Failure
from nexlet_functions.natsio.complaints import Violation
from nexlet_functions.natsio.connection import Connection, ConnectionState
from nexlet_functions.natsio.errors import ConnectionLost, NatsioError, PublishRefused

__all__ = ["watched"]


@contextlib.asynccontextmanager
async def watched(connection: Connection, stream: str) -> AsyncIterator[None]:
    """Run the block as long as it can come to something.

    Raises:
        PublishRefused: the server forbids what it does about `stream`.
        ConnectionLost: the connection went.
        CallFailed: nats-py had an error of another kind.
    """
    task = asyncio.current_task()
    assert task is not None
    reason: NatsioError | None = None

    def end(error: NatsioError) -> None:
        nonlocal reason
        if reason is None:
            reason = error
            task.cancel()

    def violated(violation: Violation) -> None:
        if stream.lower() in violation.subject.split("."):
            end(PublishRefused(violation.subject, violation.text))

    def changed(state: ConnectionState, _: str) -> None:
        if state is not ConnectionState.CONNECTED:
            end(ConnectionLost("a call"))

    ends = (connection.on_violation(violated), connection.on_state(changed))
    try:
        yield
    except asyncio.CancelledError:
        if reason is not None and task.uncancel() == 0:
            raise reason from None
        raise
    except nats.js.errors.ServiceUnavailableError:
        raise CallFailed(Failure.UNAVAILABLE, "there is no JetStream on the server") from None
    except (nats.errors.Error, ValueError) as error:
        raise CallFailed(Failure.UNAVAILABLE, f"{stream}: {str(error).removeprefix('nats: ')}") from None
    finally:
        for each in ends:
            each()
