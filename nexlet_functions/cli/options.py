"""Options that several commands share, and those that are settings of the nexlet.

Every option has an environment twin: `--log-level` is `NEXFN_LOG_LEVEL`. The options that are settings are made from
`nexlet_functions.settings.Settings`, so that a setting's name, its description and its twin are said once.
"""

from __future__ import annotations

import enum
import functools
import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import typer

from nexlet_functions.cli.completion import function_folders
from nexlet_functions.cli.exits import CommandFailed, Exit

__all__ = ["CREDENTIALS", "SELDOM", "Folders", "Form", "Json", "SecretsDir", "Workloads", "duration", "setting_flags"]


class Form(enum.StrEnum):
    """How it is written."""

    TEXT = "text"
    JSON = "json"


Json = Annotated[
    bool | None,
    typer.Option(
        "--json/--text",
        envvar="NEXFN_JSON",
        help="Results as JSON lines, or as text. By default: text on a terminal, JSON lines in a pipe.",
        show_default=False,
    ),
]

Folders = Annotated[
    list[Path],
    typer.Argument(
        metavar="DIR...",
        help="Function folders, or folders of function folders.",
        show_default=False,
        autocompletion=function_folders,
    ),
]

SecretsDir = Annotated[
    Path | None,
    typer.Option(
        "--secrets-dir",
        envvar="NEXFN_SECRETS_DIR",
        exists=True,
        file_okay=False,
        metavar="DIR",
        help="Where the secrets of functions here are, NAMESPACE/KEY. [default: 'secrets' in DIR or beside it]",
        show_default=False,
    ),
]

Workloads = Annotated[
    list[str] | None,
    typer.Argument(metavar="[NAME|ID...]", help="Functions by name or id; all when none is named.", show_default=False),
]

CREDENTIALS = (
    "servers",
    "creds",
    "nkey",
    "user",
    "password_file",
    "token_file",
    "tls_ca",
    "tls_cert",
    "tls_key",
    "tls_first",
)
"""The settings by which NATS is reached. Passwords and tokens are read from files, or from NEXFN_PASSWORD and
NEXFN_TOKEN: an argument is visible to everyone on the machine."""

_ALIASES: dict[str, tuple[str, ...]] = {"servers": ("--server", "-s")}
_FURTHER_VARIABLES: dict[str, tuple[str, ...]] = {"servers": ("NATS_URL",)}
_METAVARS = {
    "servers": "URL",
    "creds": "FILE",
    "nkey": "FILE",
    "password_file": "FILE",
    "token_file": "FILE",
    "tls_ca": "FILE",
    "tls_cert": "FILE",
    "tls_key": "FILE",
    "settings_file": "FILE",
    "xkey_file": "FILE",
    "state_dir": "DIR",
    "secrets_dir": "DIR",
    "source_folders": "DIR",
    "grace": "DURATION",
    "artifact_timeout": "DURATION",
    "connect_timeout": "DURATION",
    "ping_interval": "DURATION",
    "max_workloads": "N",
    "max_idle_workers": "N",
    "reserve_workers": "N",
    "max_pending": "N",
    "max_pending_bytes": "SIZE",
    "max_outgoing": "SIZE",
    "max_requests": "N",
    "max_starting": "N",
    "max_hops": "N",
    "max_calls_at_once": "N",
    "max_calls_bytes": "SIZE",
    "max_call_size": "SIZE",
    "schedules_bucket": "BUCKET",
    "secrets_bucket": "BUCKET",
    "metrics": "HOST:PORT",
    "metrics_interval": "DURATION",
    "log_levels": "LOGGER=LEVEL",
}
"""What a value looks like in `--help`; TEXT where nothing is said."""


SELDOM: Final = "Seldom"
"""The heading of options that work and that the pages list, but which `--help` leaves out: it is to fit a screen."""


def setting_flags(**panels: tuple[str, ...]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command one option for each of these settings.

    The command receives them as `flags`: the name of a setting to what the command line says about it. What the
    environment says is left to `Settings.read`, which then can name the variable that is wrong.

    Args:
        panels: names of settings by the heading that they stand under in `--help`, `_` for a space.
    """
    from nexlet_functions.settings import Settings, flag, variable

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(function, eval_str=True)
        kept = [parameter for name, parameter in signature.parameters.items() if name != "flags"]
        for panel, names in panels.items():
            for name in names:
                field = Settings.model_fields[name]
                is_flag = field.annotation is bool
                default = field.get_default(call_default_factory=True)
                kept.append(
                    inspect.Parameter(
                        name,
                        inspect.Parameter.KEYWORD_ONLY,
                        # Shown in `--help`; what was not given is left to `Settings`.
                        default=False if is_flag else _shown(default) or None,
                        annotation=Annotated[
                            bool if is_flag else str | None,
                            typer.Option(
                                *(flag(name), *_ALIASES.get(name, ())),
                                envvar=[variable(name), *_FURTHER_VARIABLES.get(name, ())],
                                help=_sentence(field.description or ""),
                                rich_help_panel=panel.replace("_", " "),
                                hidden=panel == SELDOM,
                                metavar=None if is_flag else _METAVARS.get(name, "TEXT"),
                                show_default=bool(_shown(default)),
                            ),
                        ],
                    )
                )
        context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
        names = tuple(name for each in panels.values() for name in each)

        @functools.wraps(function)
        def with_flags(ctx: typer.Context, *args: Any, **given: Any) -> None:
            flags = {name: given.pop(name) for name in names}
            function(*args, **given, flags=_from_command_line(ctx, flags))

        parameters = [context, *kept]
        with_flags.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # as inspect documents
        with_flags.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return with_flags

    return decorate


def duration(text: str, option: str) -> float:
    """Seconds of a duration as Go writes it, given with `option`.

    Raises:
        CommandFailed: it is none, or not above 0.
    """
    from nexlet_models.durations import parse_duration
    from nexlet_models.errors import InvalidDuration

    try:
        seconds = parse_duration(text)
    except InvalidDuration as error:
        raise CommandFailed(Exit.USAGE, "invalid-duration", f"{option}: {error}") from None
    if seconds <= 0:
        raise CommandFailed(Exit.USAGE, "invalid-duration", f"{option}: a time above 0 is expected, such as 5s")
    return seconds


def _from_command_line(ctx: typer.Context, flags: Mapping[str, Any]) -> dict[str, object]:
    """Those of `flags` that were given as arguments, or by a variable that `Settings` does not know.

    Raises:
        CommandFailed: a server's URL given as an argument has a password in it.
    """
    result: dict[str, object] = {}
    for name, value in flags.items():
        source = ctx.get_parameter_source(name)
        given = source is not None and source.name == "COMMANDLINE"
        further = any(os.environ.get(each) for each in _FURTHER_VARIABLES.get(name, ()))
        if value is None or not (given or (further and not os.environ.get(f"NEXFN_{name.upper()}"))):
            continue
        if given and name == "servers":
            _without_secrets(str(value))
        # What is typed is relative to where it is typed; a service's settings are not relative to anything.
        result[name] = _absolute(value) if _METAVARS.get(name) in ("FILE", "DIR") else value
    return result


def _absolute(paths: str) -> str:
    return os.pathsep.join(str(Path(path).absolute()) for path in paths.split(os.pathsep) if path)


def _without_secrets(servers: str) -> None:
    for server in servers.split(","):
        if urlsplit(server if "//" in server else f"nats://{server}").username is not None:
            raise CommandFailed(
                Exit.USAGE,
                "secret-in-argument",
                "a server's URL on the command line may not have a user, a password or a token in it: everyone on this "
                "machine can read it",
                "use --user and --password-file, --token-file, --creds or --nkey, or put the URL into NATS_URL",
            )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _shown(default: Any) -> str:
    """A default as `--help` shows it, in brackets; "" for none."""
    from nexlet_models.durations import format_duration

    if isinstance(default, float):
        return format_duration(default)
    if isinstance(default, tuple):
        return ",".join(str(each) for each in default)
    return "" if default in (None, False, "", {}) else str(default)
