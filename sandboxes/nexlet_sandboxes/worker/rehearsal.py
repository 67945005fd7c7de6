"""A worker's whole life, gone through a few times in the zygote before any worker is forked.

CPython writes while it merely runs: it specialises code where it stands, remembers where it found an attribute, binds
C functions at their first call. A forked process that does so for the first time gets a page of its own for each such
place, and takes the time to copy it. What was done here is done for all workers, in pages that they share.

What is left is what every worker writes to all the same: whatever it refers to, to begin with. Copying that is nearly
all that a load takes, a twentieth of it is work. A worker that waits for its program has the time (`Kind.REHEARSE`),
and goes through it once more by itself (`Again`): its program then finds the pages copied.

`language.warming` does the same for the compiler and the policy, which only a process that translates needs.
"""

from __future__ import annotations

import gc
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Final, cast

import orjson

from nexlet_sandboxes.calls import NEVER_NS
from nexlet_sandboxes.frames import INVOKE, INVOKE_EXTRA, Kind, frame
from nexlet_sandboxes.language import set_aside, translate
from nexlet_sandboxes.language.warming import TIMES
from nexlet_sandboxes.program import Program
from nexlet_sandboxes.worker.loop import Worker

__all__ = ["TIMES", "Again", "rehearse"]

PLAY: Final = Program(
    """
import json

COUNT = 0

class Item:
    def __init__(self, name):
        self.name = name

def handler(event, context):
    global COUNT
    COUNT += 1
    if not event.data:
        return None
    asked = event.json()
    item = Item(asked["name"])
    context.log.info("asked", name=item.name, left=context.remaining_ms() > 0)
    print(event.subject, event.tokens, event.headers, event.text)
    if item.name == "nobody":
        raise ValueError(f"no {item.name}")
    if item.name == "refused":
        raise Reject(404, json.dumps(asked))
    return Reply({"name": item.name, "count": COUNT}, headers={"X-Count": str(COUNT)})
""",
    environment={"NAME": "value"},
    patterns=("rehearsal.*",),
)

CALLS: Final = (b"", b'{"name": "Ada"}', b'{"name": "nobody"}', b'{"name": "refused"}', b"no JSON")


def rehearse(*, times: int = TIMES) -> None:
    """Load the program and answer its calls, over a socket, in this process. Nothing of it is left."""
    script = _script()
    try:
        for _ in range(times):
            ours, theirs = socket.socketpair()
            with ours, theirs:
                ours.sendall(script)
                ours.shutdown(socket.SHUT_WR)
                worker = Worker(theirs)
                signal.signal(signal.SIGALRM, worker.on_timer)
                worker.serve()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        sys.unraisablehook = sys.__unraisablehook__


class Again:
    """Called in a worker that is locked and has no program: the same once more, without a socket."""

    def __init__(self) -> None:
        """To be made before workers are forked."""
        self._script = _script(CALLS[:2])

    def __call__(self) -> None:
        """Nothing of it is left but the pages that it took. Where there is no memory for it, it is left at that."""
        try:
            Worker(cast(socket.socket, _Stage(self._script))).serve()
            set_aside()
        except MemoryError:
            pass  # what comes to be loaded here will hardly have room either, and says so
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            gc.collect()


class _Stage:
    """In the place of a socket: a script that is read at once, and nobody who listens."""

    def __init__(self, script: bytes) -> None:
        self._script = script

    def recv(self, size: int) -> bytes:
        script, self._script = self._script, b""
        return script

    def sendall(self, data: bytes) -> None:
        pass


def _script(payloads: Sequence[bytes] = CALLS) -> bytes:
    said = {
        **{name: getattr(PLAY, name) for name in PLAY.__dataclass_fields__},
        "limits": {
            "translate": False,
            "load_timeout_ns": 10**9,
            "max_reply": 65536,
            "max_ask": 0,
            "hand_back": False,
            "log_rate": 65536,
            "max_log_line": 8192,
        },
    }
    body = orjson.dumps(said)
    subject, reply, headers = b"rehearsal.now", b"_INBOX.rehearsal", b"NATS/1.0\r\nName: value\r\n\r\n"
    calls = [
        INVOKE.pack(
            INVOKE_EXTRA + len(subject) + len(reply) + len(headers) + len(payload),
            Kind.INVOKE,
            0,
            0,
            number,
            len(subject),
            len(reply),
            len(headers),
            1,
            10**6,
            NEVER_NS,
            NEVER_NS,
        )
        + subject
        + reply
        + headers
        + payload
        for number, payload in enumerate(payloads, 1)
    ]
    return b"".join([frame(Kind.LOAD, body + translate(PLAY), call=len(body)), *calls])
