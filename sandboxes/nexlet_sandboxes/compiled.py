"""Which compiled form belongs to which program: a digest of everything that it follows from.

A form that was kept is used again only where compiling would give the very same: for the same sources, by the same
language layer on the same Python. What a newer policy refuses must not run because an older one let it pass.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import sys
from pathlib import Path

import orjson

from nexlet_sandboxes.program import Program

__all__ = ["Compiler"]

_POLICY = Path(__file__).parent / "language"


class Compiler:
    """What makes the compiled forms, as this process found it when it began."""

    def __init__(self) -> None:
        """Look at what is installed. A process made later of what is installed then makes forms that are as good."""
        policy = hashlib.sha256()
        for file in sorted(_POLICY.rglob("*.py")):
            data = file.read_bytes()
            policy.update(b"%s %d\n" % (file.relative_to(_POLICY).as_posix().encode(), len(data)))
            policy.update(data)
        restricted = importlib.metadata.version("RestrictedPython")
        self._made_by = [sys.version, importlib.util.MAGIC_NUMBER.hex(), restricted, policy.hexdigest()]

    def fingerprint(self, program: Program) -> str:
        """In hexadecimal: of the compiler, and of all that it looks at of a program."""
        said = [
            self._made_by,
            program.filename,
            program.source,
            dict(program.files),
            program.handler,
            {name: sorted(names) for name, names in program.modules.items()},
        ]
        try:
            return hashlib.sha256(orjson.dumps(said, option=orjson.OPT_SORT_KEYS)).hexdigest()
        except TypeError:
            return ""  # half of a surrogate pair, which no worker takes either
