"""When a schedule is due: time tables as cron writes them, and the time zones that they are read in.

- `parse_cron`: one that is in order, in one spelling, or `InvalidSchedule`; `time_zone`: the zone of that name, or
  `InvalidTimeZone`. Both say what to write instead.
- `Cron`, `Every`: the times themselves. A time is a whole number of microseconds since 1970-01-01T00:00:00Z, so that
  every clone of a function, on whatever machine, counts the same ones.

Reading and counting is cronsim's, which keeps to Debian's cron where clocks are put forward or back: what is due at
fixed hours in the hour that is left out is due when that hour is over, and in the hour that comes twice it is due once;
what is due all the time (`*/5`) follows the time that passes.
"""

from __future__ import annotations

import difflib
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Protocol

from nexlet_models.errors import InvalidSchedule, InvalidTimeZone

__all__ = [
    "NEVER",
    "Cadence",
    "Cron",
    "Every",
    "from_moment",
    "moment_of",
    "parse_cron",
    "time_zone",
]

NEVER = 1 << 62
"""The moment of what is not due any more: later than any that there will be."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_SECOND = 1_000_000

_ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_FORM = "write minute, hour, day of month, month and day of week, as in */5 * * * * or 30 2 * * MON-FRI"
_LONGEST_NAME = 80


def parse_cron(text: str) -> str:
    """The time table in five fields, one space between them.

    Raises:
        InvalidSchedule: it is none, or is never due.
    """
    from cronsim import CronSim, CronSimError  # for who has a schedule

    fields = text.split()
    if len(fields) == 1 and fields[0].startswith("@"):
        if fields[0].lower() not in _ALIASES:
            raise InvalidSchedule(f"{_shown(text)} is no time table", f"there are: {', '.join(sorted(_ALIASES))}")
        fields = _ALIASES[fields[0].lower()].split()
    if len(fields) != 5:
        counted = f"{len(fields)} field{'s' if len(fields) != 1 else ''}"
        raise InvalidSchedule(f"{_shown(text)} has {counted}, not 5", _FORM)
    expression = " ".join(fields).upper()
    try:
        next(CronSim(expression, _EPOCH))
    except CronSimError as error:
        reason = str(error).removeprefix("Bad ").lower().replace("-", " ")
        raise InvalidSchedule(f"{_shown(text)}: its {reason} cannot be read", _FORM) from None
    except StopIteration:
        raise InvalidSchedule(f"{_shown(text)} is never due", "name a day that there is") from None
    return expression


def time_zone(name: str) -> tzinfo:
    """The zone of that name, in the IANA database's words.

    Raises:
        InvalidTimeZone: this machine knows none of that name.
    """
    if name == "UTC":
        return UTC  # also where there is no database
    try:
        return zoneinfo.ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # not found, no key at all, a folder such as Europe
        known = sorted(zoneinfo.available_timezones())
    if not known:
        raise InvalidTimeZone(
            f"{_shown(name)} is not known: this machine has no time zones", "install the package tzdata, or write UTC"
        )
    folded = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), folded, n=1)
    raise InvalidTimeZone(
        f"{_shown(name)} is no time zone",
        f"did you mean {folded[near[0]]}?" if near else "write it as UTC, Europe/Berlin or America/New_York",
    )


def _shown(text: str) -> str:
    return repr(text) if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]!r}..."


def moment_of(time: datetime) -> int:
    """Microseconds since 1970 of a time with its zone."""
    return (time - _EPOCH) // _MICROSECOND


def from_moment(moment: int, zone: tzinfo = UTC) -> datetime:
    """The time of a moment, in a zone."""
    return (_EPOCH + timedelta(microseconds=moment)).astimezone(zone)


class Cadence(Protocol):
    """The times at which something is due."""

    @property
    def zone(self) -> tzinfo:
        """The zone that its times are told in."""
        ...

    def after(self, moment: int) -> int:
        """The first that is later than `moment`; `NEVER` where there is none."""
        ...

    def last(self, moment: int) -> int:
        """The last that is not later than `moment`; 0 where there is none."""
        ...


class Every:
    """Each whole multiple of an interval, counted from 1970."""

    def __init__(self, seconds: float) -> None:
        self._interval = max(1, round(seconds * _SECOND))
        self.zone: tzinfo = UTC

    def after(self, moment: int) -> int:
        """See `Cadence`."""
        return self.last(moment) + self._interval

    def last(self, moment: int) -> int:
        """See `Cadence`."""
        return moment // self._interval * self._interval


class Cron:
    """A time table in a time zone."""

    def __init__(self, expression: str, zone: tzinfo = UTC) -> None:
        """Of an expression that `parse_cron` made."""
        self._expression = expression
        self.zone = zone

    def after(self, moment: int) -> int:
        """See `Cadence`."""
        # In the hour that comes twice a fixed hour is found once more, although it is over.
        return next((due for due in self._times(from_moment(moment, self.zone)) if due > moment), NEVER)

    def last(self, moment: int) -> int:
        """See `Cadence`."""
        begin = from_moment((moment // _SECOND + 1) * _SECOND, self.zone)
        due = next((due for due in self._times(begin, reverse=True) if due <= moment), 0)
        # Backwards, what is due in an hour that is left out is not seen; forwards it is.
        while (later := self.after(due)) <= moment:
            due = later
        return due

    def _times(self, begin: datetime, *, reverse: bool = False) -> Iterator[int]:
        from cronsim import CronSim  # for who has a schedule

        return (moment_of(due) for due in CronSim(self._expression, begin, reverse=reverse))
