"""`Uncopyable`: a base for objects that a function uses and does not own."""

from __future__ import annotations

from typing import NoReturn

__all__ = ["Uncopyable"]


class Uncopyable:
    """A base for objects that a function uses and does not own: what stands behind them is not to be copied."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(f"{type(self).__name__} cannot be copied")

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"
