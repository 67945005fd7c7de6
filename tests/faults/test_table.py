"""The failure table as users read it (`docs/failures.md`) and the tests that hold it, side by side."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = (
    "faults/test_table_invocations.py",
    "faults/test_table_lives.py",
    "faults/test_node.py",
    "faults/test_expiring.py",
    "faults/test_floods.py",
    "faults/test_apart.py",
    "runner/test_takeover.py",
    "grants/test_granted.py",
    "grants/test_lasting.py",
    "sandboxes/test_asking.py",
    "sandboxes/test_batches.py",
    "streams/test_triggers.py",
    "functions/test_schedules.py",
    "schedules/test_claims.py",
    "secrets/test_canary.py",
    "secrets/test_rotation.py",
    "grants/test_http.py",
    "schedules/test_scheduler.py",
)


def test_each_row_has_a_test_and_each_test_a_row() -> None:
    text = (ROOT / "docs" / "failures.md").read_text()
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")]
    rows = [row for row in rows if row != "what" and not row.startswith("--")]
    assert len(rows) == len(set(rows)) > 15
    here = "".join((ROOT / "tests" / name).read_text() for name in TESTS)
    assert set(re.findall(r'\brow\(\s*"([^"]+)"', here)) == set(rows)
