"""What a worker says of a call, held to its form.

A worker of ours looks at all of this before it asks, so that its author gets an error where the mistake is. What comes
here in another form was not written by a worker of ours: it raises `FrameError`, and the worker is ended.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from nexlet_models.subjects import valid_subject
from nexlet_sandboxes.answers import checked_headers
from nexlet_sandboxes.asking import MAX_NAME, key_problem
from nexlet_sandboxes.frames import FrameError

__all__ = ["bucket_of", "headers_of", "key_of", "name_of", "parts_of", "revision_of", "subject_of", "text_of"]

_BUCKET: Final = re.compile(rb"[A-Za-z0-9_-]{1,255}")
_NUMBER: Final = re.compile(rb"[0-9]{1,20}")


def parts_of(parts: Sequence[bytes], count: int) -> Sequence[bytes]:
    """The parts, if there are so many."""
    if len(parts) != count:
        raise FrameError(f"a call with {len(parts)} parts, where it takes {count}")
    return parts


def text_of(part: bytes) -> str:
    """A part that is text."""
    try:
        return part.decode()
    except UnicodeDecodeError:
        raise FrameError("a text that is not UTF-8") from None


def subject_of(part: bytes) -> str:
    """A subject without wildcards."""
    subject = text_of(part)
    if valid_subject(subject, wildcards=False) is not None:
        raise FrameError("a subject that is none")
    return subject


def headers_of(part: bytes) -> bytes:
    """Header lines that a function may set, each with its line end."""
    return checked_headers(part) if part else b""


def bucket_of(part: bytes) -> str:
    """The name of a bucket."""
    if not _BUCKET.fullmatch(part):
        raise FrameError("a bucket that is none")
    return part.decode()


def key_of(part: bytes) -> str:
    """A key."""
    key = text_of(part)
    if key_problem(key) is not None:
        raise FrameError("a key that is none")
    return key


def name_of(part: bytes) -> str:
    """The name of an object."""
    if not 0 < len(part) <= MAX_NAME:
        raise FrameError("the name of an object that is none")
    return text_of(part)


def revision_of(part: bytes) -> int:
    """A revision."""
    if not _NUMBER.fullmatch(part) or int(part) >= 1 << 64:
        raise FrameError("a revision that is none")
    return int(part)
