"""The types that authors import: `make types` reads `typed/function.py` and `misused.py`, a worker runs the first."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from nexlet_functions import authoring
from nexlet_functions.testing import load_function
from nexlet_sandboxes.language.host import HOST_MODULES

FOLDER = Path(__file__).parent / "typed"


def test_a_worker_runs_what_a_type_checker_read() -> None:
    with load_function(FOLDER, replies={"typed.ask": "yes"}) as function:
        result = function.invoke(json={"name": "Ada"})
        assert result.json() == {"greeting": "Hello", "kept": 1, "stored": "Ada3", "tokens": [], "attempt": 1}
        assert result.headers == {"Acknowledged": "False", "Said": "yes"}
        assert [each.text for each in result.published] == ["yes"]
        assert function.invoke(json={}).code == 422


def test_a_worker_gives_what_an_editor_finds() -> None:
    assert HOST_MODULES["nexlet_functions.authoring"] == set(authoring.__all__)


def test_the_import_costs_a_worker_nothing() -> None:
    code = """
import sys
from nexlet_sandboxes.language import preload
from nexlet_sandboxes.worker.rehearsal import rehearse
preload(times=1)
rehearse(times=1)
print(*sys.modules)
"""
    loaded = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True).stdout
    assert not [name for name in loaded.split() if name.startswith("nexlet_functions")]
