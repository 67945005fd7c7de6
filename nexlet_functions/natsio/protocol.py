"""The few pieces of the NATS client protocol that we write ourselves: header blocks, PUB and HPUB, and the way back.

A message that is published again and again with the same headers has them encoded once, with `encode_headers`, and
each message is then one `encode_publish`. What comes from outside and goes into a header is cleaned here, so that no
value can end its line and begin another. `parse_publishes` reads such bytes back; it is what the path over the
client's public interface sends from, and what tests compare with.

Source of the formats: https://docs.nats.io/reference/reference-protocols/nats-protocol (PUB, HPUB).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

__all__ = [
    "Publish",
    "clean_header_value",
    "decode_headers",
    "encode_headers",
    "encode_publish",
    "parse_publishes",
]

_FIRST_LINE = b"NATS/1.0\r\n"
_UNCLEAN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
# RFC 7230's "token" and the slash, because Nex has one in its names (`synadia.com/namespace`).
_KEY = re.compile(r"[!#$%&'*+\-./^_`|~0-9A-Za-z]+")
_COMMAND: Final = re.compile(rb"(?:PUB ([^ \r]+) (?:([^ \r]+) )?|HPUB ([^ \r]+) (?:([^ \r]+) )?(\d+) )(\d+)\r\n")


class Publish(NamedTuple):
    """One message as it is published; `headers` is the raw block or b""."""

    subject: str
    reply: str
    headers: bytes
    payload: bytes


def clean_header_value(text: str) -> str:
    """`text` as one header line can hold it: each run of control characters becomes one space, ends are trimmed.

    What cannot be encoded (lone surrogates) becomes a question mark.
    """
    return _UNCLEAN.sub(" ", text).strip().encode("utf-8", "replace").decode()


def encode_headers(headers: Mapping[str, str]) -> bytes:
    """The raw block of these headers, its closing empty line included; b"" for none.

    Values are cleaned (see `clean_header_value`).

    Raises:
        ValueError: a name has a character that header names cannot have.
    """
    if not headers:
        return b""
    block = bytearray(_FIRST_LINE)
    for key, value in headers.items():
        if _KEY.fullmatch(key) is None:
            raise ValueError(f"{key!r} cannot be the name of a header")
        block += f"{key}: {clean_header_value(value)}\r\n".encode()
    block += b"\r\n"
    return bytes(block)


def decode_headers(block: bytes) -> dict[str, str]:
    """The headers of a raw block. The last one wins where a name comes twice; lines that are none are left out.

    A status line (`NATS/1.0 503 No Responders`) gives `Status` and, where there is a text, `Description`.
    """
    headers: dict[str, str] = {}
    first, _, rest = block.partition(b"\r\n")
    status = first[8:].strip()
    if status:
        headers["Status"] = status[:3].decode("ascii", "replace")
        if status[3:].strip():
            headers["Description"] = status[3:].strip().decode("utf-8", "replace")
    for line in rest.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if not colon:
            continue
        try:
            key = name.decode("ascii")
        except UnicodeDecodeError:
            continue
        if _KEY.fullmatch(key) is not None:
            headers[key] = value.strip().decode("utf-8", "replace")
    return headers


def encode_publish(subject: str, payload: bytes, *, headers: bytes = b"", reply: str = "") -> bytes:
    """The bytes that publish one message. `headers` is a raw block; nothing is checked here."""
    to = f"{subject} {reply}" if reply else subject
    if headers:
        size = len(headers)
        return b"HPUB %b %d %d\r\n%b%b\r\n" % (to.encode(), size, size + len(payload), headers, payload)
    return b"PUB %b %d\r\n%b\r\n" % (to.encode(), len(payload), payload)


def parse_publishes(blob: bytes) -> Iterator[Publish]:
    """The messages of a blob that `encode_publish` made, in order.

    Raises:
        ValueError: it is not such a blob.
    """
    at = 0
    while at < len(blob):
        command = _COMMAND.match(blob, at)
        if command is None:
            raise ValueError(f"not a publish command: {blob[at : at + 40]!r}")
        bare, bare_reply, subject, reply, size, total = command.groups()
        body = command.end()
        end = body + int(total)
        at = end + 2
        if blob[end:at] != b"\r\n":
            raise ValueError("a publish command whose sizes are not those of its body")
        if bare is not None:
            yield Publish(bare.decode(), bare_reply.decode() if bare_reply else "", b"", blob[body:end])
            continue
        header = body + int(size)
        if header > end:
            raise ValueError("a publish command whose sizes are not those of its body")
        yield Publish(subject.decode(), reply.decode() if reply else "", blob[body:header], blob[header:end])
