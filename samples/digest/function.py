"""Closes the day that has just ended: by schedule every night, and by hand for any day, as a request.

A night that nobody was there for is made up for (`missed: once`). What a run is about follows from when it was due and
not from when it runs, so that one that is late closes the right day.
"""

from datetime import date, timedelta

from nexlet_functions.authoring import Reject


def handler(event, context):
    if event.scheduled_time is not None:
        day = event.scheduled_time.date() - timedelta(days=1)
    else:
        day = asked_for(event.json())
    tomorrow = day + timedelta(days=1)
    digest = {
        "day": day.isoformat(),
        "weekday": day.strftime("%A"),
        "ends_week": day.weekday() == 6,
        "ends_month": tomorrow.month != day.month,
        "ends_quarter": tomorrow.month != day.month and tomorrow.month in (1, 4, 7, 10),
    }
    context.log.info("day closed", **digest)
    context.metrics.count("days_closed")
    return digest


def asked_for(request):
    try:
        return date.fromisoformat(request["day"])
    except (KeyError, TypeError, ValueError):
        raise Reject(422, 'day: which one is to be closed? {"day": "2026-03-31"}') from None
