"""`secrets`: set, list and remove the secrets of a namespace, in a bucket where only nexlets can open them."""

from __future__ import annotations

import asyncio
import enum
import getpass
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nexlet_functions.cli.exits import CommandFailed, Exit
from nexlet_functions.cli.nodes import EVERYWHERE, Namespace, Nodes, Session, aligned, session
from nexlet_functions.cli.options import CREDENTIALS, Json, setting_flags
from nexlet_functions.cli.output import Output, styled
from nexlet_functions.cli.own_log import set_up_logging

if TYPE_CHECKING:
    from pydantic import SecretStr

    from nexlet_functions.secrets.bucket import SecretsBucket

__all__ = ["secrets"]

DEFAULT_BUCKET = "nexlet-secrets"

_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,252}")


class Action(enum.StrEnum):
    """What is done."""

    SET = "set"
    LIST = "list"
    REMOVE = "remove"


@setting_flags(NATS=CREDENTIALS)
def secrets(
    action: Annotated[Action, typer.Argument(metavar="{set|list|remove}", help="What is to be done.")],
    key: Annotated[
        str | None, typer.Argument(metavar="[KEY]", help="The secret's name; not for list.", show_default=False)
    ] = None,
    *,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            envvar="NEXFN_FILE",
            exists=True,
            dir_okay=False,
            metavar="FILE",
            help="Take the value from a file. Without it: from standard input, or asked for on a terminal.",
            show_default=False,
        ),
    ] = None,
    xkey: Annotated[
        list[str] | None,
        typer.Option(
            "--xkey",
            envvar="NEXFN_XKEY",
            metavar="KEY",
            help="Public curve key that can open it. Repeatable. [default: those of the nexlets that bid]",
            show_default=False,
        ),
    ] = None,
    kind: Annotated[
        str, typer.Option("--type", envvar="NEXFN_TYPE", help="Type of the nexlets that are asked for their keys.")
    ] = "python",
    bucket: Annotated[
        str,
        typer.Option(
            "--secrets-bucket", envvar="NEXFN_SECRETS_BUCKET", metavar="BUCKET", help="KV bucket they are in."
        ),
    ] = DEFAULT_BUCKET,
    namespace: Namespace = EVERYWHERE,
    nodes: Nodes = None,
    json: Json = None,
    flags: Mapping[str, object],
) -> None:
    """Set, list and remove secrets of a namespace, which functions name as secret://KEY.

    A value comes from standard input, from --file or from a prompt, never from an argument, and is sealed here: the
    bucket has what the nexlets alone can open. A function gets a new value when it is deployed again.
    """
    set_up_logging(level="error")
    if (key is None) != (action is Action.LIST):
        said = "list takes no key" if key is not None else f"{action} takes a key"
        raise CommandFailed(Exit.USAGE, "invalid-key", said, "as in: nexfn secrets set api-token")
    if key is not None and not _KEY.fullmatch(key):
        raise CommandFailed(
            Exit.USAGE, "invalid-key", f"'{key[:80]}' is no name of a secret", "use letters, digits and . _ -"
        )
    value = _value(file, key or "") if action is Action.SET else None
    asyncio.run(_do(action, key or "", value, xkey or (), kind, bucket, Output(json=json), namespace, nodes, flags))


def _value(file: Path | None, key: str) -> SecretStr:
    """The value, wherever it comes from.

    Raises:
        CommandFailed: it cannot be read, is empty, too large, or no text.
    """
    from pydantic import SecretStr

    from nexlet_functions.runner.secrets import MAX_SECRET

    try:
        if file is not None:
            with file.open("rb") as opened:
                data = opened.read(MAX_SECRET + 1)
        elif sys.stdin.isatty():
            data = getpass.getpass(f"value of {key}: ").encode()
        else:
            data = sys.stdin.buffer.read(MAX_SECRET + 1)
        text = data.decode()
    except UnicodeDecodeError:
        raise CommandFailed(Exit.USAGE, "invalid-value", "the value is not UTF-8 text", "encode it as base64") from None
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise CommandFailed(Exit.USAGE, "invalid-value", f"the value cannot be read: {reason}", "") from None
    if len(data) > MAX_SECRET:
        raise CommandFailed(
            Exit.USAGE, "invalid-value", f"the value is larger than {MAX_SECRET} bytes", "keep it as an artifact"
        )
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise CommandFailed(Exit.USAGE, "invalid-value", "the value is empty", f"remove it: nexfn secrets remove {key}")
    return SecretStr(text)


async def _do(
    action: Action,
    key: str,
    value: SecretStr | None,
    xkeys: Sequence[str],
    kind: str,
    bucket: str,
    output: Output,
    namespace: str,
    nodes: int | None,
    flags: Mapping[str, object],
) -> None:
    from nexlet_functions.natsio.bucket import BucketUnavailable
    from nexlet_functions.secrets.bucket import SecretsBucket

    async with session("secrets", namespace, flags, nodes=nodes) as to:
        kept = SecretsBucket(to.connection, bucket)
        try:
            if action is Action.LIST:
                await _list(kept, namespace, output)
            elif action is Action.REMOVE:
                await _remove(kept, namespace, key, output)
            else:
                assert value is not None, "set has a value"
                await _set(kept, namespace, key, value, xkeys or await _keys(to, kind), output)
        except BucketUnavailable as error:
            advice = {
                "missing": f"make it once: nats kv add {bucket}",
                "refused": "these credentials need the permission to publish there",
            }.get(error.kind, "try again")
            raise CommandFailed(Exit.FAILED, "bucket-unavailable", error.reason, advice) from None


async def _keys(to: Session, kind: str) -> list[str]:
    bids = await to.control.auction(kind)
    keys = sorted({bid.xkey for bid in bids if bid.xkey})
    if not keys:
        raise CommandFailed(
            Exit.UNREACHABLE,
            "no-bid",
            f"no nexlet of type '{kind}' tells its key",
            "name its public curve key with --xkey",
        )
    return keys


async def _set(
    kept: SecretsBucket, namespace: str, key: str, value: SecretStr, xkeys: Sequence[str], output: Output
) -> None:
    from nexlet_functions.functions.keys import public_key_problem
    from nexlet_functions.secrets.sealed import seal

    for each in xkeys:
        if (reason := public_key_problem(each)) is not None:
            raise CommandFailed(Exit.USAGE, "invalid-xkey", f"--xkey: '{each[:80]}' is no public curve key: {reason}")
    replaces = await kept.get(namespace, key) is not None
    await kept.put(namespace, key, seal(namespace, key, value, xkeys, now=datetime.now(UTC)))
    output.record(
        "set",
        styled(
            ("replaced" if replaces else "set", "green"),
            f"  {key}  in {namespace}, sealed to {len(xkeys)} key{'s' if len(xkeys) > 1 else ''}",
        ),
        key=key,
        namespace=namespace,
        replaced=replaces,
        sealed_to=list(xkeys),
    )


async def _remove(kept: SecretsBucket, namespace: str, key: str, output: Output) -> None:
    if not await kept.remove(namespace, key):
        raise CommandFailed(
            Exit.FAILED, "no-secret", f"namespace {namespace} has no secret '{key}' there", "see: nexfn secrets list"
        )
    output.record("removed", styled(("removed", "green"), f"  {key}  in {namespace}"), key=key, namespace=namespace)


async def _list(kept: SecretsBucket, namespace: str, output: Output) -> None:
    found = await kept.list(namespace)
    if output.json:
        for one in found:
            output.record(
                "secret", key=one.key, namespace=namespace, set_at=one.set_at, sealed_to=list(one.sealed_to)
            )  # fmt: skip
    elif found:
        rows = [("KEY", "SET", "SEALED TO")]
        rows += [
            (one.key, one.set_at or "?", ", ".join(each[:8] for each in one.sealed_to) or "nobody") for one in found
        ]
        for number, row in enumerate(aligned(rows)):
            output.record("secret", styled(("  ".join(row), "dim" if number == 0 else "")))
    else:
        output.record("none", f"namespace {namespace} has no secrets there")
