"""The root of the command line: which commands there are, and how each of them ends.

A command's module is imported when the command is asked for, and its function is found by its name. What a command
raises becomes a text on standard error and an exit code here, and nowhere else.
"""

from __future__ import annotations

import ast
import functools
import importlib
import io
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from nexlet_functions.cli.exits import CommandFailed, CommandRefused, Exit
from nexlet_functions.cli.output import Output
from nexlet_functions.cli.running import loading

__all__ = ["COMMANDS", "app", "expected_failure", "load_command", "run"]

COMMANDS = (
    "init", "dev", "replay", "up", "invoke", "check", "pack", "deploy", "list", "stop", "logs", "top", "dlq", "secrets",
    "modules", "doctor", "version",
)  # fmt: skip
"""In the order of `--help`; the module `nexlet_functions.cli.NAME` has the function `NAME`."""

_PROGRAM = "nexlet-functions"


class _Commands(TyperGroup):
    """A group that loads a command when it is asked for."""

    _offering = False

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if self._offering:
            return TyperCommand(cmd_name, help=_summary(cmd_name))
        return load_command(cmd_name) if cmd_name in COMMANDS else None

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """What TAB offers: names with a line about each, for which no command is loaded."""
        self._offering = True
        try:
            return super().shell_complete(ctx, incomplete)
        finally:
            self._offering = False


def _summary(name: str) -> str:
    """The first line of a command's description, read from its source."""
    tree = ast.parse(Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8"))
    named = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)
    return next(((ast.get_docstring(node) or "").partition("\n")[0] for node in named), "")


app = typer.Typer(
    name=_PROGRAM,
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from nexlet_functions.cli.version import version

        version(json=None)
        raise typer.Exit


@app.callback()
def _root(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Python functions on NATS, each in its own locked process: the Python nexlet for Nex."""


@functools.cache
def load_command(name: str) -> TyperCommand:
    """The command of that name, ready to be run by the group.

    Args:
        name: one of `COMMANDS`.
    """
    with loading():
        module = importlib.import_module(f"nexlet_functions.cli.{name}")
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    single.command(name, context_settings={"help_option_names": ["-h", "--help"]})(_ended(getattr(module, name)))
    command = typer.main.get_command(single)
    assert isinstance(command, TyperCommand)
    # As wide as the terminal is, and not as the source: beyond the first paragraph, line ends would stay.
    command.help = "\n\n".join(" ".join(each.split()) for each in (command.help or "").split("\n\n"))
    return command


def _ended(function: Callable[..., None]) -> Callable[..., None]:
    """`function`, whose expected failures end the process with their exit code."""

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except CommandFailed as failure:
            _fail(failure, kwargs.get("json"))
        except Exception as raised:
            error = _alone(raised)
            expected = expected_failure(error)
            if expected is not None:
                _fail(expected, kwargs.get("json"))
            if isinstance(error, BrokenPipeError):
                raise error from None  # nobody reads any more: the group ends quietly
            raise

    return guarded


def _alone(error: Exception) -> Exception:
    """What was raised in a task group, where that was one thing alone."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _fail(failure: CommandFailed, json: bool | None) -> None:
    Output(json=json).error(failure)
    raise typer.Exit(failure.exit)


def expected_failure(error: Exception) -> CommandFailed | None:
    """What a person made wrong, as a failure with its exit code; None for anything else, which is a fault of ours."""
    from nexlet_functions.errors import NexletFunctionsError, SettingsRefused
    from nexlet_functions.nexfile import FunctionRefused
    from nexlet_functions.testing.events import EventRefused
    from nexlet_models.errors import MalformedMessage
    from nexlet_sandboxes.outcomes import SandboxError

    match error:
        case FunctionRefused() | EventRefused():
            return CommandRefused(error.name, error.problems)
        case SettingsRefused():
            return CommandRefused("settings", error.problems, exit=Exit.USAGE, code=error.code)
        case NexletFunctionsError():
            return CommandFailed(_EXITS.get(error.code, Exit.USAGE), error.code, str(error))
        case SandboxError() | MalformedMessage():
            return CommandFailed(Exit.FAILED, error.code, str(error))
    return None


_EXITS = {
    "connect-failed": Exit.UNREACHABLE,
    "connection-lost": Exit.UNREACHABLE,
    "no-responders": Exit.UNREACHABLE,
    "no-bid": Exit.UNREACHABLE,
    "no-answer": Exit.UNREACHABLE,
    "request-timeout": Exit.TIMEOUT,
    "control-refused": Exit.FAILED,
    "payload-too-large": Exit.FAILED,
    "old-one-left": Exit.FAILED,
    "unknown-workload": Exit.FAILED,
    "ambiguous-workload": Exit.FAILED,
    "publish-refused": Exit.FAILED,
    "jetstream-refused": Exit.FAILED,
    "no-dead-letters": Exit.FAILED,
    "subscription-refused": Exit.FAILED,
    "layers-missing": Exit.FAILED,
    "take-over-failed": Exit.FAILED,
}
"""By the stable code of an error; what is not here is a file or a setting that someone has to mend."""


def run() -> None:
    """Run with the process's arguments, and end the process."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a letter that an output does not have is no reason to end
    try:
        app(prog_name=_program_name())
    except Exception:  # noqa: BLE001  # the last place that can tell a fault of ours from a refusal
        traceback.print_exc()
        print(  # noqa: T201  # the logging of a command may not be set up yet
            "\nerror: this is a fault in nexlet-functions, not in what you did: please report the lines above",
            file=sys.stderr,
        )
        sys.exit(Exit.INTERNAL)


def _program_name() -> str:
    name = sys.argv[0].rpartition("/")[2]
    return name if name in ("nexfn", _PROGRAM) else _PROGRAM
