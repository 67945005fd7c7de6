"""`stop`: end functions by name or id."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from nexlet_functions.cli.exits import CommandFailed, Exit
from nexlet_functions.cli.nodes import EVERYWHERE, Namespace, Nodes, session
from nexlet_functions.cli.options import CREDENTIALS, Json, setting_flags
from nexlet_functions.cli.output import Output, styled
from nexlet_functions.cli.own_log import set_up_logging

if TYPE_CHECKING:
    from nexlet_models.workloads import WorkloadSummary

__all__ = ["stop"]


@setting_flags(NATS=CREDENTIALS)
def stop(
    workloads: Annotated[
        list[str], typer.Argument(metavar="NAME|ID...", help="Functions by name or id.", show_default=False)
    ],
    *,
    every: Annotated[
        bool, typer.Option("--all", envvar="NEXFN_ALL", help="All of that name, where there are several.")
    ] = False,
    namespace: Namespace = EVERYWHERE,
    nodes: Nodes = None,
    json: Json = None,
    flags: Mapping[str, object],
) -> None:
    """Stop functions. Their subscriptions end at once, and what was delivered is finished.

    Nothing is stopped where one of them is unknown, or where a name means several and --all is not given.
    """
    set_up_logging(level="error")
    asyncio.run(_stop(workloads, Output(json=json), namespace, nodes, flags, every=every))


async def _stop(
    wanted: Sequence[str],
    output: Output,
    namespace: str,
    nodes: int | None,
    flags: Mapping[str, object],
    *,
    every: bool,
) -> None:
    from nexlet_functions.shipping import AmbiguousWorkload, choose

    async with session("stop", namespace, flags, nodes=nodes) as to:
        running = await to.workloads()
        chosen: dict[str, WorkloadSummary] = {}
        for each in wanted:
            found = choose(each, running, namespace)
            if len(found) > 1 and not every:
                raise AmbiguousWorkload(each, found, "stop one of them by its id, or all of them with --all")
            chosen |= {one.id: one for one in found}
        gone = []
        for one in chosen.values():
            answer = await to.control.stop(one.id, namespace=one.namespace)
            if not answer.stopped:
                gone.append(one)
                continue
            output.record(
                "stopped",
                styled(("stopped", "yellow"), f"  {one.name}  {one.id}", (f"  in {one.namespace}", "dim")),
                id=one.id,
                name=one.name,
                namespace=one.namespace,
            )
    if gone:
        raise CommandFailed(
            Exit.FAILED,
            "not-stopped",
            f"nobody stopped {', '.join(f'{one.name} ({one.id})' for one in gone)}: it had ended by itself, "
            "or its nexlet is not there",
            "see what runs with `nexfn list`",
        )
