"""Whose a run of a schedule is: a `Schedule` looks into the ledger when something is due, and claims it or lets it be.

The rules, all of them here:

- A run belongs to whoever writes its time into the ledger as the last one. That happens before it begins: what was
  claimed by a nexlet that died is not run again. At most once, and lost where the claimer is lost.
- What is due by `ON_TIME` ago or less is run, although late. What is older was missed: left out (`skip`), or made up
  for by one run that stands for all that were missed (`once`).
- With `overlap: skip` a claim says until when the run may last at most. What is due before that, and before its end was
  written, is left out, whichever nexlet it would be for.
- A claim from the future, by our clock, counts up to the time at which the server says that it was written: it may come
  from a machine whose clock was wrong, for which the schedule is not to stand still.
"""

from __future__ import annotations

import enum
import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from nexlet_functions.schedules.ledger import Entry, LedgerUnavailable, Mark, Records
from nexlet_models.cron import Cadence

__all__ = ["EARLY", "ON_TIME", "Claim", "Schedule", "Verdict"]

SECOND = 1_000_000

ON_TIME = 15 * SECOND
"""Microseconds: a run that is later than this was missed. Longer than the loss of a connection usually takes."""

EARLY = 60 * SECOND
"""Microseconds: how far clocks of machines may be apart."""

RETRY = (SECOND, 30 * SECOND)
"""Microseconds between two tries where the ledger cannot be used: while the run is on time, and for one that waits."""

_LONGEST_RUN = 86400 * SECOND
"""Microseconds: whoever claims to be busy for longer had a wrong clock."""

_TRIES = 8
"""Writes in between are one clone's each: more than this in a row is not a race any more."""


class Verdict(enum.StrEnum):
    """What became of something that was due."""

    RUN = "run"
    TAKEN = "taken"
    """By a clone, or before."""
    OVERLAPPED = "overlapped"
    """Left out: the one before it has not ended."""
    MISSED = "missed"
    """Left out: it was due too long ago."""
    FAILED = "failed"
    """The ledger could not be read or written; it is tried again for as long as it is not missed."""
    NOTHING = "nothing"
    """Nothing is due."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A run that is ours.

    Attributes:
        due: when it is, in microseconds since 1970.
        until: how long it may last, likewise.
        schedule: whose it is.
    """

    due: int
    until: int
    schedule: Schedule


class Schedule:
    """One schedule of one function.

    Attributes:
        text: when it is due, for people.
        counts: what became of what was due, as far as this nexlet was concerned.
        last_error: why the ledger could not be used at last; "" where it could.
    """

    def __init__(
        self,
        cadence: Cadence,
        records: Records,
        key: str,
        *,
        text: str,
        owner: str,
        fire: Callable[[Claim], None],
        missed: str = "skip",
        overlap: str = "skip",
        longest: float = 0.0,
    ) -> None:
        """Nothing is due yet: `join` comes first.

        Args:
            key: of it in the ledger, the same for all clones.
            owner: the workload's id.
            fire: begins a run that was claimed; must not raise.
            missed, overlap: as the start request has them.
            longest: seconds from the claim until the run has ended in any case.
        """
        self.cadence = cadence
        self.text = text
        self.counts: Counter[str] = Counter()
        self.last_error = ""
        self._records = records
        self._key = key
        self._me = f"{owner}.{secrets.token_hex(4)}"
        self._fire = fire
        self._once = missed == "once"
        self._alone = overlap == "skip"
        self._longest = round(longest * SECOND)

    async def join(self, now: int) -> int:
        """Write ourselves into the ledger; when to look for the first time.

        Where there is nothing yet, what is due from now on counts. Writing proves that we may, so that a schedule that
        could never run is refused when it is deployed.

        Raises:
            LedgerUnavailable: there is no bucket, or these credentials may not use it.
        """
        entry = await self._records.read(self._key)
        settled = _settled(entry, now)
        mark = replace(entry.mark, last=settled) if entry.mark else Mark(now, self._me, schedule=self.text)
        # Where another one wrote in between, it was allowed as well, and what it wrote is as good.
        await self._records.write(self._key, mark, entry.revision)
        return now if entry.mark and settled < self.cadence.last(now) else self.cadence.after(now)

    async def look(self, now: int) -> tuple[Verdict, int]:
        """Settle what is due now, and begin it if it is ours. The verdict, and when to look again."""
        due = self.cadence.last(now)
        try:
            verdict = await self._claim(due, now)
        except LedgerUnavailable as error:
            self.last_error = str(error)
            verdict = Verdict.FAILED
        else:
            self.last_error = ""
        again = self.cadence.after(now)
        if verdict is Verdict.FAILED:
            on_time = now - due <= ON_TIME
            if self._once or on_time:
                return verdict, min(again, now + RETRY[not on_time])
            verdict = Verdict.MISSED
        if verdict is not Verdict.NOTHING:
            self.counts[verdict] += 1
        if verdict is Verdict.RUN:
            self._fire(Claim(due, now + self._longest, self))
        return verdict, again

    async def _claim(self, due: int, now: int) -> Verdict:
        if not due:
            return Verdict.NOTHING
        uncertain: tuple[Mark, Verdict] | None = None
        for _ in range(_TRIES):
            entry = await self._records.read(self._key)
            mark = entry.mark
            if uncertain is not None and mark == uncertain[0]:
                return uncertain[1]  # it was written, and its confirmation was lost
            if _settled(entry, now) >= due:
                return Verdict.TAKEN
            if now - due > ON_TIME and not self._once:
                return Verdict.MISSED
            claimed, verdict = self._next(mark, due, now)
            try:
                if await self._records.write(self._key, claimed, entry.revision):
                    return verdict
            except LedgerUnavailable as error:
                if error.code != "unreachable":
                    raise
                uncertain = claimed, verdict
        raise LedgerUnavailable("others write all the time", "look who writes into the bucket")

    def _next(self, mark: Mark | None, due: int, now: int) -> tuple[Mark, Verdict]:
        """What is to be written over `mark`, and what it means."""
        if not self._alone:
            return Mark(due, self._me, schedule=self.text), Verdict.RUN
        if mark is not None and now < mark.busy_until <= now + _LONGEST_RUN:
            return Mark(due, mark.by, mark.busy_until, self.text), Verdict.OVERLAPPED
        return Mark(due, self._me, now + self._longest, self.text), Verdict.RUN

    def needs_release(self, claim: Claim) -> bool:
        """Whether the end of a run has to be written, so that the next one is not left out."""
        return self._alone and self.cadence.after(claim.due) < claim.until

    async def release(self, claim: Claim) -> None:
        """Write that a run has ended. Where that cannot be done, the next one is left out until its time is over."""
        try:
            for _ in range(_TRIES):
                entry = await self._records.read(self._key)
                mark = entry.mark
                # Of a later run, this nexlet's own too, nothing has ended.
                if mark is None or mark.by != self._me or mark.busy_until != claim.until:
                    return
                ended = Mark(mark.last, mark.by, schedule=mark.schedule)
                if await self._records.write(self._key, ended, entry.revision):
                    return
        except LedgerUnavailable as error:
            self.last_error = str(error)


def _settled(entry: Entry, now: int) -> int:
    """The last run that is settled, as far as it is to be believed."""
    if entry.mark is None:
        return 0
    last = entry.mark.last
    return last if last <= now + EARLY else min(last, entry.written + EARLY)
