"""What functions are made with: `Means`, of which all of a nexlet's functions share one.

`DispatcherFactory` is how somebody who wants to see each invocation has their own dispatchers made.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from nexlet_functions.functions.artifacts import Artifacts
from nexlet_functions.functions.dispatch import Dispatcher
from nexlet_functions.functions.floods import Floods
from nexlet_functions.functions.keys import CurveKey
from nexlet_functions.functions.pins import Pins
from nexlet_functions.grants.http import Outside
from nexlet_functions.grants.room import Room
from nexlet_functions.runner.services import Services
from nexlet_functions.sandboxing import Sandboxing
from nexlet_functions.schedules.scheduler import Scheduler
from nexlet_functions.settings import Settings
from nexlet_sandboxes.backlog import Backlog
from nexlet_sandboxes.budget import Budget
from nexlet_sandboxes.compiled import Compiler
from nexlet_sandboxes.reserve import Reserve
from nexlet_sandboxes.warm import Warm
from nexlet_sandboxes.zygote import Zygote

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

__all__ = ["DispatcherFactory", "Means"]


class DispatcherFactory(Protocol):
    """Makes the dispatchers of functions."""

    def __call__(self, *, name: str, secrets: Collection[str], **arguments: Any) -> Dispatcher:
        """A dispatcher.

        Args:
            name: of the function.
            secrets: values of its environment that nobody may keep.
            arguments: those of `Dispatcher`.
        """
        ...


@dataclass(frozen=True, slots=True)
class Means:
    """What functions are made with.

    Attributes:
        zygote: makes their workers.
        services: the runner's.
        artifacts, pins: their sources.
        compiler: what their sources are compiled by.
        key: what environments are sealed to.
        settings: those in force; asked anew each time.
        sandboxing: what was proved of the sandbox.
        scheduler: waits for what is due.
        backlog: room for what waits, shared by all functions.
        warm: how many workers may stand idle, likewise.
        reserve: workers that wait for a function that needs one, likewise.
        budget: processor time of a namespace's workers; None where it has no bound.
        room: for what functions do with what they were granted, shared by all of them.
        outside: where their HTTP leads to.
        floods: moves those that are flooded out of the others' way.
        tracer: makes spans of invocations; None where nobody traces.
        dispatchers: makes them in place of the plain one, where somebody wants to see each invocation. Goes before a
            tracer; None makes the plain one.
    """

    zygote: Zygote
    services: Services
    artifacts: Artifacts
    pins: Pins
    compiler: Compiler
    key: CurveKey
    settings: Callable[[], Settings]
    sandboxing: Sandboxing
    scheduler: Scheduler
    backlog: Backlog
    warm: Warm
    reserve: Reserve
    budget: Callable[[str], Budget | None]
    room: Room
    outside: Outside
    floods: Floods
    tracer: Tracer | None = None
    dispatchers: DispatcherFactory | None = None
