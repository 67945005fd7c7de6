"""Schedules: functions that run at times, once however many clones of them there are.

`ledger` keeps, in a bucket, what was run last; `claims` decides with it whose a run is; `scheduler` waits for the next
one. When something is due is `nexlet_models.cron`'s to say. docs/schedules.md has what may be relied on.
"""

from __future__ import annotations

from nexlet_functions.schedules.claims import Schedule, Verdict
from nexlet_functions.schedules.ledger import Ledger, LedgerUnavailable
from nexlet_functions.schedules.scheduler import Clock, Scheduler, SystemClock

__all__ = ["Clock", "Ledger", "LedgerUnavailable", "Schedule", "Scheduler", "SystemClock", "Verdict"]
