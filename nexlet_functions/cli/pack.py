"""`pack`: a folder as one self-contained Nexfile, its source inline or in a bucket, its environment sealed if asked."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nexlet_functions.cli.completion import function_folders
from nexlet_functions.cli.exits import CommandFailed, Exit
from nexlet_functions.cli.nodes import EVERYWHERE, Namespace, Nodes, Session, session
from nexlet_functions.cli.options import CREDENTIALS, Json, setting_flags
from nexlet_functions.cli.output import Output, styled
from nexlet_functions.cli.own_log import set_up_logging

if TYPE_CHECKING:
    from nexlet_functions.nexfile import FunctionFolder

__all__ = ["pack"]

_TAG_LENGTH = 12
"""Digits of the checksum in an object's name: what was pushed is never overwritten by something else."""


@setting_flags(NATS=CREDENTIALS)
def pack(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="The function's folder.", show_default=False, autocompletion=function_folders
        ),
    ],
    *,
    to: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write to a file instead.", envvar="NEXFN_OUTPUT"),
    ] = None,
    seal: Annotated[
        bool,
        typer.Option(
            "--seal", envvar="NEXFN_SEAL", help="Encrypt the environment's values to the key of the nexlet that bids."
        ),
    ] = False,
    push: Annotated[
        str | None,
        typer.Option(
            "--push",
            envvar="NEXFN_PUSH",
            metavar="BUCKET",
            help="Put the source into an object store, with its sha256.",
        ),
    ] = None,
    namespace: Namespace = EVERYWHERE,
    nodes: Nodes = None,
    json: Json = None,
    flags: Mapping[str, object],
) -> None:
    """Print the Nexfile that `nex workload start -f` takes: the folder's sources are in it.

    nexfn pack samples/greet | nex workload start -f /dev/stdin -s URL --namespace demo

    NATS is spoken to for --seal and --push alone.
    """
    from nexlet_functions.nexfile import find_functions, read_function

    set_up_logging(level="error")
    found = find_functions([folder])
    if len(found) != 1:
        raise CommandFailed(
            Exit.USAGE,
            "several-functions",
            f"{folder} has several functions: {', '.join(each.name for each in found)}",
            "pack one at a time: a Nexfile is one function",
        )
    function = read_function(found[0])
    if seal or push:
        function = asyncio.run(_with_nats(function, namespace, nodes, flags, seal=seal, bucket=push))
    text = function.pack()
    if to is None:
        # Not a record: what is printed is the file, whoever reads it, and a Nexfile is UTF-8.
        sys.stdout.buffer.write(text.encode())
        sys.stdout.buffer.flush()
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
        uri=function.request.get("uri"),
        sha256=function.request.get("sha256"),
    )


async def _with_nats(
    function: FunctionFolder,
    namespace: str,
    nodes: int | None,
    flags: Mapping[str, object],
    *,
    seal: bool,
    bucket: str | None,
) -> FunctionFolder:
    request: dict[str, Any] = dict(function.request)
    async with session("pack", namespace, flags, nodes=nodes) as to:
        if seal:
            request |= await _sealed(function, to)
        if bucket is not None:
            request |= await _pushed(function, bucket, to)
            del request["source"]
    return replace(function, request=request)


async def _sealed(function: FunctionFolder, to: Session) -> dict[str, Any]:
    """The environment, in the two parts that it then has: what names a secret of the operator's stays as it is."""
    from nexlet_functions.functions.environment import seal_environment
    from nexlet_functions.functions.keys import CurveKey
    from nexlet_models.start_request import SECRET_PREFIX

    given = function.start.environment
    values = {name: value for name, value in given.items() if not value.get_secret_value().startswith(SECRET_PREFIX)}
    if function.start.encrypted_environment is not None:
        raise CommandFailed(
            Exit.USAGE,
            "sealed-already",
            f"{function.name} has an encrypted_environment already",
            "pack it without --seal",
        )
    if not values:
        raise CommandFailed(
            Exit.USAGE, "nothing-to-seal", f"{function.name} has no value in its environment", "pack it without --seal"
        )
    bids = await to.control.auction(function.type, tags=function.tags or None)
    keys = sorted({bid.xkey for bid in bids})
    if not keys:
        raise CommandFailed(
            Exit.UNREACHABLE,
            "no-bid",
            f"no nexlet of type '{function.type}' tells its key",
            "see what there is with `nex node ls` and `nex node info NODE`",
        )
    if len(keys) > 1:
        raise CommandFailed(
            Exit.FAILED,
            "several-keys",
            f"nexlets with different keys bid for it, and whichever gets it has to open it: {', '.join(keys)}",
            "have them share a key (--xkey-file of nexfn up), or choose one by the Nexfile's tags",
        )
    sealed = seal_environment(values, CurveKey.generate(), keys[0])
    kept = {name: value.get_secret_value() for name, value in given.items() if name not in values}
    return {"environment": kept, "encrypted_environment": sealed.model_dump()}


async def _pushed(function: FunctionFolder, bucket: str, to: Session) -> dict[str, str]:
    """Where the source is then. Helper modules stay inline: an artifact is one file."""
    import nats.errors
    import nats.js.errors

    from nexlet_functions.functions.artifacts import digest_of, object_of

    if function.start.source is None:
        raise CommandFailed(
            Exit.USAGE,
            "pushed-already",
            f"the source of {function.name} is elsewhere already",
            "pack it without --push",
        )
    data = function.start.source.encode()
    digest = digest_of(data)
    uri = f"nats://{bucket}/{function.name}:{digest[:_TAG_LENGTH]}"
    _, name = object_of(uri)
    try:
        store = await to.connection.client.jetstream().object_store(bucket)
        await store.put(name, data)
    except (nats.js.errors.NotFoundError, nats.js.errors.InvalidBucketNameError):
        raise CommandFailed(
            Exit.FAILED,
            "no-bucket",
            f"there is no object store bucket '{bucket}'",
            f"make it: nats object add {bucket}",
        ) from None
    except (nats.errors.Error, nats.js.errors.Error) as error:
        raise CommandFailed(
            Exit.FAILED,
            "not-pushed",
            f"the source could not be put into bucket '{bucket}': {error or type(error).__name__}",
            "the server needs JetStream, and these credentials its permission to write there",
        ) from None
    return {"uri": uri, "sha256": digest}
