"""What has bytes that a test wants to read as something: `Readable`, the base of whatever a function sent."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["Readable"]


class Readable:
    """Something with bytes.

    Attributes:
        data: these.
    """

    __slots__ = ()

    data: bytes

    @property
    def text(self) -> str:
        """The bytes as UTF-8."""
        return self.data.decode()

    def json(self) -> Any:
        """The bytes as JSON.

        Raises:
            ValueError: they are none.
        """
        return json.loads(self.data)
