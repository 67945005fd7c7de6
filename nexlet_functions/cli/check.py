"""`check`: everything that a deployment would refuse, found without NATS.

Nexfile and start request, the policy, the imports, the handler and its signature, the sample events; and, because a
module can also fail by running, a trial load in a real worker, which is thrown away.
"""

from __future__ import annotations

import asyncio
import json as json_
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nexlet_functions.cli.exits import Exit
from nexlet_functions.cli.options import Folders, Json
from nexlet_functions.cli.output import Output, problem_record, styled
from nexlet_models.problems import Problem, render

if TYPE_CHECKING:
    from nexlet_functions.nexfile import FunctionFolder, FunctionRefused
    from nexlet_sandboxes.zygote import Zygote

__all__ = ["check"]

Modules = Mapping[str, tuple[str, ...]]
"""What an operator permits functions to import, each module with the names it gives."""


def check(
    folders: Folders,
    *,
    load: Annotated[
        bool,
        typer.Option(
            "--load/--no-load",
            envvar="NEXFN_LOAD",
            help="Whether the function is also loaded once, in a worker that is thrown away.",
        ),
    ] = True,
    settings_file: Annotated[
        Path | None,
        typer.Option(
            envvar="NEXFN_SETTINGS_FILE",
            metavar="FILE",
            help="An operator's settings file, for the modules that it permits functions to import.",
            show_default=False,
        ),
    ] = None,
    json: Json = None,
) -> None:
    """Check functions: everything that a deployment would refuse, all problems at once."""
    from nexlet_functions.nexfile import find_functions

    output = Output(json=json)
    modules: Modules = {}
    if settings_file is not None:
        from nexlet_functions.settings import Settings

        modules = Settings.read_modules(settings_file)
    refused = asyncio.run(_check(find_functions(folders), output, modules, load=load))
    if refused:
        raise typer.Exit(Exit.FAILED)


async def _check(folders: Sequence[Path], output: Output, modules: Modules, *, load: bool) -> int:
    """Checks them all; how many were refused."""
    async with _zygote_beside(modules) if load else nullcontext() as zygote:
        from nexlet_functions.nexfile import FunctionRefused, read_function
        from nexlet_functions.testing.events import EventRefused, sample_events

        refused = 0
        for path in folders:
            name, problems, took = path.resolve().name, [], 0.0
            try:
                function = read_function(path)
                name = function.name
                problems += _static(function, modules)
                if zygote is not None and not problems and function.start.source is not None:
                    ready = await zygote
                    began = time.perf_counter()
                    problems += await _trial_load(ready, function, modules)
                    took = time.perf_counter() - began
            except FunctionRefused as error:
                name = error.name
                problems += [*error.problems, *_static_of_refused(error, modules)]
            try:
                events = len(sample_events(path))
            except EventRefused as error:
                problems += error.problems
                events = 0
            _tell(output, path, name, problems, took, events)
            refused += bool(problems)
    return refused


@asynccontextmanager
async def _zygote_beside(modules: Modules) -> AsyncIterator[asyncio.Task[Zygote]]:
    """A zygote that gets ready while the sources are read, which takes as long. Who needs it waits for the task."""
    from nexlet_sandboxes.zygote import Zygote

    starting = asyncio.ensure_future(Zygote.start(modules=modules))
    await asyncio.sleep(0)  # the task's first step makes the process
    try:
        yield starting
    finally:
        starting.cancel()  # means nothing to one that is ready
        await asyncio.wait([starting])
        if not starting.cancelled() and starting.exception() is None:
            await starting.result().close()


def _static(function: FunctionFolder, modules: Modules) -> list[Problem]:
    """What the policy says of the sources, which are not run for it."""
    from nexlet_functions.testing.function import program_of
    from nexlet_sandboxes.language import check as check_program

    if function.start.source is None:
        return []  # an artifact elsewhere: the nexlet that fetches it checks it
    return list(check_program(program_of(function, environment={}, modules=modules)))


def _static_of_refused(error: FunctionRefused, modules: Modules) -> list[Problem]:
    """The same of a folder whose Nexfile is refused: nobody likes to mend one file only to hear of the next."""
    from nexlet_functions.functions.requests import inline_program, sound_part
    from nexlet_sandboxes.language import check as check_program

    part = sound_part(json_.dumps(error.request))
    program = inline_program(part) if part is not None else None
    if program is None:
        return []
    return list(check_program(replace(program, filename=error.source_name or program.filename, modules=modules)))


async def _trial_load(zygote: Zygote, function: FunctionFolder, modules: Modules) -> Sequence[Problem]:
    """What goes wrong when the module runs once, under the function's own limits."""
    from nexlet_functions.testing.function import RecordingSink, limits_of, program_of
    from nexlet_sandboxes.outcomes import LoadRefused
    from nexlet_sandboxes.pool import Pool
    from nexlet_sandboxes.profiles import DEFAULT

    # No environment: only the handler can read it, and its secrets are not here.
    program = program_of(function, environment={}, modules=modules)
    pool = Pool(zygote, program, limits_of(function.start), RecordingSink(), profile=function.start.sandbox or DEFAULT)
    try:
        await pool.start()
    except LoadRefused as refused:
        return refused.problems
    finally:
        await pool.close()
    return ()


def _tell(output: Output, path: Path, name: str, problems: Sequence[Problem], took: float, events: int) -> None:
    if problems:
        first, *rest = render(name, problems).splitlines()
        output.record(
            "check",
            [styled(("error:", "bold red"), " ", first), *rest],
            name=name,
            folder=str(path),
            ok=False,
            problems=[problem_record(problem) for problem in problems],
        )
        return
    loaded = f", loaded in {took * 1000:.0f} ms" if took else ""
    sampled = f", {events} sample event{'s' if events != 1 else ''}" if events else ""
    output.record(
        "check",
        styled(("ok:", "bold green"), " ", name, (f"  {path}{loaded}{sampled}", "dim")),
        name=name,
        folder=str(path),
        ok=True,
        load_ms=round(took * 1000, 1) if took else None,
        events=events,
    )
