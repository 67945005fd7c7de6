"""Which modules a program may import: looked at in its source first, and again when an import statement runs.

There are four kinds, and a name means the first that has it: the allowed modules of the standard library, what the host
gives, what an operator permits, and the helper files beside the function. A helper file that is named as one of the
others is refused, so that no name ever means two things.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping
from typing import Final

from nexlet_models.problems import Problem
from nexlet_sandboxes.language import modules
from nexlet_sandboxes.language.diagnostics import Source, nearest
from nexlet_sandboxes.language.names import is_private, quoted
from nexlet_sandboxes.program import Program

__all__ = ["Importable", "stem"]

_BY_HTTP: Final = "context.http asks the hosts that grants.http in the Nexfile names"

_INSTEAD: Final[dict[str, str]] = {
    "os": "a function reads its settings from context.env",
    "sys": "a function has no interpreter to ask",
    "pathlib": "a function has no files",
    "subprocess": "a function starts no processes",
    "threading": "a worker runs one message at a time",
    "asyncio": "a worker runs one message at a time",
    "pickle": "write json instead",
    "requests": _BY_HTTP,
    "socket": "a function reaches no network by itself",
    "urllib": f"urllib.parse is there, and {_BY_HTTP}",
    "multiprocessing": "a worker runs one message at a time",
    "concurrent": "a worker runs one message at a time",
    "traceback": "logging.exception('...') logs a traceback; of an exception that is raised it is logged by itself",
    "warnings": "logging.warning('...') writes a line",
    "shutil": "a function has no files",
    "tempfile": "a function has no files; io.StringIO and io.BytesIO are files in memory",
    "http": f"{_BY_HTTP}; a status is a number: 404",
    "httpx": _BY_HTTP,
    "aiohttp": _BY_HTTP,
    "pytz": "zoneinfo.ZoneInfo('Europe/Vienna') is a time zone",
    "numpy": "an operator may allow more modules by name",
}


def stem(filename: str) -> str:
    """The name by which a file is imported: "prices" for "prices.py"."""
    return filename.removesuffix(".py")


class Importable:
    """What one program may import, and which names each module gives.

    Attributes:
        helpers: module name to file name, the main module included.
    """

    __slots__ = ("_extra", "_listed", "helpers")

    def __init__(self, program: Program, host_modules: Mapping[str, Collection[str]]) -> None:
        # Looked into when a name is asked for, and not before: every worker makes one of these.
        self._extra = (host_modules, program.modules)
        self._listed = False
        self.helpers = {stem(name): name for name in program.files}
        self.helpers[stem(program.filename)] = program.filename

    def names(self, module: str) -> frozenset[str] | None:
        """The names a module gives, None where it may not be imported; helper files are not looked into."""
        known = modules.names(module)
        if known is None:
            known = next((frozenset(extra[module]) for extra in self._extra if module in extra), None)
        if known is None:
            further = (name for extra in self._extra for name in extra)
            inner = {name[len(module) + 1 :].split(".")[0] for name in further if name.startswith(module + ".")}
            return frozenset(inner) or None
        return known

    def known(self) -> set[str]:
        """All modules, for messages."""
        return {*modules.ALLOWED, *(name for extra in self._extra for name in extra), *self.helpers}

    def files(self, program: Program) -> list[Problem]:
        """Helper files whose names cannot be imported, or mean something else."""
        problems = []
        for filename in program.files:
            name = stem(filename)
            advice = "rename it: lower-case letters and underscores, ending in .py"
            if not filename.endswith(".py") or not name.isidentifier() or is_private(name):
                message = "the file's name is not one that can be imported"
            elif filename == program.filename:
                message = "the file has the name of the function's own module"
            elif self.names(name) is not None:
                message = f"the file hides the module {name!r} that functions import"
            else:
                continue
            problems.append(Problem(message, place=filename, advice=advice, code="file-refused"))
        return problems

    def check(self, tree: ast.Module, source: Source, defined: Mapping[str, frozenset[str] | None]) -> list[Problem]:
        """Import statements that will not do. `defined`: what each helper defines, None where that is not known."""
        problems = []
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name not in self.helpers and self.names(alias.name) is None and not _private(alias.name):
                        problems.append(self._refused(source, node if len(node.names) == 1 else alias, alias.name))
            elif isinstance(node, ast.ImportFrom):
                problems += self._check_from(node, source, defined)
        return problems

    def _check_from(
        self, node: ast.ImportFrom, source: Source, defined: Mapping[str, frozenset[str] | None]
    ) -> list[Problem]:
        module = node.module or ""
        if node.level:
            names = ", ".join(alias.name for alias in node.names)
            advice = f"write: from {module} import {names}" if module else f"write: import {names}"
            return [source.at(node, "relative imports are not available", code="import-refused", advice=advice)]
        if module == "__future__":
            return [
                source.at(alias, f"'{alias.name}' is not available from __future__", code="import-refused")
                for alias in node.names
                if alias.name != "annotations"
            ]
        if _private(module):
            return [
                source.at(
                    node,
                    f"import of {quoted(module)} is not allowed here",
                    code="import-refused",
                    advice="leave it out",
                )
            ]
        given = defined.get(module) if module in self.helpers else self.names(module)
        if given is None and module not in self.helpers:
            return [self._refused(source, node, module)]
        problems = []
        for alias in node.names:
            if given is None or alias.name == "*" or is_private(alias.name) or alias.name in given:
                continue
            meant = nearest(alias.name, given)
            advice = modules.missing(module, alias.name) or (
                f"did you mean {meant!r}?" if meant else f"it gives: {_listing(given)}"
            )
            message = f"{module!r} gives no name {quoted(alias.name)} here"
            problems.append(source.at(alias, message, code="import-refused", advice=advice))
        return problems

    def _refused(self, source: Source, node: ast.AST, module: str) -> Problem:
        top = module.partition(".")[0]
        instead = _INSTEAD.get(module) or _INSTEAD.get(top)
        known = self.known()
        if instead is None:
            meant = nearest(module, known)
            instead = f"did you mean {meant!r}?" if meant else "it is not among the modules that functions may import"
        if not self._listed:  # once a program: of several that are refused the first one's advice has them
            self._listed = True
            allowed = sorted(name for name in known - set(self.helpers) if not is_private(name))
            instead = f"{instead}; modules allowed: {', '.join(allowed)}"
        return source.at(node, f"import of {quoted(module)} is not allowed here", code="import-refused", advice=instead)


def _private(module: str) -> bool:
    return any(is_private(part) for part in module.split("."))


def _listing(names: frozenset[str]) -> str:
    shown = sorted(names)
    return ", ".join(shown[:20]) + (", ..." if len(shown) > 20 else "")
