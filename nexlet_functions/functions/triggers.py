"""One trigger of a function, as it is subscribed to. By itself, so that who only reads a request needs no NATS."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Trigger"]


@dataclass(frozen=True, slots=True)
class Trigger:
    """One trigger of a function: where it listens, in which queue group, and whether it answers.

    Attributes:
        number: which of the start request's triggers it is, and of the program's patterns.
        on_failure: where messages go that failed and that nobody waits for; None for nowhere.
    """

    subject: str
    queue_group: str = ""
    reply: bool = True
    number: int = 0
    on_failure: str | None = None

    @property
    def movable(self) -> bool:
        """Whether it may be subscribed to twice for a moment: one that has no queue group would get messages twice."""
        return bool(self.queue_group)
