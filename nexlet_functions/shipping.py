"""Functions on their way to a node, and what becomes of those that ran under their name before.

`ship` deploys a folder's function as `nex workload start` does, and then stops what ran under the same name in the
namespace. No request is lost over it: a start is answered when the new one's subscriptions are confirmed, in the same
queue group as the old one's; only then is the old one told to stop, whose subscriptions end first and whose queue is
finished. The request says in its metadata (`REPLACES`) whom it takes the place of, so that the nexlet can tell a
replacement from two that happen to share a name.

- `ship`, `Shipped`: do it, and what was done.
- `Left`: the new one runs, and an old one could not be stopped.
- `workload_of`: the message that a folder becomes.
- `choose`, `UnknownWorkload`, `AmbiguousWorkload`: what a person means by a name or an id.
"""

from __future__ import annotations

import asyncio
import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from nexlet_functions.control import ControlClient
from nexlet_functions.errors import NexletFunctionsError
from nexlet_functions.nexfile import FunctionFolder
from nexlet_models.subjects import SYSTEM
from nexlet_models.workloads import (
    REPLACES,
    StartWorkloadRequest,
    WorkloadLifecycle,
    WorkloadState,
    WorkloadSummary,
)

__all__ = ["AmbiguousWorkload", "Left", "Shipped", "UnknownWorkload", "choose", "ship", "workload_of"]

_GOING = frozenset({WorkloadState.STOPPING, WorkloadState.STOPPED})


@dataclass(frozen=True, slots=True)
class Shipped:
    """A function that was deployed.

    Attributes:
        workload_id: of the new one.
        replaced: what ran under its name and was stopped.
        beside: what ran under its name and goes on.
    """

    workload_id: str
    replaced: tuple[WorkloadSummary, ...]
    beside: tuple[WorkloadSummary, ...]


class Left(NexletFunctionsError):
    """The new one runs, and one of those before it does as well: they share the messages.

    Attributes:
        shipped: what was done; those that could not be stopped are `beside`.
    """

    code = "old-one-left"

    def __init__(self, name: str, namespace: str, shipped: Shipped, reason: str) -> None:
        self.shipped = shipped
        left = ", ".join(one.id for one in shipped.beside)
        super().__init__(
            f"{name} runs as {shipped.workload_id}, but what ran before it could not be stopped ({left}): {reason}\n"
            f"  they share the messages; stop each with `nexfn stop ID --namespace {namespace}`"
        )


def workload_of(function: FunctionFolder, namespace: str, *, replaces: Sequence[str] = ()) -> StartWorkloadRequest:
    """The start that a node is asked for.

    Args:
        replaces: ids of workloads that are stopped once it runs.
    """
    return StartWorkloadRequest(
        name=function.name,
        namespace=namespace,
        description=function.description,
        workload_type=function.type,
        workload_lifecycle=WorkloadLifecycle(function.lifecycle),
        run_request=json.dumps(function.request, ensure_ascii=False),
        tags=dict(function.tags),
        metadata={REPLACES: ",".join(replaces)} if replaces else None,
    )


async def ship(control: ControlClient, function: FunctionFolder, namespace: str, *, alongside: bool = False) -> Shipped:
    """Deploy a function, and stop what ran under its name.

    Args:
        control: on behalf of that namespace, or of `system`.
        alongside: keep what ran under its name.

    Raises:
        NoBid, NoAnswer, ControlRefused: it was not started, and what ran before goes on as it did.
        Left: it was started, and what ran before goes on as well.
    """
    plain = workload_of(function, namespace)
    running, bid = await asyncio.gather(control.workloads([function.name]), control.bid(plain), return_exceptions=True)
    if isinstance(bid, BaseException):
        raise bid  # first: where nobody can run it, it does not matter what runs
    if isinstance(running, BaseException):
        raise running
    before = tuple(
        one
        for one in running
        if one.name == function.name
        and one.namespace in (namespace, None)
        and one.workload_type == function.type
        and one.workload_state not in _GOING
    )
    old = () if alongside else before
    request = workload_of(function, namespace, replaces=tuple(dict.fromkeys(one.id for one in old)))
    started = await control.deploy(bid, request)
    return await _stop(control, function.name, namespace, started.id, old, before if alongside else ())


async def _stop(
    control: ControlClient,
    name: str,
    namespace: str,
    workload_id: str,
    old: Sequence[WorkloadSummary],
    beside: tuple[WorkloadSummary, ...],
) -> Shipped:
    """Stop the old ones. One that is gone by itself meanwhile is as good as stopped.

    Nobody says that it stopped one that is gone, and nobody does either where we may not ask for it: what is listed
    afterwards tells which it was.
    """
    results = await asyncio.gather(*(control.stop(one.id, namespace=namespace) for one in old), return_exceptions=True)
    left: list[WorkloadSummary] = []
    reasons: list[str] = []
    for one, result in zip(old, results, strict=True):
        if isinstance(result, NexletFunctionsError):
            left.append(one)
            reasons.append(str(result))
        elif isinstance(result, BaseException):
            raise result
    unsure = [one for one, result in zip(old, results, strict=True) if getattr(result, "stopped", None) is False]
    if unsure:
        running = {one.id for one in await control.workloads([name]) if one.workload_state not in _GOING}
        still = [one for one in unsure if one.id in running]
        left += still
        reasons += ["nobody stopped it: do these credentials permit that, and is its nexlet there?" for _ in still]
    shipped = Shipped(workload_id, tuple(one for one in old if one not in left), (*beside, *left))
    if left:
        raise Left(name, namespace, shipped, reasons[0])
    return shipped


class UnknownWorkload(NexletFunctionsError):
    """Nothing of that name or id runs there."""

    code = "unknown-workload"

    def __init__(self, wanted: str, namespace: str, running: Sequence[WorkloadSummary]) -> None:
        where = "in any namespace" if namespace == SYSTEM else f"in namespace {namespace}"
        near = difflib.get_close_matches(wanted, {one.name for one in running}, n=1)
        names = sorted({one.name for one in running})
        if near:
            advice = f"did you mean {near[0]}?"
        elif names:
            advice = f"there are: {', '.join(names[:10])}{', ...' if len(names) > 10 else ''}"
        else:
            advice = "nothing runs there; another namespace is named with --namespace"
        super().__init__(f"nothing of the name or id '{wanted}' runs {where}\n  {advice}")


class AmbiguousWorkload(NexletFunctionsError):
    """Several workloads have that name.

    Attributes:
        found: which.
    """

    code = "ambiguous-workload"

    def __init__(self, wanted: str, found: Sequence[WorkloadSummary], advice: str) -> None:
        self.found = tuple(found)
        lines = [f"  {one.id}  in {one.namespace or '?'}, {one.workload_state} since {one.start_time}" for one in found]
        super().__init__("\n".join([f"{len(found)} workloads are called '{wanted}':", *lines, f"  {advice}"]))


def choose(wanted: str, running: Sequence[WorkloadSummary], namespace: str) -> list[WorkloadSummary]:
    """The workloads that a person means by an id, or by a name; an id goes first.

    Args:
        running: all there are, each also more than once.
        namespace: where they were looked for, for what is said.

    Returns:
        At least one, none twice. What is on its way out is named by its id alone, unless there is nothing else.

    Raises:
        UnknownWorkload: there is none.
    """
    different = {one.id: one for one in running}
    if wanted in different:
        return [different[wanted]]
    named = [one for one in different.values() if one.name == wanted]
    found = [one for one in named if one.workload_state not in _GOING] or named
    if not found:
        raise UnknownWorkload(wanted, namespace, running)
    return found
