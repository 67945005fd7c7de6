"""A function's folder, read: its Nexfile, its sources, and what `nex` takes of them.

A folder is one function: `function.py`, helper modules beside it, `events/` with sample messages, and a `Nexfile`, the
only manifest. In such a folder the Nexfile's start request says `source_file: function.py` where the start request
that goes to a node says `source`. `read_function` reads all of it and reports everything that is wrong with it at
once; `FunctionFolder.pack` makes the self-contained Nexfile that Nex's own command line takes.

Nothing here runs or compiles the author's code: it is parsed for its imports, to find the helper modules it needs.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nexlet_functions.documents import Document, DocumentRefused, path_of, read_document, write_document
from nexlet_functions.errors import NexletFunctionsError
from nexlet_models.problems import Problem, render
from nexlet_models.start_request import LimitsRequest, StartRequest, StartRequestRefused, parse_start_request
from nexlet_models.subjects import valid_name, valid_token

__all__ = ["NEXFILE", "SECRETS", "FunctionFolder", "FunctionRefused", "find_functions", "has_nexfile", "read_function"]

NEXFILE = "Nexfile"
"""The manifest's name, which is also where `nex workload start` looks by itself."""

SECRETS = "secrets"
"""The folder beside functions that `dev` reads their secrets from."""

LIFECYCLE = "function"
"""The one lifecycle that this nexlet serves."""

_KNOWN = ("name", "description", "tags", "type", "lifecycle", "start_request")
_REQUIRED = ("name", "type", "lifecycle", "start_request")


class FunctionRefused(NexletFunctionsError):
    """A function's folder cannot be used as it is.

    Attributes:
        name: of the function, or of its folder where the Nexfile does not tell.
        problems: every reason, the Nexfile's first.
        request: the start request with the sources that could be read, for who wants to look at these as well; None
            where no source is known.
        source_name: the main module's file name.
    """

    code = "function-refused"

    def __init__(
        self,
        name: str,
        problems: Sequence[Problem],
        *,
        request: Mapping[str, Any] | None = None,
        source_name: str = "",
    ) -> None:
        self.name = name
        self.problems = tuple(problems)
        self.request = request
        self.source_name = source_name
        super().__init__(render(name, self.problems))


@dataclass(frozen=True, slots=True)
class FunctionFolder:
    """One function as its author keeps it.

    Attributes:
        path: the folder.
        name, type, lifecycle, description, tags: as the Nexfile says them.
        request: the start request as it goes to a node: sources inline.
        start: the same, parsed.
        source_name: the main module's file name, for messages ("" where the source is an artifact elsewhere).
        document: the Nexfile, as it was read.
    """

    path: Path
    name: str
    type: str
    lifecycle: str
    description: str
    tags: Mapping[str, str]
    request: Mapping[str, Any] = field(repr=False)
    start: StartRequest = field(repr=False)
    source_name: str
    document: Document = field(repr=False)

    def located(self, problem: Problem) -> Problem:
        """A problem with the start request, put at its line in the Nexfile, or in the source it is about."""
        return _located(self.document, problem, self.source_name)

    def pack(self) -> str:
        """The self-contained Nexfile, YAML: what `nex workload start -f` takes."""
        nexfile: dict[str, Any] = {"name": self.name}
        if self.description:
            nexfile["description"] = self.description
        nexfile |= {"type": self.type, "lifecycle": self.lifecycle}
        if self.tags:
            nexfile["tags"] = dict(self.tags)
        nexfile["start_request"] = dict(self.request)
        return write_document(nexfile)


def find_functions(paths: Iterable[Path]) -> list[Path]:
    """The function folders meant by `paths`: each of them itself, or the folders right below it that have a Nexfile.

    A path may also be a file of a function's folder, as an editor passes it. Among several, as a shell makes them of
    `samples/*`, the folder of secrets that `dev` finds beside functions is passed over.

    Returns:
        Folders, those of one path in alphabetical order, none twice.

    Raises:
        FunctionRefused: a path is not there, may not be looked into, or there is no function in it.
    """
    found: dict[Path, None] = {}
    given = list(paths)
    for path in given:
        try:
            found |= dict.fromkeys(_functions_at(path, several=len(given) > 1))
        except OSError as error:
            problem = Problem(f"cannot be read: {error.strerror or error}", code="file-unreadable")
            raise FunctionRefused(str(path), [problem]) from None
    return list(found)


def _functions_at(path: Path, *, several: bool) -> list[Path]:
    folder = path.parent if path.is_file() else path
    if not folder.is_dir():
        raise FunctionRefused(
            str(path), [Problem("no such folder", advice="name a function's folder", code="folder-missing")]
        )
    if (folder / NEXFILE).is_file():
        return [folder]
    below = sorted(each for each in folder.iterdir() if has_nexfile(each))
    if not below and not (folder.name == SECRETS and several):
        raise FunctionRefused(str(path), [_no_nexfile(folder)])
    return below


def has_nexfile(folder: Path) -> bool:
    """Whether a folder is a function's. One that we may not look into, such as a database's, is not."""
    try:
        return (folder / NEXFILE).is_file()
    except PermissionError:
        return False


def read_function(path: Path) -> FunctionFolder:
    """Read a function's folder.

    Raises:
        FunctionRefused: everything that is wrong with the Nexfile, the start request and the files they name.
    """
    file = path / NEXFILE
    fallback = path.resolve().name
    if not has_nexfile(path):
        raise FunctionRefused(fallback, [_no_nexfile(path)])
    try:
        document = read_document(_text(file), NEXFILE)
    except DocumentRefused as refused:
        begin = f"begin with 'name: {fallback}', or have all of it made: nexfn init NAME"
        problems = [
            replace(problem, advice=begin) if problem.code == "document-empty" else problem
            for problem in refused.problems
        ]
        raise FunctionRefused(fallback, problems) from None
    except _Unreadable as unreadable:
        raise FunctionRefused(fallback, [unreadable.problem]) from None
    if not isinstance(document.value, dict):
        problem = document.problem("", f"is not a mapping, but {_kind(document.value)}", code="nexfile-type")
        raise FunctionRefused(fallback, [replace(problem, advice=f"begin with 'name: {fallback}'")])

    problems = _check_fields(document)
    given = document.value.get("name")
    name = given if isinstance(given, str) and given else fallback
    request = document.value.get("start_request")
    if not isinstance(request, dict):
        raise FunctionRefused(name, problems)

    packer = _Packer(path, document)
    packed, source_name = packer.pack(request)
    problems += packer.problems
    start: StartRequest | None = None
    try:
        # Only what is left after packing is the start request's: a source file that is missing was reported already.
        start = parse_start_request(json.dumps(packed))
    except StartRequestRefused as refused:
        problems += [_located(document, problem, source_name) for problem in refused.problems]
    if problems or start is None:
        known = None if packer.stands_in else packed
        raise FunctionRefused(name, _in_order(problems), request=known, source_name=source_name)
    return FunctionFolder(
        path=path,
        name=name,
        type=document.value["type"],
        lifecycle=document.value["lifecycle"],
        description=document.value.get("description") or "",
        tags=document.value.get("tags") or {},
        request=packed,
        start=start,
        source_name=source_name,
        document=document,
    )


class _Unreadable(Exception):
    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def _text(file: Path) -> str:
    """The text of a file, line ends as Python reads them.

    Raises:
        _Unreadable: it is not there, not a file, not to be read, or not UTF-8.
    """
    if not file.is_file():
        beside = sorted(each.name for each in file.parent.iterdir() if each.suffix == ".py")
        found = f"found beside the Nexfile: {', '.join(beside)}" if beside else "there is no Python file in the folder"
        raise _Unreadable(Problem("no such file", file.name, advice=found, code="file-missing"))
    try:
        data = file.read_bytes()
    except OSError as error:
        raise _Unreadable(
            Problem(f"cannot be read: {error.strerror or error}", file.name, code="file-unreadable")
        ) from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problem = Problem(
            f"not UTF-8: byte {data[error.start]:#04x} on line {line}",
            file.name,
            line,
            advice="save the file as UTF-8",
            code="file-encoding",
        )
        raise _Unreadable(problem) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _no_nexfile(folder: Path) -> Problem:
    return Problem(
        f"no {NEXFILE} here",
        str(folder),
        advice=f"a function's folder has a {NEXFILE} that says name, type, lifecycle and start_request",
        code="nexfile-missing",
    )


def _kind(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list():
            return "a list"
        case _:
            return "a mapping"


def _check_fields(document: Document) -> list[Problem]:
    """What is wrong with the Nexfile's own fields."""
    value: dict[str, Any] = document.value
    unknown = [key for key in value if key not in _KNOWN]
    problems = [_unknown_field(document, key) for key in unknown]
    misspelt = {_nearest(key, _KNOWN) for key in unknown}  # said already, with the key that was meant
    problems += [
        document.problem("", f"'{key}' is missing", advice=_MISSING[key], code="nexfile-missing-key")
        for key in _REQUIRED
        if key not in value and key not in misspelt
    ]
    for key in ("name", "type", "lifecycle", "description"):
        given = value.get(key, "-")
        if not isinstance(given, str) and not (key == "description" and given is None):
            advice = _MISSING.get(key, "") if given is None or isinstance(given, (dict, list)) else "put it in quotes"
            message = f"'{key}' is {_kind(given)}, not text"
            problems.append(document.problem(key, message, advice=advice, code="nexfile-type"))
    name, kind = value.get("name"), value.get("type")
    if isinstance(name, str) and (reason := valid_name(name)) is not None:
        advice = "use letters, digits, '-', '_' and '.': the queue group of its triggers is made of it"
        message = f"{name!r} cannot be a function's name: it {reason}"
        problems.append(document.problem("name", message, advice=advice, code="nexfile-name"))
    if isinstance(kind, str) and (reason := valid_token(kind)) is not None:
        message = f"{kind!r} cannot be a type: it {reason}"
        problems.append(document.problem("type", message, advice=_MISSING["type"], code="nexfile-type-name"))
    lifecycle = value.get("lifecycle")
    if isinstance(lifecycle, str) and lifecycle != LIFECYCLE:
        problems.append(
            document.problem(
                "lifecycle",
                f"lifecycle '{lifecycle}' is not served",
                advice=_MISSING["lifecycle"],
                code="nexfile-lifecycle",
            )
        )
    tags = value.get("tags")
    if tags is not None and not isinstance(tags, dict):
        problems.append(document.problem("tags", f"'tags' is {_kind(tags)}, not a mapping", code="nexfile-type"))
    elif tags:
        problems += [
            document.problem(
                path_of("tags", key),
                f"the tag '{key}' is {_kind(tag)}, not text",
                advice="put it in quotes",
                code="nexfile-type",
            )
            for key, tag in tags.items()
            if not isinstance(tag, str)
        ]
    request = value.get("start_request", {})
    if not isinstance(request, dict):
        problems.append(
            document.problem(
                "start_request",
                f"'start_request' is {_kind(request)}, not a mapping",
                advice="begin with 'source_file: function.py' below it",
                code="nexfile-type",
            )
        )
    return problems


_MISSING = {
    "name": "name: what the function is called, such as 'name: greet'",
    "type": "type: what the nexlet is registered as, 'type: python' unless its operator chose another",
    "lifecycle": f"write 'lifecycle: {LIFECYCLE}'",
    "start_request": "start_request: a mapping with 'source_file: function.py' and 'triggers'",
}


def _unknown_field(document: Document, key: str) -> Problem:
    nearest = _nearest(key, _KNOWN)
    advice = f"did you mean '{nearest}'?" if nearest else f"known are: {', '.join(_KNOWN)}"
    if key in StartRequest.model_fields or key == "source_file":
        advice = f"'{key}' belongs below 'start_request'"
    elif key in LimitsRequest.model_fields:
        advice = f"'{key}' belongs below 'limits' of 'start_request'"
    return document.problem(key, f"unknown key '{key}'", advice=advice, code="nexfile-unknown-key", at_key=True)


def _nearest(key: str, known: Sequence[str]) -> str:
    import difflib  # only a refusal needs it

    return next(iter(difflib.get_close_matches(key.lower(), known, n=1, cutoff=0.6)), "")


def _located(document: Document, problem: Problem, source_name: str) -> Problem:
    """A start request's problem, put at its line in the Nexfile, or in the source it is about."""
    within = "" if problem.place == "start_request" else problem.place
    path = f"start_request.{within}" if within else "start_request"
    if within == "source" and path not in document.keys:
        return replace(problem, place=source_name)
    unknown = problem.code == "unknown-key"
    message = f"{within}: {problem.message}" if within and not unknown else problem.message
    return document.problem(path, message, advice=problem.advice, code=problem.code, at_key=unknown)


def _in_order(problems: Iterable[Problem]) -> list[Problem]:
    return sorted(problems, key=lambda problem: (problem.place != NEXFILE, problem.place, problem.line, problem.column))


_STAND_IN = "pass\n"


class _Packer:
    """Puts a folder's sources into its start request.

    Attributes:
        problems: what is wrong with them.
        stands_in: the source cannot be had. Something harmless is in its place, so that the rest is checked all the
            same.
    """

    def __init__(self, folder: Path, document: Document) -> None:
        self.problems: list[Problem] = []
        self.stands_in = False
        self._folder = folder
        self._document = document

    def pack(self, request: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
        """The start request with its sources inline, and the main module's file name ("" for an artifact)."""
        packed = {key: value for key, value in request.items() if key not in ("source_file", "source", "files")}
        if "source_file" not in request:
            return self._as_it_is(request, packed)
        for other in ("source", "uri"):
            if other in request:
                packed.pop("uri", None)
                self._refuse(
                    other,
                    f"both 'source_file' and '{other}'",
                    "keep the one that has the function's source",
                    "source-twice",
                    at_key=True,
                )
        name = request["source_file"]
        source = self._read(name, "source_file")
        self.stands_in = source is None
        packed["source"] = _STAND_IN if source is None else source
        listed = self._listed(request.get("files"))
        files = dict(self._imported(packed["source"], {name} if isinstance(name, str) else set()))
        files |= listed
        if files:
            packed["files"] = files
        return packed, name if isinstance(name, str) else ""

    def _as_it_is(self, request: Mapping[str, Any], packed: dict[str, Any]) -> tuple[dict[str, Any], str]:
        if "source" not in request and "uri" not in request:
            self._refuse(
                "",
                "nothing says where the source is",
                "write 'source_file: function.py' (or 'source', or 'uri')",
                "source-missing",
            )
            self.stands_in = True
            packed["source"] = _STAND_IN
        if "source" in request:
            packed["source"] = request["source"]
        if "files" in request:
            files = request["files"]
            packed["files"] = self._listed(files) if isinstance(files, list) else files
        return packed, "function.py" if "uri" not in request else ""

    def _listed(self, files: Any) -> dict[str, Any]:
        """Helper modules that the Nexfile names: a list of file names, or a mapping of names to sources."""
        if files is None or isinstance(files, dict):
            return files or {}
        if not isinstance(files, list):
            self._refuse("files", f"'files' is {_kind(files)}, not a list of file names", "", "nexfile-type")
            return {}
        result: dict[str, Any] = {}
        for index, name in enumerate(files):
            source = self._read(name, path_of("files", index))
            if source is not None:
                result[name] = source
        return result

    def _imported(self, source: str, seen: set[str]) -> dict[str, str]:
        """The modules of the folder that a source imports, and those that these import."""
        result: dict[str, str] = {}
        waiting = [source]
        while waiting:
            for name in sorted(_imports(waiting.pop())):
                file = f"{name}.py"
                if file in seen or _is_test(file) or not (self._folder / file).is_file():
                    continue
                seen.add(file)
                text = self._read(file, "source_file")
                if text is not None:
                    result[file] = text
                    waiting.append(text)
        return result

    def _read(self, name: Any, path: str) -> str | None:
        """A source of the folder; None, and a problem, where it cannot be had."""
        if not isinstance(name, str) or not name:
            self._refuse(path, f"a file's name is expected, not {_kind(name)}", "", "nexfile-type")
            return None
        if Path(name).name != name or name in ("..", "."):
            self._refuse(
                path,
                f"'{name}' is not a file of this folder",
                "one folder is one function: put the file beside the Nexfile",
                "file-elsewhere",
            )
            return None
        try:
            return _text(self._folder / name)
        except _Unreadable as unreadable:
            if unreadable.problem.line:
                self.problems.append(unreadable.problem)
            else:
                message = f"{name}: {unreadable.problem.message}"
                self._refuse(path, message, unreadable.problem.advice, unreadable.problem.code)
            return None

    def _refuse(self, path: str, message: str, advice: str, code: str, *, at_key: bool = False) -> None:
        at = f"start_request.{path}" if path else "start_request"
        self.problems.append(self._document.problem(at, message, advice=advice, code=code, at_key=at_key))


def _imports(source: str) -> set[str]:
    """First names of what a source imports; nothing where it does not parse, which is for the check to say."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def _is_test(file: str) -> bool:
    return file == "conftest.py" or file.startswith("test_") or file.endswith("_test.py")
