"""The wall clock may jump: nothing decides by it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("nexlet_functions", "models/nexlet_models", "sandboxes/nexlet_sandboxes")

TOLD = {
    "models/nexlet_models/base.py": "timestamps of messages, for people",
    "nexlet_functions/cli/watching.py": "the time of day beside a line, for people",
    "nexlet_functions/cli/devloop/deployments.py": "how long ago a file was saved, by the file's own stamp",
    "nexlet_functions/cli/secrets.py": "when a secret was sealed, for people",
    "nexlet_functions/cli/top.py": "the time of day above a table, for people",
    "nexlet_functions/devnode/clock.py": "the stand-in node's, which a test may set",
    "nexlet_functions/cli/logs.py": "the time of day beside a line, for people",
    "nexlet_functions/functions/pins.py": "the age of files that no workload uses",
    "nexlet_functions/natsio/connection.py": "since when refused credentials have been expired, for people",
    "nexlet_functions/observing/tracing.py": "when a span began, for people",
    "nexlet_functions/schedules/scheduler.py": "when runs are due; its tests have the clock jump",
    "nexlet_functions/testing/messages.py": "when a stream took a made message, in its acknowledgement subject",
    "sandboxes/nexlet_sandboxes/language/modules/offer.py": "has libc read what it needs before workers are locked",
}
"""Who may ask for it, and what for."""

WALL = {("time", "time"), ("time", "time_ns"), ("time", "localtime"), ("time", "gmtime"), ("datetime", "now"),
        ("datetime", "utcnow"), ("datetime", "today"), ("date", "today")}  # fmt: skip


def asks_for_the_time_of_day(file: Path) -> bool:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
            of = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
            if (of, node.attr) in WALL:
                return True
        if (
            isinstance(node, ast.ImportFrom)
            and node.module == "time"
            and {"time", "time_ns"} & {name.name for name in node.names}
        ):
            return True
    return False


def test_only_monotonic_time_decides() -> None:
    # In a process of its own: CPython 3.11 fails now and then where two threads make syntax trees (gh-106905).
    asking = subprocess.run([sys.executable, __file__], capture_output=True, text=True, check=True).stdout.split()
    assert set(asking) == set(TOLD)


if __name__ == "__main__":
    files = (file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
    print(*(file.relative_to(ROOT) for file in files if asks_for_the_time_of_day(file)))
