"""`init`: a new function's folder, from one of the templates of the package.

A template is a folder of `nexlet_functions/templates`: a function as its author would keep it, with `@NAME@` where the
name goes. What every function gets besides is in `_every`. The test file is named after the function, because pytest
tells test files of several folders apart by their names.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from nexlet_functions.cli.exits import CommandFailed, Exit
from nexlet_functions.cli.options import Json
from nexlet_functions.cli.output import Output, styled

__all__ = ["TEMPLATES", "init"]

TEMPLATES = ("request", "consumer", "router", "batch")
"""In the order of `--list`; the first is the default."""

_FOLDER = Path(__file__).parents[1] / "templates"
_EVERY = "_every"
_PLACEHOLDER = "@NAME@"

_SERVICE_NAME = re.compile(r"[A-Za-z0-9_-]+")
"""What NATS takes as a service's name (ADR-32), so that a function's name is good wherever a name is asked for."""


def init(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="[NAME]", help="The function's name: of a folder that is made here, or a path.", show_default=False
        ),
    ] = None,
    *,
    template: Annotated[
        str,
        typer.Option(
            "--template",
            "-t",
            envvar="NEXFN_TEMPLATE",
            metavar="TEMPLATE",
            help="What to begin with.",
            autocompletion=lambda incomplete: [each for each in TEMPLATES if each.startswith(incomplete)],
        ),
    ] = TEMPLATES[0],
    list_: Annotated[
        bool, typer.Option("--list", envvar="NEXFN_LIST", help="Show the templates, and make nothing.")
    ] = False,
    json: Json = None,
) -> None:
    """Make a new function: source, Nexfile, sample events, a test that passes, editor settings."""
    output = Output(json=json)
    if list_:
        for each in TEMPLATES:
            output.record(
                "template", styled((f"{each:<10}", "bold"), _described(each)), name=each, description=_described(each)
            )
        return
    if folder is None:
        raise CommandFailed(
            Exit.USAGE, "name-missing", "the function has no name", "nexfn init NAME; nexfn init --list for templates"
        )
    if template not in TEMPLATES:
        raise CommandFailed(
            Exit.USAGE, "unknown-template", f"there is no template '{template}'", f"one of: {', '.join(TEMPLATES)}"
        )
    name = folder.resolve().name
    if _SERVICE_NAME.fullmatch(name) is None:
        raise CommandFailed(
            Exit.USAGE,
            "invalid-name",
            f"'{name}' cannot be a function's name",
            "use letters, digits, '-' and '_'",
        )
    files = dict(_files(template, name))
    _write(folder, files)
    shown = str(folder)
    output.record(
        "created",
        [
            styled(("created", "bold green"), f"  {shown}  from the template {template}"),
            *(f"  {file}" for file in files),
            "next:",
            *([f"  cd {shown}"] if folder.resolve() != Path.cwd() else []),
            "  python -m pytest",
            "  nexfn check .",
            "  nexfn dev .",
        ],
        name=name,
        folder=shown,
        template=template,
        files=list(files),
    )


def _described(template: str) -> str:
    docstring = ast.get_docstring(ast.parse((_FOLDER / template / "function.py").read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]


def _files(template: str, name: str) -> Iterator[tuple[str, str]]:
    """Names within the folder, and texts."""
    for root in (_FOLDER / template, _FOLDER / _EVERY):
        for file in sorted(root.rglob("*")):
            if not file.is_file() or "__pycache__" in file.parts:
                continue
            within = file.relative_to(root)
            if within.name == "test_function.py":
                within = within.with_name(f"test_{name.replace('-', '_')}.py")
            yield str(within), file.read_text(encoding="utf-8").replace(_PLACEHOLDER, name)


def _write(folder: Path, files: dict[str, str]) -> None:
    """Write into a folder that is not there, or empty.

    Raises:
        CommandFailed: it is something else, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = sorted(each.name for each in folder.iterdir())
        if there:
            raise CommandFailed(
                Exit.USAGE,
                "folder-not-empty",
                f"{folder} is not empty: there is {', '.join(there[:3])}{', ...' if len(there) > 3 else ''}",
                "choose another name, or an empty folder; nothing was written",
            )
        for name, text in files.items():
            file = folder / name
            file.parent.mkdir(exist_ok=True)
            with file.open("x", encoding="utf-8") as opened:
                opened.write(text)
    except FileExistsError:
        raise CommandFailed(
            Exit.USAGE, "folder-not-empty", f"{folder} is a file", "choose another name; nothing was written"
        ) from None
    except OSError as error:
        raise CommandFailed(
            Exit.USAGE, "not-written", f"{error.filename or folder} cannot be written: {error.strerror or error}"
        ) from None
