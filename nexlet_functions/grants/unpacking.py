"""Undoes what a server compressed, a bounded piece at a time: a few bytes may stand for as many as there are."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any, Final

__all__ = ["Unpacking"]

MAX_MEMBERS: Final = 64
"""Parts that a gzip file may be joined of."""


class Unpacking:
    """Undoes gzip and deflate, a bounded piece at a time."""

    KINDS: Final = frozenset({"gzip", "x-gzip", "deflate"})
    PIECE: Final = 64 * 1024

    def __init__(self, kind: str) -> None:
        self._gzip = kind != "deflate"
        self._stream: Any = None
        self._members = 0
        self._over = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What these bytes unpack to.

        Raises:
            zlib.error: they are not what they were said to be.
        """
        while data and not self._over:
            if self._stream is None:
                self._stream = self._begin(data)
            yield self._stream.decompress(data, self.PIECE)
            data = self._stream.unconsumed_tail
            if self._stream.eof:
                data = self._stream.unused_data
                self._stream = None
                # Behind the first part of a gzip file may be others, or anything else, which gunzip leaves alone.
                self._over = not self._gzip or bool(data and data[:1] != b"\x1f")

    def end(self) -> None:
        """There is no more.

        Raises:
            zlib.error: there has to be.
        """
        if self._stream is not None:
            raise zlib.error("it ends early")

    def _begin(self, data: bytes) -> Any:
        self._members += 1
        if self._members > MAX_MEMBERS:
            raise zlib.error("too many parts")
        if self._gzip:
            return zlib.decompressobj(zlib.MAX_WBITS | 16)
        # RFC 9110 means zlib's form; some servers leave out its first two bytes, as they did when it was unclear.
        zlib_form = data[0] & 0x0F == 8 and (len(data) < 2 or (data[0] << 8 | data[1]) % 31 == 0)
        return zlib.decompressobj(zlib.MAX_WBITS if zlib_form else -zlib.MAX_WBITS)
