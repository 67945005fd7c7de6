"""YAML and JSON as people write them, with the place of everything that is in it.

`read_document` turns a text into plain values and remembers where each key and value stood, so that whatever is found
wrong with a value later can be shown with its line and a caret. JSON is read by the same means: it is YAML, once the
few differences are out of the way. `write_document` is the way back, for files that people may read, too: text of
several lines becomes a block scalar.

The dialect is YAML 1.2's core schema, which is also what Nex's own command line reads: `yes` and `on` are text,
`1:30` is text, a date is text. Aliases are refused, keys are text and stand once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.reader import ReaderError

from nexlet_functions.errors import NexletFunctionsError
from nexlet_models.problems import Problem, render

__all__ = ["MAX_SIZE", "Document", "DocumentRefused", "Place", "path_of", "read_document", "write_document"]

MAX_SIZE = 8 * 1024 * 1024
"""Characters of one document: more than any server takes in one message (its limit is 64 MiB, its default 1 MiB)."""

_MAX_DEPTH = 64
"""Levels of nesting: far more than a Nexfile has, far less than the interpreter's recursion limit."""


class DocumentRefused(NexletFunctionsError):
    """A document cannot be read.

    Attributes:
        name: of the document.
        problems: every reason found.
    """

    code = "document-refused"

    def __init__(self, name: str, problems: Sequence[Problem]) -> None:
        self.name = name
        self.problems = tuple(problems)
        super().__init__(render(name, self.problems))


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands: 1-based line and columns; `end` is the column after its last character on that line."""

    line: int
    column: int
    end: int


@dataclass(frozen=True, slots=True)
class Document:
    """What was read.

    Attributes:
        name: of the document, such as "Nexfile".
        value: plain values: dict, list, str, int, float, bool, None.
        lines: the text.
        keys, values: path ("start_request.triggers[1].subject") to the place of the key, and of its value.
    """

    name: str
    value: Any
    lines: tuple[str, ...] = field(repr=False)
    keys: Mapping[str, Place] = field(repr=False)
    values: Mapping[str, Place] = field(repr=False)

    def problem(self, path: str, message: str, *, advice: str = "", code: str = "", at_key: bool = False) -> Problem:
        """A problem with what is at `path`, or, where nothing is, with the nearest thing around it.

        Args:
            path: as in `keys` and `values`; "" is the whole document.
            message, advice, code: as in `Problem`.
            at_key: whether the key is at fault rather than its value.
        """
        place = self.place(path, at_key=at_key)
        if place is None:
            return Problem(message=message, place=self.name, advice=advice, code=code)
        return Problem(
            message=message,
            place=self.name,
            line=place.line,
            column=place.column,
            end_column=place.end,
            source_line=self.lines[place.line - 1] if place.line <= len(self.lines) else "",
            advice=advice,
            code=code,
        )

    def place(self, path: str, *, at_key: bool = False) -> Place | None:
        """The place of `path`, else of the nearest thing around it; None for the document as a whole."""
        while path:
            first, second = (self.keys, self.values) if at_key else (self.values, self.keys)
            found = first.get(path) or second.get(path)
            if found is not None:
                return found
            path = _parent(path)
            at_key = True  # what is missing is missing in something: its key says in what
        return None


def path_of(parent: str, key: str | int) -> str:
    """The path of a key or an index within `parent`: `triggers[1]`, `limits.timeout`, `files["a.py"]`."""
    if isinstance(key, int):
        return f"{parent}[{key}]"
    if not (key.isidentifier() and key.isascii()):
        return f"{parent}[{json.dumps(key, ensure_ascii=False)}]"
    return f"{parent}.{key}" if parent else key


def _parent(path: str) -> str:
    match = re.search(r'(?:\.[A-Za-z0-9_]+|\[\d+\]|\["(?:[^"\\]|\\.)*"\])$', path)
    return path[: match.start()] if match else ""


def read_document(text: str, name: str) -> Document:
    """Read one YAML or JSON document.

    Args:
        text: all of it.
        name: what it is called in messages: a file name.

    Raises:
        DocumentRefused: it is neither, is empty, too large or too deep, or says a key twice.
    """
    if len(text) > MAX_SIZE:
        raise DocumentRefused(
            name,
            [Problem(f"larger than {MAX_SIZE // (1024 * 1024)} MiB", name, code="document-too-large")],
        )
    text = text.removeprefix("\ufeff")
    lines = tuple(text.split("\n"))
    is_json = _is_json(text)
    # A raw tab in a JSON string is an error, so every tab stands between tokens, where YAML wants a space. Characters
    # that YAML does not take raw can only stand in strings.
    readable = _NOT_IN_YAML.sub(_escaped, text.replace("\t", " ").replace("\r", " ")) if is_json else text
    try:
        root = yaml.compose(readable, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        raise DocumentRefused(name, [_syntax_problem(error, lines, name)]) from None
    except ReaderError as error:
        before = text[: error.position]
        line = before.count("\n") + 1
        column = error.position - (before.rfind("\n") + 1) + 1
        where = Document(name, None, lines, {}, {"character": Place(line, column, column + 1)})
        problem = where.problem(
            "character",
            f"a character that does not belong in a text file (code {error.character:#x})",
            advice="save the file as UTF-8 text, without control characters",
            code="document-character",
        )
        raise DocumentRefused(name, [problem]) from None
    except RecursionError:
        raise DocumentRefused(name, [Problem("nested too deeply", name, code="document-too-deep")]) from None
    if root is None:
        raise DocumentRefused(name, [Problem("is empty", name, code="document-empty")])
    reader = _Reader(name, lines, is_json=is_json)
    value = reader.build(root, "", 0)
    if reader.problems:
        raise DocumentRefused(name, sorted(reader.problems, key=lambda problem: (problem.line, problem.column)))
    return Document(name, value, lines, reader.keys, reader.values)


def _is_json(text: str) -> bool:
    if not text.lstrip().startswith(("{", "[")):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False  # YAML's flow style begins in the same way, and tells better what is wrong
    return True


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core schema, and no aliases."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # untyped in the stubs
            raise ComposerError(None, None, "an alias ('*name') is not read here", mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        return node


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)


class _Reader:
    """Values out of nodes, with their places and with what is wrong."""

    def __init__(self, name: str, lines: tuple[str, ...], *, is_json: bool) -> None:
        self.keys: dict[str, Place] = {}
        self.values: dict[str, Place] = {}
        self.problems: list[Problem] = []
        self._is_json = is_json
        self._document = Document(name, None, lines, self.keys, self.values)

    def build(self, node: yaml.Node, path: str, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            self._refuse(path, f"nested more than {_MAX_DEPTH} levels deep", code="document-too-deep")
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            for index, child in enumerate(node.value):
                self.values[path_of(path, index)] = _place(child)
            return [self.build(child, path_of(path, index), depth + 1) for index, child in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: str, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self._text(key_node.value) if isinstance(key_node, yaml.ScalarNode) else None
            if key is None or key_node.tag != "tag:yaml.org,2002:str":
                self._refuse_node(key_node, "a key has to be text", advice="put it in quotes", code="document-key")
                continue
            below = path_of(path, key)
            if key in result:
                self._refuse_node(
                    key_node,
                    f"'{key}' stands here a second time; the first is on line {self.keys[below].line}",
                    advice="keep one of the two",
                    code="document-duplicate",
                )
                continue
            self.keys[below] = _place(key_node)
            if _on_one_line(value_node):
                self.values[below] = _place(value_node)
            result[key] = self.build(value_node, below, depth + 1)
        return result

    def _scalar(self, node: yaml.Node, path: str) -> Any:
        text: str = node.value
        match node.tag.removeprefix("tag:yaml.org,2002:"):
            case "str":
                return self._text(text)
            case "null":
                return None
            case "bool":
                return text.lower() == "true"
            case "int" if len(text) < 100:
                return int(text, 0) if text[:2].lower() in ("0o", "0x") else int(text)
            case "float" if len(text) < 100:
                return float(text)
            case "int" | "float":
                self._refuse_node(node, "a number of that length is not read here", code="document-number")
                return None
        self._refuse_node(
            node, f"the tag '{node.tag}' is not read here", advice="write the value without it", code="document-tag"
        )
        return None

    def _text(self, text: str) -> str:
        if not self._is_json:
            return text
        # JSON writes what is beyond the first 65536 characters as two halves.
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def _refuse(self, path: str, message: str, *, code: str) -> None:
        self.problems.append(self._document.problem(path, message, code=code))

    def _refuse_node(self, node: yaml.Node, message: str, *, advice: str = "", code: str) -> None:
        here = Document(self._document.name, None, self._document.lines, {}, {"node": _place(node)})
        self.problems.append(here.problem("node", message, advice=advice, code=code))


def _place(node: yaml.Node) -> Place:
    start, end = node.start_mark, node.end_mark
    line, column = start.line + 1, start.column + 1
    return Place(line, column, end.column + 1 if end.line == start.line and end.column > start.column else column + 1)


def _on_one_line(node: yaml.Node) -> bool:
    """Whether the value itself can be pointed at; a block is found by its key."""
    if isinstance(node, yaml.ScalarNode):
        return node.style not in ("|", ">") and bool(node.value or node.style)
    return isinstance(node, yaml.CollectionNode) and bool(node.flow_style)


def _syntax_problem(error: yaml.MarkedYAMLError, lines: tuple[str, ...], name: str) -> Problem:
    """What the parser says, put at its place; the mistakes that everyone makes once get their remedy named."""
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark is not None else (0, 0)
    text = lines[line - 1] if 0 < line <= len(lines) else ""
    said = error.problem or error.context or "cannot be read"
    advice = ""
    if text[column - 1 : column] == "\t" or "'\\t'" in said:
        said, advice = "a tab where YAML wants spaces", "indent with spaces: two a level"
    elif "alias" in said:
        advice = "write the value out where it is used"
    elif "mapping values are not allowed" in said:
        said = "a ':' that does not belong here"
        advice = "put text that has ': ' in it in quotes, and look at the indentation"
    elif error.context and error.context_mark is not None and error.context_mark.line + 1 != line:
        said = f"{said} ({error.context}, line {error.context_mark.line + 1})"
    return Problem(said, name, line, column, 0, text, advice, "document-syntax")


def write_document(value: Mapping[str, Any]) -> str:
    """A mapping as YAML that reads back as the same values here, in Nex's command line and in any other YAML reader.

    Text of several lines becomes a block scalar where that can hold it, and a JSON string otherwise. Everything else
    is written as JSON would write it, but for names that need no quotes.
    """
    lines: list[str] = []
    _write_mapping(value, 0, lines)
    text = "\n".join(lines) + "\n"
    assert read_document(text, "written").value == dict(value), "what was written reads back differently"
    return text


def _write_mapping(value: Mapping[str, Any], indent: int, lines: list[str], first: str = "") -> None:
    for key, item in value.items():
        lead, first = first or " " * indent, ""
        _write_item(f"{lead}{_scalar_text(key)}:", item, indent, lines)


def _write_item(lead: str, item: Any, indent: int, lines: list[str]) -> None:
    if isinstance(item, Mapping) and item:
        lines.append(lead)
        _write_mapping(item, indent + 2, lines)
    elif isinstance(item, (list, tuple)) and item:
        lines.append(lead)
        for element in item:
            dash = f"{' ' * (indent + 2)}- "
            if isinstance(element, Mapping) and element:
                _write_mapping(element, indent + 4, lines, first=dash)
            else:
                lines.append(dash + _scalar_text(element))
    elif isinstance(item, str) and (block := _block(item, indent + 2)) is not None:
        lines.append(f"{lead} {block[0]}")
        lines.extend(block[1])
    else:
        lines.append(f"{lead} {_scalar_text(item)}")


_NOT_IN_YAML = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
"""What YAML does not take as it is, or takes for the end of a line."""


def _escaped(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def _block(text: str, indent: int) -> tuple[str, list[str]] | None:
    """Header and lines of a literal block scalar; None where the text has one line or a block cannot hold it."""
    if "\n" not in text.rstrip("\n") and not text.endswith("\n"):
        return None
    if not text.strip() or _NOT_IN_YAML.search(text):
        return None
    body = text.rstrip("\n")
    ends = len(text) - len(body)
    # The reader takes the depth from the first line that has text, unless it is told.
    explicit = "2" if body[0] in " \t\n" else ""
    chomping = {0: "-", 1: ""}.get(ends, "+")
    shown = [" " * indent + line if line else "" for line in body.split("\n")]
    return f"|{explicit}{chomping}", shown + [""] * (ends - 1)


_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*")
_NOT_PLAIN = re.compile(r"true|false|null|yes|no|on|off|y|n", re.IGNORECASE)


def _scalar_text(value: Any) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value) and not _NOT_PLAIN.fullmatch(value):
        return value
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return _NOT_IN_YAML.sub(_escaped, text)
