"""What a worker says, taken as data and held to its form: header lines, one-line errors, endings, lists of problems.

Every byte of it is somebody else's. What is not as the protocol says raises `FrameError`, and its worker ends.
"""

from __future__ import annotations

import re
from typing import Any, Final

import orjson

from nexlet_models.problems import Problem
from nexlet_sandboxes.calls import Result
from nexlet_sandboxes.frames import Ending, FrameError
from nexlet_sandboxes.outcomes import Outcome

__all__ = ["checked_headers", "fill_unhappy", "one_line", "problems_of"]

_HEADERS: Final = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+: [^\x00-\x1f\x7f]*\r\n)+")
_RESERVED: Final = re.compile(rb"(?im)^(?:workload_id|namespace|error|(?:nats|nex)-[^:]*):")


MAX_TRACEBACK: Final = 16 * 1024
"""Bytes; the worker itself keeps to half of that."""


def fill_unhappy(result: Result, ending: int, code: int, first: bytes, second: bytes, *, memory: int) -> bool:
    """Make `result` say how a call ended that did not go well.

    Args:
        ending, code, first, second: as the RESULT frame has them.
        memory: the limit in bytes, for the text.

    Returns:
        False where the worker is lost with it.

    Raises:
        FrameError: there is no such ending, or a rejection without a code from 400 to 599.
    """
    if ending == Ending.ERROR:
        result.outcome, result.code = Outcome.ERROR, 500
        result.error = one_line(first)
        result.traceback = second[:MAX_TRACEBACK].decode("utf-8", "replace")
    elif ending == Ending.REJECT:
        if not 400 <= code <= 599:
            raise FrameError(f"a rejection with the code {code}")
        result.outcome, result.code = Outcome.REJECTED_BY_FUNCTION, code
        result.body = second
        result.error = one_line(second)
    elif ending == Ending.EXPIRED:
        result.outcome, result.code = Outcome.EXPIRED, 503
        result.error = f"waited {result.queue_ns // 1_000_000} ms for a worker, and was not run"
    elif ending == Ending.LATE:
        result.outcome, result.code = Outcome.TIMEOUT, 504
        result.error = f"took {result.run_ns / 1e9:g} s, longer than the time it had"
    elif ending == Ending.MEMORY:
        result.outcome, result.code = Outcome.MEMORY, 507
        result.error = f"took more memory than its limit of {memory >> 20} MiB"
        return False
    else:
        raise FrameError(f"an ending {ending} that does not exist")
    return True


def checked_headers(lines: bytes) -> bytes:
    """Header lines of a reply, as they may go out.

    Raises:
        FrameError: a line that is none, or a header that is the nexlet's to write.
    """
    if not _HEADERS.fullmatch(lines) or _RESERVED.search(lines):
        raise FrameError("reply headers that a function may not set")
    return lines


def one_line(data: bytes) -> str:
    """One line of text out of whatever a worker sent."""
    text = data[:4096].decode("utf-8", "replace")
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:1024]


_PROBLEM: Final[dict[str, type]] = {
    "message": str,
    "place": str,
    "line": int,
    "column": int,
    "end_column": int,
    "source_line": str,
    "advice": str,
    "code": str,
}


def problems_of(body: bytes) -> list[Problem]:
    """The refusals a worker sent, as data: known fields of the right type and a bounded length, nothing else."""
    try:
        said: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise FrameError("a refusal that is not JSON") from None
    if not isinstance(said, list) or not said or not all(isinstance(one, dict) for one in said):
        raise FrameError("a refusal that is no list of problems")
    problems = []
    for one in said[:100]:
        fields: dict[str, Any] = {"message": "refused without a reason"}
        for name, kind in _PROBLEM.items():
            value = one.get(name)
            if kind is str and isinstance(value, str):
                fields[name] = value[:2000]
            elif kind is int and type(value) is int:
                fields[name] = max(0, min(value, 1 << 31))
        problems.append(Problem(**fields))
    return problems
