"""`list`: what runs, and how it fares."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nexlet_functions.cli.nodes import EVERYWHERE, Namespace, Nodes, aligned, session, state_style, workload_fields
from nexlet_functions.cli.options import CREDENTIALS, Json, Workloads, setting_flags
from nexlet_functions.cli.output import Output, styled
from nexlet_functions.cli.own_log import set_up_logging

if TYPE_CHECKING:
    from nexlet_models.workloads import WorkloadSummary

__all__ = ["list"]

_HEAD = ("NAME", "ID", "STATE", "WORKERS", "PENDING", "INVOKED", "FAILED", "TRIGGERS")


@setting_flags(NATS=CREDENTIALS)
def list(  # noqa: A001  # the command's name is the function's
    workloads: Workloads = None,
    *,
    namespace: Namespace = EVERYWHERE,
    nodes: Nodes = None,
    json: Json = None,
    flags: Mapping[str, object],
) -> None:
    """List the functions that run: state, workers, triggers, and how often they were invoked and failed.

    All of the namespace, or those of that name or id. Ends with 1 where one of these is not there.
    """
    set_up_logging(level="error")
    asyncio.run(_list(workloads or (), Output(json=json), namespace, nodes, flags))


async def _list(
    wanted: Sequence[str], output: Output, namespace: str, nodes: int | None, flags: Mapping[str, object]
) -> None:
    from nexlet_functions.shipping import UnknownWorkload

    async with session("list", namespace, flags, nodes=nodes) as to:
        found = await to.workloads()
    if wanted:
        # All that bear the name, also those that are on their way out: whoever lists wants to see them.
        shown = [one for one in found if one.id in wanted or one.name in wanted]
        for each in wanted:
            if not any(each in (one.id, one.name) for one in shown):
                raise UnknownWorkload(each, namespace, found)
        found = shown
    if output.json:
        for one in found:
            output.record("workload", **workload_fields(one))
    elif found:
        _table(found, output, namespaces=namespace == EVERYWHERE)
    else:
        where = "" if namespace == EVERYWHERE else f" in namespace {namespace}"
        output.record("none", f"nothing runs{where}")


def _table(found: Sequence[WorkloadSummary], output: Output, *, namespaces: bool) -> None:
    rows = aligned([_HEAD, *(_row(workload_fields(one)) for one in found)])
    owners = aligned([("NAMESPACE", ""), *((one.namespace or "?", "") for one in found)])
    for number, (owner, row) in enumerate(zip(owners, rows, strict=True)):
        style = state_style(row[2].strip()) if number else "dim"
        cells = [
            (f"{'  ' if column else ''}{cell}", style if number == 0 or column == 2 else "")
            for column, cell in enumerate(row)
        ]
        output.record("workload", styled(*([(f"{owner[0]}  ", "dim")] if namespaces else []), *cells))


def _row(fields: Mapping[str, Any]) -> tuple[str, ...]:
    workers, most = fields["workers"], fields["max_workers"]
    return (
        fields["name"],
        fields["id"],
        fields["state"],
        "-" if workers is None else f"{workers}/{most}",
        _shown(fields["pending"]),
        _shown(fields["invocations"]),
        _shown(fields["failed"]),
        " ".join(
            (
                *(fields["triggers"] or ()),
                *(f"[{each}]" for each in (*(fields["streams"] or ()), *(fields["schedules"] or ()))),
            )
        )
        or "-",
    )


def _shown(number: int | None) -> str:
    return "-" if number is None else str(number)
