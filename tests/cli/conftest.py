"""What the command line's tests share: running commands whose JSON lines are read as they come."""

from __future__ import annotations

from tests.support.live import live, temporary

__all__ = ["live", "temporary"]
