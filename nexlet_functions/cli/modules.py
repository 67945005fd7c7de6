"""`modules`: what a function may import."""

from __future__ import annotations

import textwrap
from typing import Annotated

import typer

from nexlet_functions.cli.completion import module_names
from nexlet_functions.cli.exits import CommandFailed, Exit
from nexlet_functions.cli.options import Json
from nexlet_functions.cli.output import Output, styled

__all__ = ["modules"]


def modules(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODULE...]", help="Only these modules.", show_default=False, autocompletion=module_names
        ),
    ] = None,
    *,
    json: Json = None,
) -> None:
    """List the modules a function may import, with the names each of them gives."""
    from nexlet_sandboxes.language import module_listing

    listing = module_listing()
    unknown = [name for name in names or () if name not in listing]
    if unknown:
        raise CommandFailed(
            Exit.FAILED,
            "module-not-allowed",
            f"a function cannot import {', '.join(unknown)}",
            "'nexfn modules' lists what it can import; an operator may allow more by name, in the settings file",
        )
    output = Output(json=json)
    for module in names or sorted(listing):
        given = sorted(listing[module])
        wrapped = textwrap.wrap(", ".join(given), 100, break_on_hyphens=False)
        output.record(
            "module", [styled((module, "bold")), *(f"  {line}" for line in wrapped)], module=module, names=given
        )
