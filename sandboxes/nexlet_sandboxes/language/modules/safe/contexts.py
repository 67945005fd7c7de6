"""`contextlib.suppress` that does not hide that the memory ran out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nexlet_sandboxes.language.modules.proxies import Sealed

if TYPE_CHECKING:
    from types import TracebackType

    from nexlet_sandboxes.language.host import Host

__all__ = ["suppressor"]


def suppressor(host: Host) -> type:
    """The `suppress` of the functions that this host serves."""

    class suppress(Sealed):
        """Context manager that swallows the given exceptions."""

        __slots__ = ("__exceptions",)
        __exceptions: tuple[type[BaseException], ...]

        def __init__(self, *exceptions: type[BaseException]) -> None:
            object.__setattr__(self, "_suppress__exceptions", exceptions)

        def __enter__(self) -> None:
            return None

        def __exit__(
            self, kind: type[BaseException] | None, raised: BaseException | None, traceback: TracebackType | None
        ) -> bool:
            if kind is None:
                return False
            if issubclass(kind, MemoryError):
                host.memory_exceeded = True
            return issubclass(kind, self.__exceptions)

    suppress.__module__ = "contextlib"
    suppress.__qualname__ = "suppress"
    return suppress
