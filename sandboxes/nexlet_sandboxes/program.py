"""What a worker is given to run: the author's sources with their settings, and the limits they run under.

A `Program` says what runs, `Limits` how far it may go. Both are plain data, made by the nexlet and never by a worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nexlet_sandboxes.processor import processors

__all__ = ["Limits", "Program"]

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Program:
    """One function: its sources and everything its code may read.

    Attributes:
        source: the main module, as text (a coding cookie in it means nothing).
        filename: its name in messages and tracebacks.
        files: helper modules of the same folder, file name ("prices.py") to source; imported as `import prices`.
        handler: the name of the callable in the main module.
        environment: what `context.env` shows. Not in `repr`: values may be secrets.
        workload_id, name, namespace: what `context` tells of itself.
        patterns: the trigger subjects, wildcards included; an invocation names one of them by its index, and
            `event.tokens` is what its wildcards matched.
        modules: further modules an operator permits, module name to the names it may give.
        run_prefix: beginning of each invocation id; a counter in hexadecimal follows.
        batch: how many events one call of the handler is given at most. With 1 it is given one, and no list.
    """

    source: str
    filename: str = "function.py"
    files: Mapping[str, str] = field(default_factory=dict)
    handler: str = "handler"
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    workload_id: str = ""
    name: str = ""
    namespace: str = ""
    patterns: tuple[str, ...] = ()
    modules: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    run_prefix: str = ""
    batch: int = 1


@dataclass(frozen=True, slots=True)
class Limits:
    """How far a function may go. Durations in seconds, sizes in bytes; the defaults are those of the start request.

    Attributes:
        timeout: for one invocation, from when the worker begins it; for a batch of them.
        load_timeout: for compiling the sources and running the module once.
        memory: growth above the ready worker.
        max_pending: invocations that may wait for a worker; one more is refused at once.
        max_pending_bytes: and their messages together, headers and subjects included.
        queue_timeout: what has waited longer is answered and not run.
        log_rate: bytes of output a second that are passed on; four times that in a burst.
        max_log_line: a longer line is cut, and says so.
        max_reply: bytes of a reply.
        max_calls: calls of one invocation to what it was granted, where anything was; of a batch so many for each.
        min_workers, max_workers: processes kept ready, and at most.
        wait: how long invocations should wait for a worker; where it would be longer, there are more, up to the most.
        idle: how long a function without work keeps its last workers above `min_workers`.
    """

    timeout: float = 5.0
    load_timeout: float = 5.0
    memory: int = 128 * MIB
    max_pending: int = 1024
    max_pending_bytes: int = 16 * MIB
    queue_timeout: float = 5.0
    log_rate: int = 64 * 1024
    max_log_line: int = 8 * 1024
    max_reply: int = MIB - 4096
    max_calls: int = 1000
    min_workers: int = 0
    max_workers: int = field(default_factory=lambda: min(4, processors()))
    wait: float = 0.005
    idle: float = 600.0
