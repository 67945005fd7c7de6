"""What figures say of themselves once they leave the process that measured them: when, of which code, where, how.

`document` is what `--json` prints, for every benchmark that has it.
"""

from __future__ import annotations

import datetime
import subprocess
from collections.abc import Mapping

from benchmarks.bench import ROOT
from benchmarks.kinds import Figures

__all__ = ["commit", "document", "now", "today"]


def document(
    measured: Mapping[str, tuple[Mapping[str, object], Figures]], environment: Mapping[str, str]
) -> dict[str, object]:
    """One object for all of it: the figures of each kind by its name, and what is to be known of them.

    Args:
        measured: kinds by name, each with its options and its figures.
    """
    return {
        "date": now(),
        "commit": commit(),
        "environment": dict(environment),
        "options": {name: dict(options) for name, (options, _) in measured.items()},
        "tables": {name: figures.table() for name, (_, figures) in measured.items()},
        **{name: figures.as_json() for name, (_, figures) in measured.items()},
    }


def today() -> str:
    """The date in UTC, as ISO 8601 has it."""
    return now().partition("T")[0]


def now() -> str:
    """The date and the time in UTC, to the second, as ISO 8601 has them: `2026-11-25T09:30:00Z`."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def commit() -> str:
    """Which code this is, with a `+` where something of it is not committed; "" where there is no clone or no git."""
    try:
        name = _git("rev-parse", "--short=9", "HEAD")
        # What is made of figures is no other code.
        changed = _git("status", "--porcelain", "--", "nexlet_functions", "models", "sandboxes", "benchmarks/*.py")
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"{name}+" if changed else name


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
