"""`pack`: a function's folder as one self-contained Nexfile."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from nexlet_functions.cli.exits import CommandFailed, Exit
from nexlet_functions.cli.options import Json
from nexlet_functions.cli.output import Output, styled

__all__ = ["pack"]


def pack(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The function's folder.", show_default=False)],
    *,
    to: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write to a file instead.", envvar="NEXFN_OUTPUT"),
    ] = None,
    json: Json = None,
) -> None:
    """Print the Nexfile that `nex workload start -f` takes: the folder's sources are in it.

    nexfn pack samples/greet | nex workload start -f /dev/stdin -s URL --namespace demo
    """
    from nexlet_functions.nexfile import find_functions, read_function

    found = find_functions([folder])
    if len(found) != 1:
        raise CommandFailed(
            Exit.USAGE,
            "several-functions",
            f"{folder} has several functions: {', '.join(each.name for each in found)}",
            "pack one at a time: a Nexfile is one function",
        )
    function = read_function(found[0])
    text = function.pack()
    if to is None:
        # Not a record: what is printed is the file, whoever reads it.
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    try:
        to.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandFailed(
            Exit.USAGE, "not-written", f"{to} cannot be written: {error.strerror or error}", "name another file"
        ) from None
    size = len(text.encode())
    Output(json=json).record(
        "packed",
        styled((function.name, "bold"), f" packed into {to} ({size} bytes)"),
        name=function.name,
        file=str(to),
        bytes=size,
    )
