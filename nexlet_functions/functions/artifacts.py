"""Where a function's source comes from: inline, from a folder the operator names, or out of an object store.

`Artifacts.fetch` gives an `Artifact`, the source with its digest, or raises `Refusal` with the place and the next step.
What came from elsewhere is pinned (`pins.Pins`), so that a tag that moves or a file that is edited changes nothing that
runs. One artifact is one source file in UTF-8; helper modules travel inline.

An object is read message by message through JetStream's API rather than with a consumer: it takes two permissions
(publish on one API subject, and an inbox) and no more memory than the largest source that is allowed.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import codecs
import errno
import hashlib
import os
import re
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import orjson

from nexlet_functions.functions.refusals import Refusal
from nexlet_functions.natsio.connection import Connection
from nexlet_functions.natsio.errors import NatsioError, NoResponders, PublishRefused
from nexlet_models.problems import Problem
from nexlet_models.sizes import format_size
from nexlet_models.start_request import StartRequest
from nexlet_models.subjects import valid_token

__all__ = ["Artifact", "Artifacts", "digest_of", "object_of"]

_REQUEST_TIMEOUT = 5.0  # seconds for one message of an object, far more than a server that can answer needs
_BUCKET = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


def digest_of(data: bytes) -> str:
    """SHA-256 in lower-case hexadecimal."""
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True, slots=True)
class Artifact:
    """A source that was fetched.

    Attributes:
        source: its text.
        sha256: of its bytes, in hexadecimal.
        place: where it is from: a uri, or "" where it was inline.
    """

    source: str = field(repr=False)
    sha256: str
    place: str = ""


class Artifacts:
    """Fetches sources."""

    def __init__(self, *, folders: Callable[[], Sequence[Path]], timeout: float) -> None:
        """Files come from `folders` only, asked anew each time; a fetch may take `timeout` seconds in all."""
        self._folders = folders
        self._timeout = timeout

    async def fetch(self, request: StartRequest, connection: Connection, *, limit: int) -> Artifact:
        """The source that a start request names.

        Args:
            connection: by the workload's own credentials; asked for objects only.
            limit: the largest source, in bytes.

        Raises:
            Refusal: it is missing, elsewhere than allowed, too large, not text, or its checksum is another one.
        """
        uri = request.uri
        if uri is None:
            assert request.source is not None, "a start request has a source or a uri"
            return _artifact(request.source.encode(), "", request.sha256, limit)
        try:
            async with asyncio.timeout(self._timeout):
                if uri.startswith("file://"):
                    data = await asyncio.to_thread(_read_file, uri, self._folders(), limit)
                else:
                    bucket, name = object_of(uri)
                    data = await _read_object(uri, bucket, name, limit, connection)
        except TimeoutError:
            raise _unreachable(uri, f"it did not arrive within {self._timeout:g} s") from None
        return _artifact(data, uri, request.sha256, limit)


def _artifact(data: bytes, uri: str, sha256: str | None, limit: int) -> Artifact:
    place = uri or "source"
    if len(data) > limit:
        raise _too_large(place, limit)
    actual = digest_of(data)
    if sha256 is not None and actual != sha256:
        raise Refusal(
            Problem(
                f"the checksum differs: {place} is {actual}, asked for is {sha256}",
                "sha256",
                advice="deploy the source that this checksum belongs to, or update sha256",
                code="checksum-differs",
            )
        )
    try:
        source = data.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Refusal(
            Problem(
                f"the source is not UTF-8 text: byte {data[error.start]:#04x} on line {line}",
                place,
                advice="save the file as UTF-8; an artifact is one Python source file",
                code="not-text",
            )
        ) from None
    if not source.strip():
        raise Refusal(Problem("the source is empty", place, advice="define a handler(event, context)", code="empty"))
    return Artifact(source, actual, uri)


def _too_large(place: str, limit: int) -> Refusal:
    return Refusal(
        Problem(
            f"the source is larger than {format_size(limit)}",
            place,
            advice="that is the most that the operator allows; an artifact is one Python source file",
            code="too-large",
        )
    )


def _unreachable(uri: str, reason: str, advice: str = "try again; if it stays so, ask the operator") -> Refusal:
    return Refusal(Problem(f"{uri} cannot be fetched: {reason}", "uri", advice=advice, code="unreachable"))


# --- files ---------------------------------------------------------------------------------------------------------


def _read_file(uri: str, folders: Sequence[Path], limit: int) -> bytes:
    """The content of a regular file beneath one of `folders`, links that lead out of it not followed.

    The path is resolved first and then opened component by component without following any link, so that whatever is
    exchanged in between ends as a refusal.
    """
    path = PurePosixPath(uri.removeprefix("file://"))
    if ".." in path.parts or not path.is_absolute():
        raise _not_allowed(uri, "the path has to be absolute, and without '..'")
    folder = next((folder for folder in folders if path.is_relative_to(folder)), None)
    if folder is None:
        named = f"allowed: {', '.join(f'file://{folder}' for folder in folders)}" if folders else "none is allowed here"
        raise _not_allowed(uri, f"it is in no folder that the operator allows; {named}")
    try:
        root, real = folder.resolve(strict=True), Path(path).resolve(strict=True)
    except FileNotFoundError:
        raise _missing(uri, "there is no such file") from None
    except (OSError, RuntimeError) as error:
        raise _missing(uri, getattr(error, "strerror", None) or "a link leads to itself") from None
    if not real.is_relative_to(root):
        raise _not_allowed(uri, "a link leads out of the folder that the operator allows")
    try:
        descriptor = _open_beneath(root, real.relative_to(root).parts)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise _not_allowed(uri, "it was exchanged while it was opened") from None
        raise _missing(uri, error.strerror or type(error).__name__) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _missing(uri, "it is no regular file")
    with os.fdopen(descriptor, "rb") as file:
        return file.read(limit + 1)


def _open_beneath(root: Path, parts: Sequence[str]) -> int:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    here = os.open(root, flags | os.O_DIRECTORY)
    try:
        for part in parts[:-1]:
            below = os.open(part, flags | os.O_DIRECTORY, dir_fd=here)
            os.close(here)
            here = below
        # O_NONBLOCK: opening a pipe that nobody writes to would never return.
        return os.open(parts[-1] if parts else ".", flags | os.O_NONBLOCK, dir_fd=here)
    finally:
        os.close(here)


def _missing(uri: str, reason: str) -> Refusal:
    return Refusal(
        Problem(
            f"{uri} cannot be read: {reason}",
            "uri",
            advice="the file has to be on the machine of the nexlet, readable by its user",
            code="artifact-missing",
        )
    )


def _not_allowed(uri: str, reason: str) -> Refusal:
    return Refusal(
        Problem(
            f"{uri} is not allowed: {reason}",
            "uri",
            advice="deploy the source inline or as nats://BUCKET/OBJECT, or ask the operator for source_folders",
            code="artifact-not-allowed",
        )
    )


# --- objects -------------------------------------------------------------------------------------------------------


def object_of(uri: str) -> tuple[str, str]:
    """Bucket and object that `nats://BUCKET/OBJECT[:TAG]` names: the object is called `OBJECT_TAG`, as all of Nex does.

    Raises:
        Refusal: a part is missing.
    """
    bucket, _, rest = uri.removeprefix("nats://").partition("/")
    name, _, tag = rest.partition(":")
    if not bucket or not name or rest.endswith(":"):
        raise Refusal(
            Problem(
                f"{uri} is no place of a source", "uri", advice="write it as nats://BUCKET/OBJECT:TAG", code="bad-uri"
            )
        )
    return bucket, f"{name}_{tag or 'latest'}"


async def _read_object(
    uri: str, bucket: str, name: str, limit: int, connection: Connection, *, followed: bool = False
) -> bytes:
    encoded = base64.urlsafe_b64encode(name.encode()).decode()
    _, meta = await _message(uri, bucket, {"last_by_subj": f"$O.{bucket}.M.{encoded}"}, connection, name)
    try:
        info = orjson.loads(meta)
        if info.get("deleted"):
            raise _no_object(uri, bucket, name)
        link = (info.get("options") or {}).get("link")
        if link is not None:
            if followed or not link.get("name") or not _BUCKET.fullmatch(link["bucket"]):
                raise _unreachable(uri, "the object is a link, but not to an object", "name the object itself")
            return await _read_object(uri, link["bucket"], link["name"], limit, connection, followed=True)
        size, nuid, digest = int(info["size"]), info["nuid"], info["digest"]
        if valid_token(nuid) is not None or size < 0:
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _damaged(uri, "what the object store says of it cannot be read") from None
    if size > limit:
        raise _too_large(uri, limit)
    data, sequence = bytearray(), 0
    while len(data) < size:
        wanted = {"seq": sequence + 1, "next_by_subj": f"$O.{bucket}.C.{nuid}"}
        sequence, chunk = await _message(uri, bucket, wanted, connection, name)
        data += chunk
        if not chunk:
            break
    hashed = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode()
    if len(data) != size or digest.partition("=")[2] != hashed:
        raise _damaged(uri, "its digest is not that of its content")
    return bytes(data)


async def _message(
    uri: str, bucket: str, wanted: dict[str, Any], connection: Connection, name: str
) -> tuple[int, bytes]:
    """Sequence and content of one message of the bucket's stream."""
    subject = f"$JS.API.STREAM.MSG.GET.OBJ_{bucket}"
    try:
        reply = await connection.request(subject, orjson.dumps(wanted), timeout=_REQUEST_TIMEOUT)
        answer = orjson.loads(reply.payload)
        error = answer.get("error")
        if error:
            if error.get("code") == 404:
                raise _no_object(uri, bucket, name)
            raise _unreachable(uri, str(error.get("description", "JetStream refused")))
        message = answer["message"]
        return int(message["seq"]), base64.b64decode(message.get("data") or "", validate=True)
    except NoResponders:
        raise _unreachable(
            uri, "JetStream is not enabled for the account of this workload", "enable JetStream, or deploy inline"
        ) from None
    except PublishRefused as error:
        raise Refusal(
            Problem(
                f"{uri} cannot be fetched: the server says '{error.permission}'",
                "uri",
                advice="allow the credentials of this workload to publish there, or deploy the source inline",
                code="artifact-not-allowed",
            )
        ) from None
    except NatsioError as error:
        raise _unreachable(uri, str(error)) from None
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
        raise _unreachable(uri, "the answer of JetStream cannot be read") from None


def _damaged(uri: str, reason: str) -> Refusal:
    return Refusal(
        Problem(f"{uri} is damaged: {reason}", "uri", advice="put the object again", code="artifact-damaged")
    )


def _no_object(uri: str, bucket: str, name: str) -> Refusal:
    return Refusal(
        Problem(
            f"{uri} does not exist: no object '{name}' in the object store '{bucket}'",
            "uri",
            advice=f"put it there: nats object put {bucket} function.py --name {name}",
            code="artifact-missing",
        )
    )


# --- pins ----------------------------------------------------------------------------------------------------------
