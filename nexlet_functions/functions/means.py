"""What functions are made with: `Means`, of which all of a nexlet's functions share one, made after its settings.

`DispatcherFactory` is how somebody who wants to see each invocation has their own dispatchers made.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

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
from nexlet_functions.settings import Settings, SettingsHolder
from nexlet_sandboxes import machine
from nexlet_sandboxes.backlog import Backlog
from nexlet_sandboxes.budget import Budget
from nexlet_sandboxes.compiled import Compiler
from nexlet_sandboxes.reserve import Reserve
from nexlet_sandboxes.warm import Warm, most_idle
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

    @classmethod
    def of(
        cls,
        settings: SettingsHolder,
        *,
        services: Services,
        zygote: Zygote,
        key: CurveKey,
        sandboxing: Sandboxing,
        tracer: Tracer | None = None,
        dispatchers: DispatcherFactory | None = None,
        scheduler: Scheduler | None = None,
    ) -> Self:
        """Those of one nexlet, with the bounds that its settings name.

        Args:
            scheduler: None makes one by this machine's clock.
        """
        now = settings.current
        return cls(
            zygote=zygote,
            services=services,
            artifacts=Artifacts(folders=lambda: settings.current.source_folders, timeout=now.artifact_timeout),
            pins=Pins(services.state_folder / "sources" if services.state_folder is not None else None),
            compiler=Compiler(),
            key=key,
            settings=lambda: settings.current,
            sandboxing=sandboxing,
            tracer=tracer,
            dispatchers=dispatchers,
            scheduler=scheduler if scheduler is not None else Scheduler(),
            backlog=Backlog(now.max_pending, now.max_pending_bytes),
            warm=Warm(now.max_idle_workers or most_idle(machine.memory(), machine.descriptors(), machine.processes())),
            reserve=Reserve(zygote, now.reserve_workers),
            budget=_Budgets(settings).of,
            room=Room(now.max_calls_at_once, now.max_calls_bytes),
            outside=Outside(),
            floods=Floods(now.max_own_connections),
        )


class _Budgets:
    """Processor time by namespace."""

    def __init__(self, settings: SettingsHolder) -> None:
        self._settings = settings
        self._budgets: dict[str, Budget] = {}

    def of(self, namespace: str) -> Budget | None:
        """What the workers of a namespace share; a rule that has changed holds for all of them from the next start."""
        allowed = self._settings.current.rules(namespace).max_cpu
        budget = self._budgets.get(namespace)
        if allowed is None:
            return None
        if budget is None:
            budget = self._budgets[namespace] = Budget(allowed)
        budget.processors = allowed
        return budget
