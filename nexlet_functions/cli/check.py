"""`check`: everything that a deployment would refuse, found without NATS.

Nexfile and start request, an operator's rules (those that hold where none are said, or those of a settings file), the
policy, the imports, the handler and its signature, the sample events; and, because a module can also fail by running,
a trial load in a real worker, which is thrown away. What a node would take, and its author be sorry for, is a warning.
"""

from __future__ import annotations

import asyncio
import enum
import json as json_
import os
import time
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nexlet_functions.cli import ahead
from nexlet_functions.cli.exits import CommandFailed, Exit
from nexlet_functions.cli.options import Folders, Json
from nexlet_functions.cli.output import Output, problem_record, styled
from nexlet_functions.cli.running import loading, run_until_signalled
from nexlet_functions.cli.sources import Modules, problems_of_refused
from nexlet_models.problems import Problem, render

if TYPE_CHECKING:
    from nexlet_functions.functions.permissions import Rules
    from nexlet_functions.nexfile import FunctionFolder
    from nexlet_functions.rules import NamespaceRules
    from nexlet_sandboxes.zygote import Zygote

__all__ = ["Format", "check"]

_NAMESPACE = "default"
"""What messages call the namespace, which is only chosen when the function is deployed."""


class Format(enum.StrEnum):
    """How what was found is written."""

    TEXT = "text"
    JSON = "json"
    GITHUB = "github"


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
    watch: Annotated[
        bool, typer.Option("--watch", "-w", envvar="NEXFN_WATCH", help="Check again on every save, until Ctrl-C.")
    ] = False,
    settings_file: Annotated[
        Path | None,
        typer.Option(
            envvar="NEXFN_SETTINGS_FILE",
            metavar="FILE",
            help="An operator's settings file, for the modules that it permits functions to import.",
            show_default=False,
        ),
    ] = None,
    format: Annotated[  # noqa: A002  # the option's name
        Format | None,
        typer.Option(
            envvar="NEXFN_FORMAT",
            metavar="text|json|github",
            help="How to write it; github: as annotations of a pull request. Goes before --json and --text.",
            show_default=False,
        ),
    ] = None,
    json: Json = None,
) -> None:
    """Check functions: everything that a deployment would refuse, all problems at once."""
    # Pydantic would look through every installed distribution for plugins of its own, which takes longer than a check.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    output = Output(json=json if format is None else format is Format.JSON)
    modules: Modules = {}
    if settings_file is not None:
        from nexlet_functions.settings import Settings

        modules = Settings.read_modules(settings_file)
    checks = _Checks(folders, output, modules, load=load, github=format is Format.GITHUB)
    if watch:
        run_until_signalled(checks.watch, on_signal=lambda: None)
    elif asyncio.run(checks.once()):
        raise typer.Exit(Exit.FAILED)


@dataclass(slots=True)
class _Found:
    """What was found out about one function."""

    folder: Path
    name: str
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    load_seconds: float = 0.0
    events: int = 0


class _Checks:
    def __init__(self, folders: Sequence[Path], output: Output, modules: Modules, *, load: bool, github: bool) -> None:
        self._folders = folders
        self._output = output
        self._modules = modules
        self._load = load
        self._github = github

    async def once(self) -> int:
        """Checks them all; how many were refused."""
        async with _zygote_beside(self._modules) if self._load else nullcontext() as zygote:
            return await self._all(zygote)

    async def watch(self, asked: asyncio.Event) -> bool:
        """Checks them all, and again whenever something in their folders was saved, until `asked` is set."""
        from nexlet_functions.cli.devloop.saves import saves
        from nexlet_functions.errors import NexletFunctionsError

        roots = frozenset(each if each.is_dir() else each.parent for each in self._folders)
        first = True
        # The zygote's process begins before what listens: it is what takes longest.
        async with (
            _zygote_beside(self._modules) if self._load else nullcontext() as zygote,
            aclosing(saves(lambda: roots, recursive=True)) as bursts,
        ):
            while True:
                try:
                    saved = _relative(await anext(bursts))
                except ImportError:
                    raise CommandFailed(
                        Exit.USAGE,
                        "extra-missing",
                        "watching needs watchfiles",
                        "install it: pip install 'nexlet-functions[dev]'",
                    ) from None
                if asked.is_set():  # a cancellation may have been lost in what listens
                    return True
                if saved:
                    self._output.record("saved", styled((f"saved: {', '.join(saved)}", "dim")), files=saved)
                elif not first and not any(root.exists() for root in roots):
                    continue  # told of already, when it went
                try:
                    await self._all(zygote)
                except NexletFunctionsError as error:
                    if first:
                        raise
                    # The last function is gone: it may come back.
                    text = str(error)
                    self._output.record("check", styled(("error:", "bold red"), f" {text}"), ok=False, message=text)
                first = False
                self._output.record("watching", styled(("watching, Ctrl-C ends it", "dim")))

    async def _all(self, zygote: Awaitable[Zygote] | None) -> int:
        with loading():
            from nexlet_functions.functions import permissions  # noqa: F401  # with all that the rest needs
            from nexlet_functions.nexfile import find_functions
            from nexlet_functions.testing import worker  # noqa: F401  # as above

        refused = 0
        for folder in find_functions(self._folders):
            found = await self._one(folder, zygote)
            if self._github:
                _annotate(found)
            else:
                _tell(self._output, found)
            refused += bool(found.problems)
        return refused

    async def _one(self, folder: Path, zygote: Awaitable[Zygote] | None) -> _Found:
        from nexlet_functions.nexfile import FunctionRefused, read_function
        from nexlet_functions.testing.events import EventRefused, sample_events

        found = _Found(folder, _named(folder))
        try:
            function = read_function(folder)
            found.name = function.name
            found.problems += _ruled_out(function)
            found.warnings += _warnings(function)
            if function.start.source is not None:  # an artifact elsewhere is checked by the nexlet that fetches it
                await self._sources(function, zygote, found)
        except FunctionRefused as error:
            found.name = error.name
            found.problems += [*error.problems, *problems_of_refused(error, self._modules)]
        try:
            found.events = len(sample_events(folder))
        except EventRefused as error:
            found.problems += error.problems
        return found

    async def _sources(self, function: FunctionFolder, zygote: Awaitable[Zygote] | None, found: _Found) -> None:
        """What is wrong with the sources; if nothing is known by now, what goes wrong when the module runs as well."""
        from nexlet_sandboxes.outcomes import SandboxError

        if zygote is None or found.problems:
            found.problems += _static(function, self._modules)
            return
        try:
            ready = await zygote
            began = time.perf_counter()
            found.problems += await _trial_load(ready, function, self._modules)
            found.load_seconds = time.perf_counter() - began
        except SandboxError:
            # No worker is to be had here. What can be said without one is worth more to an author.
            found.problems += _static(function, self._modules)
            if not found.problems:
                raise


def _named(folder: Path) -> str:
    return folder.resolve().name


def _relative(paths: Iterable[Path]) -> list[str]:
    """Each once, as it is called from here."""
    return sorted({os.path.relpath(path) for path in paths})


@asynccontextmanager
async def _zygote_beside(modules: Modules) -> AsyncIterator[asyncio.Task[Zygote]]:
    """A zygote that gets ready while the sources are read, which takes as long. Who needs it waits for the task."""
    from nexlet_sandboxes.zygote import Zygote

    starting = asyncio.ensure_future(Zygote.start(modules=modules, short_lived=True, launched=ahead.take()))
    await asyncio.sleep(0)  # the task's first step makes the process, where there is none yet
    try:
        yield starting
    finally:
        starting.cancel()  # means nothing to one that is ready
        await asyncio.wait([starting])
        if not starting.cancelled() and starting.exception() is None:
            await starting.result().close()


class _DefaultRules:
    """The rules of a nexlet whose operator has said nothing. `Settings` has the same, and takes long to load."""

    default_profile: str
    max_workloads = 0

    def __init__(self) -> None:
        from nexlet_functions.rules import NamespaceRules
        from nexlet_sandboxes.profiles import DEFAULT

        self.default_profile = DEFAULT
        self._rules = NamespaceRules.model_validate({})

    def rules(self, namespace: str) -> NamespaceRules:
        return self._rules

    def profiles(self, namespace: str) -> tuple[str, ...]:
        return self._rules.profiles


class _EveryLayer:
    """A machine that has every profile: which of them a node's has, its operator is told by `doctor`."""

    def lacking(self, profile: str) -> tuple[str, ...]:
        return ()


def _ruled_out(function: FunctionFolder) -> list[Problem]:
    """What an operator's rules refuse of limits, sizes and the profile."""
    from nexlet_functions.functions.permissions import Policy, Usage
    from nexlet_functions.functions.requests import limits_of

    rules: Rules = _DefaultRules()
    limits = limits_of(function.start, rules.rules(_NAMESPACE).ceilings)
    problems = Policy(lambda: rules, _EveryLayer()).check(_NAMESPACE, function.start, limits, Usage())
    return [function.located(problem) for problem in problems]


def _warnings(function: FunctionFolder) -> list[Problem]:
    from nexlet_functions.functions.requests import KV_LIMIT

    size = len(json_.dumps(dict(function.request), ensure_ascii=False).encode())
    if function.start.source is None or size <= KV_LIMIT:
        return []
    return [
        function.document.problem(
            "start_request",
            f"a start request of {size} bytes is more than the {KV_LIMIT} that a node with --state kv keeps",
            advice="such a node forgets the function when it restarts: deploy the source as nats://BUCKET/OBJECT",
            code="too-large-for-kv",
            at_key=True,
        )
    ]


def _static(function: FunctionFolder, modules: Modules) -> list[Problem]:
    """What the policy says of the sources, which are not run for it."""
    from nexlet_functions.testing.worker import program_of
    from nexlet_sandboxes.language import check as check_program  # takes as long to load as half of the rest

    return list(check_program(program_of(function, environment={}, modules=modules)))


async def _trial_load(zygote: Zygote, function: FunctionFolder, modules: Modules) -> Sequence[Problem]:
    """What the policy says of the sources, or else what goes wrong when the module runs once, under its own limits."""
    from nexlet_functions.testing.worker import RecordingSink, limits_of, program_of
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


def _tell(output: Output, found: _Found) -> None:
    text = () if output.json else [*_verdict(found), *_warned(found)]
    warnings = [problem_record(problem) for problem in found.warnings] or None
    if found.problems:
        output.record(
            "check",
            text,
            name=found.name,
            folder=str(found.folder),
            ok=False,
            problems=[problem_record(problem) for problem in found.problems],
            warnings=warnings,
        )
        return
    output.record(
        "check",
        text,
        name=found.name,
        folder=str(found.folder),
        ok=True,
        load_ms=round(found.load_seconds * 1000, 1) if found.load_seconds else None,
        events=found.events,
        warnings=warnings,
    )


def _verdict(found: _Found) -> list[Any]:
    if found.problems:
        first, *rest = render(found.name, found.problems).splitlines()
        return [styled(("error:", "bold red"), " ", first), *rest]
    loaded = f", loaded in {found.load_seconds * 1000:.0f} ms" if found.load_seconds else ""
    sampled = f", {found.events} sample event{'s' if found.events != 1 else ''}" if found.events else ""
    return [styled(("ok:", "bold green"), " ", found.name, (f"  {found.folder}{loaded}{sampled}", "dim"))]


def _warned(found: _Found) -> list[Any]:
    lines: list[Any] = []
    for problem in found.warnings:
        first, *rest = problem.text().splitlines()
        lines += [styled(("warning:", "bold yellow"), " ", first), *(f"  {line}" for line in rest)]
    return lines


def _annotate(found: _Found) -> None:
    """One workflow command of GitHub Actions for each problem, which shows it beside the line it is about."""
    for level, problems in (("error", found.problems), ("warning", found.warnings)):
        for problem in problems:
            file = found.folder / problem.place
            fields = {
                "file": os.path.relpath(file if file.is_file() else found.folder / "Nexfile"),
                "line": problem.line,
                "col": problem.column,
                "endColumn": problem.end_column,
                "title": f"{found.name}: {problem.code}",
            }
            said = ",".join(f"{name}={_property(str(value))}" for name, value in fields.items() if value)
            text = f"{problem.message}\n{problem.advice}" if problem.advice else problem.message
            print(f"::{level} {said}::{_data(text)}", flush=True)  # noqa: T201  # this is the output


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
