"""From text to a syntax tree, within bounds: a source that is made to hurt a compiler ends as a problem.

CPython's parser guards its own stack; what it does not bound is the memory of an enormous tree, and how deep a tree may
be for whoever walks it afterwards. So sizes and counts are looked at before parsing, and depth before the policy.
"""

from __future__ import annotations

import ast
import re
import warnings
from typing import Final

from nexlet_models.problems import Problem
from nexlet_sandboxes.language.diagnostics import Source

__all__ = ["MAX_DEPTH", "MAX_NODES", "MAX_SOURCE", "MAX_TOKENS", "parse", "syntax_problem"]

MAX_SOURCE: Final = 1024 * 1024
"""Characters and bytes of one file."""

MAX_TOKENS: Final = 150_000
"""Tokens of one file: about 15,000 lines of ordinary code."""

MAX_NODES: Final = 300_000
"""Nodes of one file's syntax tree."""

MAX_DEPTH: Final = 150
"""How deep a syntax tree may be. The policy walks it with four Python frames a level, of the thousand there are."""

_SIMPLER: Final = "take it apart into several statements"

# One match for each token, a string or comment being one whatever is in it. Not a tokenizer: it only has to count, in
# time that grows with the text. So every alternative takes what it has looked at, an unclosed string to its end.
_TOKEN: Final = re.compile(
    r'"""(?:[^"\\]++|\\.|"(?!""))*+(?:""")?'
    r"|'''(?:[^'\\]++|\\.|'(?!''))*+(?:''')?"
    r'|"(?:[^"\\\n]++|\\.)*+"?'
    r"|'(?:[^'\\\n]++|\\.)*+'?"
    r"|#[^\n]*+"
    r"|\w++"
    r"|[^\w\s]",
    re.DOTALL,
)
_INSIDE: Final = re.compile(r"\w++|[^\w\s]")
_FORMATTED: Final = frozenset({"f", "fr", "rf"})


def parse(source: Source) -> tuple[ast.Module | None, list[Problem]]:
    """The tree of one file, or why there is none.

    A coding cookie means nothing: the source is text already.
    """
    text = source.text
    refused = _size(source)
    if refused:
        return None, [refused]
    try:
        with warnings.catch_warnings():
            # "invalid escape sequence" and its like are between the author and their editor.
            warnings.simplefilter("ignore")
            tree = ast.parse(text, source.filename, "exec", type_comments=False)
    except SyntaxError as error:
        return None, [syntax_problem(source, error)]
    except ValueError as error:
        return None, [source.on(0, f"the source cannot be parsed: {error}", code="syntax-error")]
    except (RecursionError, MemoryError):
        return None, [_too_deep(source, None)]
    refused = _shape(source, tree)
    return (None, [refused]) if refused else (tree, [])


def _size(source: Source) -> Problem | None:
    text = source.text
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        before = text[: error.start]
        line = before.count("\n") + 1
        return source.on(
            line,
            f"the source holds a lone surrogate, U+{ord(text[error.start]):04X}, which is no character",
            code="syntax-error",
            advice="save the file as UTF-8",
        )
    if size > MAX_SOURCE:
        return source.on(
            0,
            f"the source is {size} bytes, more than the {MAX_SOURCE} allowed",
            code="source-too-large",
            advice="leave data out of the source: an object store or the environment can hold it",
        )
    if len(text) > MAX_TOKENS:
        count = _tokens(text)
        if count > MAX_TOKENS:
            return source.on(
                0,
                f"the source has {count} words and signs, more than the {MAX_TOKENS} allowed",
                code="source-too-large",
                advice="leave data out of the source, or write it as one JSON text",
            )
    return None


def _tokens(text: str) -> int:
    """How many tokens there are; what is in an f-string counts, since it is parsed as well."""
    count, before, unclosed = 0, "", False
    end = -1
    for match in _TOKEN.finditer(text):
        token = match[0]
        count += 1
        if token[0] in "'\"":
            formatted = match.start() == end and before.lower() in _FORMATTED
            if formatted or unclosed:
                count += sum(1 for _ in _INSIDE.finditer(token))
            # From Python 3.12 on an f-string may hold its own quotes: what looks like the text between them is code.
            unclosed = unclosed or (formatted and token.count("{") > token.count("}"))
        before, end = token, match.end()
    return count


def _shape(source: Source, tree: ast.Module) -> Problem | None:
    """Depth and number of nodes, looked at without recursion."""
    level: list[ast.AST] = [tree]
    depth = count = 0
    while level:
        count += len(level)
        if depth > MAX_DEPTH:
            return _too_deep(source, next((node for node in level if hasattr(node, "lineno")), None))
        if count > MAX_NODES:
            return source.on(
                0,
                f"the source has more than the {MAX_NODES} syntax nodes allowed",
                code="source-too-large",
                advice="leave data out of the source, or write it as one JSON text",
            )
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        depth += 1
    return None


def _too_deep(source: Source, node: ast.AST | None) -> Problem:
    message = "the source is nested too deeply"
    if node is None:
        return source.on(0, message, code="nested-too-deeply", advice=_SIMPLER)
    return source.on(getattr(node, "lineno", 0), message, code="nested-too-deeply", advice=_SIMPLER)


def syntax_problem(source: Source, error: SyntaxError) -> Problem:
    """What Python's parser or compiler said."""
    line = error.lineno or 0
    column = error.offset or 0
    end = error.end_offset or 0 if error.end_lineno == error.lineno else 0
    return source.on(
        line,
        f"invalid syntax: {error.msg}" if error.msg != "invalid syntax" else "invalid syntax",
        code="syntax-error",
        column=max(column, 0),
        end_column=end if end > column else 0,
    )
