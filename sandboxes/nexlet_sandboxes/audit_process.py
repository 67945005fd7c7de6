"""The process that looks at where the modules lead that an operator permits: `permitted.audit` executes it.

Importing a module runs whatever its authors wrote, and keeps it in memory for good: neither is for the nexlet.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path

import orjson

from nexlet_sandboxes.language.modules import audit
from nexlet_sandboxes.permitted import from_arguments

__all__ = ["main"]


def main() -> None:
    """Write the findings to standard output, as JSON: a module to its lines."""
    answer = os.dup(1)
    # What a module prints while it is imported is no part of the answer.
    os.dup2(2, 1)
    findings = {}
    for module, names in from_arguments(sys.argv[1:]).items():
        before = _threads()
        import_module(module)
        started = _threads() - before
        found = audit(module, names)
        if started > 0:
            found.append(f"importing it starts threads ({started}), of which no worker has any: workers are forked")
        if found:
            findings[module] = found
    with os.fdopen(answer, "wb") as out:
        out.write(orjson.dumps(findings))


def _threads() -> int:
    return sum(1 for _ in Path("/proc/self/task").iterdir())


if __name__ == "__main__":
    main()
