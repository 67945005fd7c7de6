"""What the language layer asks of the process it runs in: `Host`, and what every host gives by that name.

The layer knows nothing of sockets, frames or clocks. Where an author's code reaches outwards (print, logging, sleep) it
ends up here, and what the process adds to the language (`Reply`, `Reject`) comes from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

__all__ = ["HOST_MODULES", "Host"]

HOST_MODULES: Final[Mapping[str, frozenset[str]]] = {
    "nexlet_functions.authoring": frozenset(
        {
            *("Context", "Event", "Reject", "Reply"),
            *("CallFailed", "Conflict", "Denied", "NotFound", "TimedOut", "TooLarge", "Unavailable"),
            *("Entry", "KeyValue", "Message", "ObjectInfo", "Objects", "PubAck", "StoredObject"),
            *("Http", "HttpResponse"),
        }
    ),
}
"""What a check assumes of `Host.modules`, since it has no host: the types that authors import for their editors."""


class Host(Protocol):
    """The process around one loaded program.

    Attributes:
        memory_exceeded: set by the layer when a MemoryError came by, whether or not the author's code caught it.
    """

    memory_exceeded: bool

    @property
    def builtins(self) -> Mapping[str, object]:
        """Names that the author finds without an import, beside Python's own."""
        ...

    @property
    def modules(self) -> Mapping[str, Mapping[str, object]]:
        """Further importable modules, dotted name to their names; trusted values, given out as they are."""
        ...

    def write(self, stream: str, text: str) -> None:
        """What `print` writes: `stream` is "stdout" or "stderr", `text` ends as the author ended it."""
        ...

    def log(self, level: str, message: str, fields: dict[str, object]) -> None:
        """One line of the `logging` module: `level` is "debug", "info", "warning", "error" or "critical"."""
        ...

    def remaining(self) -> float:
        """Seconds until what runs now is ended from outside."""
        ...
