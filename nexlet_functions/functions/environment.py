"""What a function sees as `context.env`: plain values, values of secrets, and what was sealed to the nexlet's key.

`open_environment` makes one table of the three, or raises `Refusal` with every name that is wrong. A name stands
once: a sealed value that a plain one could overrule would be no protection. A sealed value is taken as it is,
`secret://` included, so that who seals something decides what it is. No text made here ever has a value in it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Protocol

import orjson
from pydantic import SecretStr

from nexlet_functions.functions.keys import CannotOpen, CurveKey
from nexlet_functions.functions.refusals import Refusal
from nexlet_functions.runner.agent import AgentError
from nexlet_models.problems import Problem
from nexlet_models.sizes import format_size
from nexlet_models.start_request import SECRET_PREFIX, SealedEnvironment, StartRequest

__all__ = ["MAX_ENVIRONMENT", "Secrets", "open_environment", "seal_environment", "secret_values"]

MAX_ENVIRONMENT = 1024 * 1024
"""Bytes of all names and values: as much as a start request may have by default, so that secrets add no other bound."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


class Secrets(Protocol):
    """Where secrets come from; a runner's `Services` is one."""

    async def get_namespace_secret(self, namespace: str, key: str) -> SecretStr:
        """The value of a secret; see `Services`."""
        ...


async def open_environment(
    request: StartRequest, namespace: str, *, secrets: Secrets, key: CurveKey
) -> dict[str, SecretStr]:
    """Names to values, all of them ready to use.

    Raises:
        Refusal: a secret is not there, what was sealed cannot be opened, a name stands twice, or there is too much.
    """
    problems: list[Problem] = []
    opened: dict[str, SecretStr] = {}
    if request.encrypted_environment is not None:
        try:
            opened = _unseal(request.encrypted_environment, key)
        except Refusal as refusal:
            problems += refusal.problems
    problems += [
        Problem(
            f"'{name}' is in encrypted_environment, too",
            f"environment.{name}",
            advice="say it once",
            code="duplicate-variable",
        )
        for name in request.environment
        if name in opened
    ]
    names = list(request.environment)
    values = await asyncio.gather(
        *(_value(name, request.environment[name], namespace, secrets) for name in names), return_exceptions=True
    )
    for name, value in zip(names, values, strict=True):
        if isinstance(value, Refusal):
            problems += value.problems
        elif isinstance(value, BaseException):
            raise value
        else:
            opened.setdefault(name, value)
    size = sum(len(name) + len(value.get_secret_value().encode()) for name, value in opened.items())
    if size > MAX_ENVIRONMENT:
        problems.append(
            Problem(
                f"the environment is larger than {format_size(MAX_ENVIRONMENT)}",
                "environment",
                advice="keep what is large in a bucket",
                code="too-large",
            )
        )
    if problems:
        raise Refusal(*problems)
    return opened


async def _value(name: str, value: SecretStr, namespace: str, secrets: Secrets) -> SecretStr:
    text = value.get_secret_value()
    if not text.startswith(SECRET_PREFIX):
        return value
    try:
        return await secrets.get_namespace_secret(namespace, text.removeprefix(SECRET_PREFIX))
    except AgentError as error:
        raise Refusal(
            Problem(
                f"{text} cannot be had: {error.text.splitlines()[0] if error.text else 'it is missing'}",
                f"environment.{name}",
                advice=f"ask the operator to put it into the nexlet's secrets, for namespace '{namespace}'",
                code="secret-missing",
            )
        ) from None


def secret_values(request: StartRequest, environment: Mapping[str, str]) -> set[str]:
    """Those values of an environment that are not in the request for everyone to read.

    Args:
        environment: what `open_environment` made of the request.
    """
    plain = {
        name for name, value in request.environment.items() if not value.get_secret_value().startswith(SECRET_PREFIX)
    }
    return {value for name, value in environment.items() if name not in plain}


def _unseal(sealed: SealedEnvironment, key: CurveKey) -> dict[str, SecretStr]:
    place = "encrypted_environment"
    try:
        text = key.open(base64.b64decode(sealed.base64_encrypted_env, validate=True), sealed.encrypted_by)
    except CannotOpen as error:
        raise Refusal(
            Problem(
                f"cannot be opened: {error}",
                place,
                advice=f"seal it to the key of this nexlet, {key.public}; nexlets that share a key open each other's",
                code="cannot-open",
            )
        ) from None
    except binascii.Error:
        raise Refusal(Problem("is not base64", place, advice="seal it anew", code="bad-base64")) from None
    try:
        table = orjson.loads(text) if text else {}
    except ValueError:
        table = None
    if not isinstance(table, dict) or not all(isinstance(value, str) for value in table.values()):
        raise Refusal(
            Problem("does not hold a JSON object of texts", place, advice="seal such an object", code="bad-environment")
        )
    wrong = [name for name in table if not _NAME.fullmatch(name)]
    if wrong:
        raise Refusal(
            Problem(
                f"{len(wrong)} of its names are no names of variables" if len(wrong) > 1 else "a name in it is none",
                place,
                advice="use letters, digits and _",
                code="bad-variable",
            )
        )
    return {name: SecretStr(value) for name, value in table.items()}


def seal_environment(values: Mapping[str, SecretStr], key: CurveKey, recipient: str) -> SealedEnvironment:
    """`values` so that only `recipient` (a public curve key) can read them.

    Raises:
        ValueError: `recipient` is no public curve key.
    """
    text = json.dumps({name: value.get_secret_value() for name, value in values.items()})
    sealed = base64.b64encode(key.seal(text.encode(), recipient)).decode()
    return SealedEnvironment(encrypted_by=key.public, base64_encrypted_env=sealed)
