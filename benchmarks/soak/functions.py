"""The functions of a soak: well-behaved ones, slow ones, and those that fail in every way there is.

Each is asked with a payload that begins with the number of the request, sixteen hexadecimal digits, so that an answer
can be held against its question. `probe` is what the soak itself asks, to see that somebody listens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["KINDS", "NAMESPACE", "NUMBER", "Kind", "Workload", "workloads"]

NAMESPACE = "soak"
NUMBER = 16
"""Digits of a request's number."""

_TIMEOUT = "3s"

# A worker remembers what it ran: the same request twice is `AGAIN`. Runs in workers that died are told by `witness`,
# which says on its log feed what it begins, and then takes long enough for the line to be sent.
_SOURCE = """
import collections
import os
import time

seen = collections.OrderedDict()

def handler(event, context):
    data = event.data
    if data == b"probe":
        return b"probe"
    number = data[:16]
    if number in seen:
        return b"AGAIN"
    seen[number] = None
    if len(seen) > 4096:
        seen.popitem(last=False)
    return act(data, number, event, context)
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of request.

    Attributes:
        name: also the last token of the subject, unless that is given.
        act: body of the function `act(data, number, event, context)`.
        share: of the load that is not of kinds with a rate; 0 for those.
        rate: requests a second whatever the load, for kinds that cost much or break something.
        code: of the answer when all goes well; what else may come is told by `account`.
        sizes: least and most bytes of the payload.
        echoes: whether the answer begins with the request's number.
        answers: how many each request gets.
        impatient: share of the requests whose caller gives up after `PATIENCE` seconds.
        limits, workers: of the start request.
        queue_group: as in a trigger; None for the default.
    """

    name: str
    act: str
    share: float = 0.0
    rate: float = 0.0
    code: int = 200
    sizes: tuple[int, int] = (NUMBER, 256)
    echoes: bool = True
    answers: int = 1
    impatient: float = 0.0
    limits: Mapping[str, object] = field(default_factory=dict)
    workers: int = 1
    subject: str = ""
    trigger: str = ""
    queue_group: str | None = None

    @property
    def asked_on(self) -> str:
        """The subject of its requests."""
        return self.subject or f"soak.{self.name}"


@dataclass(frozen=True, slots=True)
class Workload:
    """What is deployed for a kind; a fan-out has one for each answer."""

    name: str
    kind: Kind
    run_request: Mapping[str, Any]


KINDS: tuple[Kind, ...] = (
    Kind("fast", "return data", share=0.70, workers=2),
    Kind("text", "return (number + b' ' + str(len(event.text)).encode()).decode()", share=0.10),
    Kind("wild", "return number + b' ' + ' '.join(event.tokens).encode()", share=0.10, subject="soak.wild.a.b.c",
         trigger="soak.wild.*.>"),
    Kind("fan", "return number", share=0.04, answers=2, queue_group=""),
    Kind("reject", "raise Reject(422, number.decode())", share=0.03, code=422, echoes=False),
    Kind("raise", "raise ValueError(number)", share=0.03, code=500, echoes=False),
    Kind("slow", "time.sleep(0.005 + len(data) % 32 / 1000)\nreturn number", rate=60, workers=4, impatient=0.05),
    Kind("witness", "print(number.decode())\ntime.sleep(0.004)\nreturn number", rate=60, limits={"log_rate": "1MiB"}),
    Kind("big", "return data", rate=5, sizes=(100_000, 700_000)),
    Kind("flood", "for n in range(400):\n    print('x' * 200)\nreturn number", rate=4, limits={"log_rate": "8KiB"}),
    Kind("endless", "while True:\n    pass", rate=2, code=504, echoes=False, limits={"timeout": "150ms"}),
    Kind("hog", "kept = []\nwhile True:\n    kept.append('x' * 1048576)", rate=1, code=507, echoes=False,
         limits={"memory": "24MiB"}),
    Kind("crash", "os.getpgrp()", rate=1, code=502, echoes=False),
)  # fmt: skip
"""Of every request of a soak."""

PATIENCE = 0.01
"""Seconds that an impatient caller waits."""

SETTINGS = "modules: {os: [getpgrp]}\ngrace: 5s\n"
"""The operator's: `getpgrp` is a system call that ends a `strict` worker."""


def workloads() -> list[Workload]:
    """Everything that is deployed."""
    found = []
    for kind in KINDS:
        body = "\n".join(f"    {line}" for line in kind.act.splitlines())
        source = f"{_SOURCE}\ndef act(data, number, event, context):\n{body}\n"
        trigger: dict[str, object] = {"subject": kind.trigger or kind.asked_on}
        if kind.queue_group is not None:
            trigger["queue_group"] = kind.queue_group
        limits = {"timeout": _TIMEOUT, "queue_timeout": _TIMEOUT, "max_pending": 512, **kind.limits}
        run = {
            "source": source, "triggers": [trigger], "limits": limits, "workers": {"min": 0, "max": kind.workers},
        }  # fmt: skip
        names = [kind.name] if kind.answers == 1 else [f"{kind.name}-{n}" for n in range(kind.answers)]
        found += [Workload(name, kind, run) for name in names]
    return found


LONGEST = 3.0 + 3.0 + 2.0
"""Seconds after which an answer is overdue: the queue's time, the run's, and what a busy machine needs on top."""
