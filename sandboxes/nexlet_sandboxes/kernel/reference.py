"""The tables of docs/security.md, made from the ones the locks are made from.

`python -m nexlet_sandboxes.kernel.reference docs/security.md` writes them anew, between their marks.
"""

from __future__ import annotations

import errno
import re
import sys
from pathlib import Path

from nexlet_sandboxes.kernel.cgroups import TABLE as GROUP_TABLE
from nexlet_sandboxes.kernel.rlimits import TABLE
from nexlet_sandboxes.kernel.syscalls import ARCHITECTURES, GROUPS, NO_EXEC, PROBES
from nexlet_sandboxes.kernel.trials import TRIALS
from nexlet_sandboxes.profiles import DEFAULT, PROFILES, Profile

__all__ = ["main", "renewed"]

_MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.S)


def renewed(document: str) -> str:
    """`document` with every marked table as it is now.

    Raises:
        KeyError: a mark names a table that does not exist.
    """
    return _MARKED.sub(lambda found: f"{found[1]}\n{_TABLES[found[2]]()}\n\n{found[3]}", document)


def _row(*cells: object) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def _lines(head: tuple[str, ...], rows: list[str]) -> str:
    return "\n".join([_row(*head), _row(*("---" for _ in head)), *rows])


def _profiles() -> str:
    rows = [
        _row(f"`{profile.name}`" + (" (default)" if profile.name == DEFAULT else ""), profile.summary)
        for profile in PROFILES.values()
    ]
    return _lines(("profile", ""), rows)


def _layers() -> str:
    rows = [
        _row(f"`{layer}`", trial.tried, *(_has(profile, layer) for profile in PROFILES.values()))
        for layer, trial in TRIALS.items()
    ]
    return _lines(("layer", "what is tried at start to prove it", *PROFILES), rows)


def _has(profile: Profile, layer: str) -> str:
    if layer in profile.layers:
        return "x"
    return "(x)" if layer in profile.around(cgroup=True) else ""


def _groups() -> str:
    rows = [_row(f"`{row.controller}`", f"`{row.file}`", f"`{row.value}`", row.why) for row in GROUP_TABLE]
    return _lines(("controller", "file", "value", "why"), rows)


def _limits() -> str:
    return _lines(("limit", "value", "why"), [_row(f"RLIMIT_{row.name.upper()}", row.value, row.why) for row in TABLE])


def _number(numbers: tuple[int, int], machine: str) -> str:
    number = numbers[ARCHITECTURES[machine].column]
    return str(number) if number >= 0 else "-"


def _allowed() -> str:
    groups = {**GROUPS, "memory, as long as no page becomes executable": NO_EXEC}
    rows = [
        _row(f"`{name}`", *(_number(numbers, machine) for machine in ARCHITECTURES), what)
        for what, calls in groups.items()
        for name, numbers in calls.items()
    ]
    return _lines(("system call", *ARCHITECTURES, "for"), rows)


def _probes() -> str:
    rows = [
        _row(
            f"`{name}`",
            *(_number(probe.numbers, machine) for machine in ARCHITECTURES),
            errno.errorcode[probe.error],
            probe.who,
        )
        for name, probe in PROBES.items()
    ]
    return _lines(("system call", *ARCHITECTURES, "answer", "who asks"), rows)


_TABLES = {
    "profiles": _profiles,
    "layers": _layers,
    "limits": _limits,
    "groups": _groups,
    "allowed": _allowed,
    "probes": _probes,
}


def main() -> None:
    """Write the tables of the file that the argument names anew."""
    file = Path(sys.argv[1])
    file.write_text(renewed(file.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
