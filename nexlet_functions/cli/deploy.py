"""`deploy`: functions onto a node, each in the place of what ran under its name."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nexlet_functions.cli.app import expected_failure
from nexlet_functions.cli.exits import CommandFailed, CommandRefused, Exit
from nexlet_functions.cli.nodes import Nodes, Session, session
from nexlet_functions.cli.options import CREDENTIALS, Folders, Json, setting_flags
from nexlet_functions.cli.output import Output, styled
from nexlet_functions.cli.own_log import set_up_logging

if TYPE_CHECKING:
    from nexlet_functions.cli.sources import Modules
    from nexlet_functions.nexfile import FunctionFolder, FunctionRefused

__all__ = ["deploy", "with_its_source"]


@setting_flags(NATS=CREDENTIALS)
def deploy(
    folders: Folders,
    *,
    namespace: Annotated[
        str,
        typer.Option(
            "--namespace",
            "-n",
            envvar=["NEXFN_NAMESPACE", "NEX_NAMESPACE"],
            help="Namespace to deploy to.",
            show_default=False,
        ),
    ],
    alongside: Annotated[
        bool,
        typer.Option(
            "--alongside",
            envvar="NEXFN_ALONGSIDE",
            help="Keep what runs under the same name: both then share the messages.",
        ),
    ] = False,
    nodes: Nodes = None,
    json: Json = None,
    flags: Mapping[str, object],
) -> None:
    """Deploy functions to a node, as `nex workload start` does, without needing `nex`.

    A function that runs under the same name in the namespace is replaced, and no request is lost: the new one answers
    before the old one stops listening, and the old one finishes what it has. Where the new one is refused, the old one
    goes on. Of several folders each is deployed that can be; ends with 1 where one was refused.
    """
    from nexlet_functions.nexfile import find_functions

    set_up_logging(level="error")
    worst = asyncio.run(
        _deploy(find_functions(folders), Output(json=json), namespace, nodes, flags, alongside=alongside)
    )
    if worst is not Exit.OK:
        raise typer.Exit(worst)


async def _deploy(
    folders: Sequence[Path],
    output: Output,
    namespace: str,
    nodes: int | None,
    flags: Mapping[str, object],
    *,
    alongside: bool,
) -> Exit:
    """How the first one that failed did."""
    from nexlet_functions.nexfile import FunctionRefused, read_function

    failures: list[CommandFailed] = []
    async with session("deploy", namespace, flags, nodes=nodes) as to:
        for path in folders:
            try:
                await _one(read_function(path), output, to, alongside=alongside)
            except FunctionRefused as refused:
                failures.append(with_its_source(refused))
            except Exception as error:
                failure = expected_failure(error)
                if failure is None:
                    raise
                failures.append(failure)
            else:
                continue
            output.error(failures[-1])
    return failures[0].exit if failures else Exit.OK


async def _one(function: FunctionFolder, output: Output, to: Session, *, alongside: bool) -> None:
    from nexlet_functions.shipping import ship

    began = time.perf_counter()
    shipped = await ship(to.control, function, to.namespace, alongside=alongside)
    took = time.perf_counter() - began
    start = function.start
    subjects = [trigger.subject for trigger in start.subject_triggers]
    subjects += [f"[{trigger.text}]" for trigger in start.stream_triggers]
    subjects += [f"[{trigger.text}]" for trigger in start.timed_triggers]
    subjects = subjects or [shipped.workload_id]
    lines = [
        styled(
            ("deployed", "green"),
            f"  {function.name}  {shipped.workload_id}  {', '.join(subjects)}",
            (f"  {took * 1000:.0f} ms", "dim"),
        )
    ]
    for word, those in (("replaced", shipped.replaced), ("beside", shipped.beside)):
        lines += [
            styled((f"{word:<8}", "yellow"), f"  {one.name}  {one.id}", (f"  {_digest(one.metadata)}", "dim"))
            for one in those
        ]
    output.record(
        "deployed",
        lines,
        name=function.name,
        id=shipped.workload_id,
        namespace=to.namespace,
        triggers=subjects,
        replaced=[one.id for one in shipped.replaced],
        beside=[one.id for one in shipped.beside],
        duration_ms=round(took * 1000, 1),
    )


def _digest(metadata: Mapping[str, str] | None) -> str:
    return (metadata or {}).get("digest", "")[: len("sha256:") + 12]


def with_its_source(refused: FunctionRefused, modules: Modules | None = None) -> CommandRefused:
    """With what is wrong with the source as well, as `check` says it: nobody mends one file to hear of the next.

    Args:
        modules: what the operator permits functions to import beside the usual; None where that is not known from
            here. The nexlet holds the function to its operator's rules, and says what they refuse; an import that they
            may permit is not for us to refuse.
    """
    from nexlet_functions.cli.sources import problems_of_refused

    further = problems_of_refused(refused, modules or {})
    if modules is None:
        further = [problem for problem in further if problem.code != "import-refused"]
    return CommandRefused(refused.name, [*refused.problems, *further])
