"""An exception of the author's as text: a traceback of their own lines, and one line about it.

Nothing of the author's runs for it: no `__str__`, no `__repr__`, no property. What an exception says is read from its
arguments, of which only Python's own plain types are shown. Everything is bounded, and nothing here raises.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from typing import Final

from nexlet_sandboxes.language.diagnostics import Source
from nexlet_sandboxes.language.modules.own import is_own_class

__all__ = ["MAX_FRAMES", "MAX_SUMMARY", "MAX_TEXT", "Explainer"]

MAX_TEXT: Final = 8 * 1024
"""Characters of a traceback."""

MAX_SUMMARY: Final = 512
"""Characters of the one line."""

MAX_FRAMES: Final = 30
"""Frames of one exception that are shown: the outermost and the innermost."""

MAX_CHAIN: Final = 5
"""Exceptions of a chain of causes that are shown."""

_MAX_LINE: Final = 200
_CAUSE: Final = "\nThe above exception was the direct cause of the following exception:\n\n"
_CONTEXT: Final = "\nDuring handling of the above exception, another exception occurred:\n\n"

_name_of: Final[Callable[[type], str]] = type.__dict__["__name__"].__get__
_args_of: Final = BaseException.__dict__["args"].__get__
_traceback_of: Final = BaseException.__dict__["__traceback__"].__get__
_cause_of: Final = BaseException.__dict__["__cause__"].__get__
_context_of: Final = BaseException.__dict__["__context__"].__get__
_files_of: Final = (OSError.__dict__["filename"].__get__, OSError.__dict__["filename2"].__get__)
_suppressed: Final = BaseException.__dict__["__suppress_context__"].__get__


class Explainer:
    """Explains exceptions of one program.

    Frames belong to the author if they run in the globals of one of the author's modules; a file's name proves nothing.
    """

    __slots__ = ("_sources",)

    def __init__(self) -> None:
        self._sources: dict[int, tuple[Mapping[str, object], Source]] = {}

    def add(self, module: types.ModuleType, source: Source) -> None:
        """From now on frames of `module` are the author's, and their lines are found in `source`."""
        self._sources[id(module.__dict__)] = (module.__dict__, source)

    def summary(self, error: BaseException) -> str:
        """`ValueError: text`, one line of at most `MAX_SUMMARY` characters."""
        try:
            return _summary(error)
        except Exception:  # noqa: BLE001  # what cannot be told must not hide that there was an error
            return "an error that cannot be shown"

    def explain(self, error: BaseException) -> str:
        """The traceback, oldest cause first, with the author's frames only; at most `MAX_TEXT` characters."""
        try:
            return self._explain(error)
        except Exception:  # noqa: BLE001
            return self.summary(error)

    def place(self, error: BaseException) -> tuple[Source, int] | None:
        """The innermost line of the author's that the exception passed, or None."""
        found = None
        trace = _traceback_of(error)
        while trace is not None:
            source = self._source(trace.tb_frame)
            if source is not None and trace.tb_lineno:
                found = source, trace.tb_lineno
            trace = trace.tb_next
        return found

    def _source(self, frame: types.FrameType) -> Source | None:
        entry = self._sources.get(id(frame.f_globals))
        return entry[1] if entry is not None and entry[0] is frame.f_globals else None

    def _explain(self, error: BaseException) -> str:
        parts: list[str] = []
        seen: set[int] = set()
        current: BaseException | None = error
        while current is not None and id(current) not in seen and len(seen) < MAX_CHAIN:
            seen.add(id(current))
            parts.append(self._one(current))
            cause = _cause_of(current)
            if cause is not None:
                parts.append(_CAUSE)
                current = cause
            else:
                current = None if _suppressed(current) else _context_of(current)
                if current is not None:
                    parts.append(_CONTEXT)
        if parts[-1] in (_CAUSE, _CONTEXT):
            parts.pop()
        text = "".join(reversed(parts)).rstrip("\n")
        if len(text) <= MAX_TEXT:
            return text
        # The end says what went wrong, the beginning where it came from.
        gap = "\n  ...\n"
        return text[: MAX_TEXT // 4] + gap + text[len(text) - (MAX_TEXT - MAX_TEXT // 4 - len(gap)) :]

    def _one(self, error: BaseException) -> str:
        first: list[str] = []
        last: list[str] = []
        count = 0
        trace = _traceback_of(error)
        while trace is not None:
            source = self._source(trace.tb_frame)
            if source is not None:
                count += 1
                number = trace.tb_lineno or 0
                text = f'  File "{source.filename}", line {number}, in {_cut(trace.tb_frame.f_code.co_name, 80)}\n'
                line = _cut(source.line(number).strip(), _MAX_LINE)
                if line:
                    text += f"    {line}\n"
                if len(first) < MAX_FRAMES // 2:
                    first.append(text)
                else:
                    last.append(text)
                    if len(last) > MAX_FRAMES // 2:
                        last.pop(0)
            trace = trace.tb_next
        lines = ["Traceback (most recent call last):\n", *first] if first else []
        if count > len(first) + len(last):
            lines.append(f"  ... {count - len(first) - len(last)} more\n")
        lines += [*last, _summary(error), "\n"]
        for note in _notes(error):
            lines.append(_cut(note, MAX_SUMMARY) + "\n")
        return "".join(lines)


def _summary(error: BaseException) -> str:
    name = _cut(_name_of(type(error)), 100)
    text = _text(error)
    return _cut(_one_line(f"{name}: {text}" if text else name), MAX_SUMMARY)


def _text(error: BaseException) -> str:
    args = _args_of(error)
    kind = type(error)
    if all(_is_small(item) for item in args[:10]) and len(args) <= 10:
        own = is_own_class(kind)
        # The text of Python's own exceptions is made of their arguments, and no more.
        if not own and kind.__str__ in _SAFE_STR and kind not in _MUTABLE and _has_small_files(error):
            return str(error)
    if not args:
        return ""
    if len(args) == 1:
        return args[0] if type(args[0]) is str else _show(args[0], 3)
    return _show(args, 3)


def _has_small_files(error: BaseException) -> bool:
    """Whether the files that an OSError names, which are not among its arguments, are texts or nothing."""
    return not isinstance(error, OSError) or all(_is_small(of(error)) for of in _files_of)


def _is_small(value: object) -> bool:
    """Whether a value's own text is short and made by nobody's code."""
    if isinstance(value, (str, bytes)):
        return type(value) in _SCALARS and len(value) <= MAX_SUMMARY
    if isinstance(value, int):
        return type(value) in _SCALARS and value.bit_length() < MAX_BITS
    return type(value) in _SCALARS


MAX_BITS: Final = 1024
"""A longer number is told by its length."""

_SCALARS: Final = frozenset({str, bytes, int, float, bool, type(None)})
_SAFE_STR: Final = frozenset(
    {BaseException.__str__, KeyError.__str__, OSError.__str__, ImportError.__str__, UnicodeDecodeError.__str__}
    | {UnicodeEncodeError.__str__, UnicodeTranslateError.__str__}
)
_MUTABLE: Final = frozenset({SyntaxError, IndentationError, TabError})
"""Exceptions whose text is made of attributes that may have been given any object."""


def _show(value: object, depth: int) -> str:
    """A short `repr` of plain values; of anything else, its class's name."""
    kind = type(value)
    if kind is str or kind is bytes:
        whole: str | bytes = value  # type: ignore[assignment]  # its type was just looked at
        return repr(whole if len(whole) <= MAX_SUMMARY else whole[:MAX_SUMMARY])
    if kind is int:
        number: int = value  # type: ignore[assignment]
        return repr(number) if number.bit_length() < MAX_BITS else f"<int of {number.bit_length()} bits>"
    if kind in _SCALARS:
        return repr(value)
    if depth and (kind is list or kind is tuple or kind is dict):
        items: list[str] = []
        if kind is dict:
            pairs: dict[object, object] = value  # type: ignore[assignment]
            for number_of, key in enumerate(pairs):
                if number_of == 10:
                    items.append("...")
                    break
                items.append(
                    f"{_show(key, depth - 1)}: {_show(pairs[key], depth - 1) if type(key) in _SCALARS else '...'}"
                )
            return "{" + ", ".join(items) + "}"
        many: list[object] | tuple[object, ...] = value  # type: ignore[assignment]
        items = [_show(item, depth - 1) for item in many[:10]] + (["..."] if len(many) > 10 else [])
        if kind is list:
            return "[" + ", ".join(items) + "]"
        return "(" + ", ".join(items) + ("," if len(items) == 1 else "") + ")"
    return f"<{_cut(_name_of(kind), 100)}>"


def _notes(error: BaseException) -> list[str]:
    held = object.__getattribute__(error, "__dict__").get("__notes__") if hasattr(type(error), "__dict__") else None
    return [note for note in held[:5] if type(note) is str] if type(held) is list else []


def _one_line(text: str) -> str:
    return " ".join(text[: MAX_SUMMARY * 2].split("\n"))


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."
