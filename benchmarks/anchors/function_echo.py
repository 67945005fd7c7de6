"""A function for functions-framework: it answers what it was asked. Run with that, not with our own packages."""

from __future__ import annotations

from typing import Any

__all__ = ["echo"]


def echo(request: Any) -> Any:
    """Answer the request's own body."""
    return request.get_data()
