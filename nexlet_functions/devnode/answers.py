"""How the stand-in node answers: with a message, with an agent's own answer, with an error, or not at all."""

from __future__ import annotations

from typing import Any, TypeVar

from nats.aio.msg import Msg
from nats.micro.request import Request

from nexlet_models import subjects
from nexlet_models.base import ListMessage, MapMessage, Message
from nexlet_models.errors import MalformedMessage

__all__ = ["Answer", "Refusal", "Relayed", "namespace_and_id", "read", "same_namespace"]

_M = TypeVar("_M", bound=Message)


class Relayed:
    """An agent's answer, passed on as it is, headers included."""

    def __init__(self, message: Msg) -> None:
        self.data = message.data
        self.headers = dict(message.headers or {})


class Refusal(Exception):
    """An answer that is an error.

    Attributes:
        code: as HTTP has it; of 500 and more the client learns no detail.
        headline: the header's text.
        detail: the body's.
    """

    def __init__(self, code: int, headline: str, detail: str) -> None:
        self.code = code
        self.headline = headline
        self.detail = detail
        super().__init__(headline)


Answer = Message | MapMessage[Any] | ListMessage[Any] | Relayed | bytes | None
"""What a handler returns; None is silence."""


def read(kind: type[_M], request: Request, headline: str) -> _M:
    """The request as the message it should be.

    Raises:
        Refusal: it is not; `headline` is what the client reads.
    """
    try:
        return kind.from_json(request.data)
    except MalformedMessage as error:
        raise Refusal(400, headline, str(error)) from None


def namespace_and_id(request: Request) -> tuple[str, str]:
    """Both, from `$NEX.SVC.NS.control.VERB.ID`."""
    parts = request.subject.split(".", 5)
    return parts[2], parts[5]


def same_namespace(caller: str, wanted: str) -> None:
    """Let a caller act on its own namespace, and `system` on any.

    Raises:
        Refusal: it is another's.
    """
    if caller not in (wanted, subjects.SYSTEM):
        raise Refusal(403, f"namespace mismatch: {caller} != {wanted}", "namespace mismatch")
