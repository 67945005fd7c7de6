"""How a run of a schedule reaches a function: the subject that it has, and the header with the time that it is due.

By itself, so that a worker needs nothing else of this package for it.
"""

from __future__ import annotations

from typing import Final

__all__ = ["SCHEDULED_TIME", "SCHEDULE_SUBJECT"]

SCHEDULE_SUBJECT: Final = "$SCHEDULE."
"""What the subject begins with. No trigger may, so that no message can be taken for a run of a schedule."""

SCHEDULED_TIME: Final = "Nex-Scheduled-Time"
"""The header with the time that it was due, in ISO 8601 with an offset."""
