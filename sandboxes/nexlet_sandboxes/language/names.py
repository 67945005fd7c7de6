"""Which names an author's code may say: one place for the policy at compile time and the guards at run time.

A name that begins with `_` never gets through; that alone keeps Python's own machinery (`__class__`, `__globals__`) out
of reach. Beyond it there are public names that lead to frames and code objects (`REFUSED_ATTRIBUTES`) and a few that
are harmless on most objects and not on some (`GUARDED_ATTRIBUTES`).
"""

from __future__ import annotations

import types
import unicodedata
from typing import Final

__all__ = [
    "ALWAYS_REFUSED",
    "GUARDED_ATTRIBUTES",
    "MAIN_MODULE",
    "REFUSED_ATTRIBUTES",
    "REFUSED_BUILTINS",
    "RESERVED_NAMES",
    "SPECIAL_METHODS",
    "attribute_refusal",
    "is_private",
    "quoted",
]

_INSIDES: Final = (
    types.GeneratorType,
    types.CoroutineType,
    types.AsyncGeneratorType,
    types.FrameType,
    types.TracebackType,
    types.CodeType,
)
_PREFIXES: Final = ("gi_", "cr_", "ag_", "f_", "tb_", "co_")

ALWAYS_REFUSED: Final = frozenset(
    {"gi_code", "gi_frame", "gi_running", "gi_suspended", "gi_yieldfrom"}
    | {"cr_await", "cr_code", "cr_frame", "cr_origin", "cr_running", "cr_suspended"}
    | {"ag_await", "ag_code", "ag_frame", "ag_running", "ag_suspended"}
    | {"f_back", "f_builtins", "f_code", "f_generator", "f_globals", "f_lasti", "f_lineno", "f_locals", "f_trace"}
    | {"f_trace_lines", "f_trace_opcodes", "tb_frame", "tb_lasti", "tb_lineno", "tb_next"}
    | {"co_branches", "co_code", "co_consts", "co_filename", "co_linetable", "co_lines", "co_lnotab", "co_names"}
    | {"co_varnames", "co_freevars", "co_cellvars", "co_positions", "co_qualname", "co_firstlineno", "co_flags"}
    | {"cell_contents", "mro", "with_traceback", "func_globals", "func_code", "im_func", "im_self", "im_class"}
)
"""On every version of Python, so that a function means the same on all of them."""

REFUSED_ATTRIBUTES: Final = ALWAYS_REFUSED | {
    # And the running interpreter's own list, so that what a new Python adds is refused without us.
    name
    for kind in _INSIDES
    for name in dir(kind)
    if name.startswith(_PREFIXES)
}
"""Attributes of frames, code, tracebacks, generators, coroutines and classes that lead out of the author's own code."""

GUARDED_ATTRIBUTES: Final = frozenset({"format", "format_map", "groupindex", "obj", "register"})
"""Read through a guard: `str.format` walks attributes by name, `AttributeError.obj` hands back what trusted code failed
on, `register` of an abstract class writes to a class that everybody shares, and `groupindex` of a pattern is a view
that hands its dictionary to whatever it is compared with."""

MAIN_MODULE: Final = "function"
"""`__name__` of a function's main module, whatever its file is called; a helper's is `function.prices`. It is in no
`sys.modules`, and tells an author's classes from everybody else's."""

RESERVED_NAMES: Final = frozenset({"super"})
"""May be used and not bound: `super().__init__()` is taken for what it says."""

_BINARY = ("add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "divmod", "pow", "lshift", "rshift", "and")
_OPERATORS = tuple(f"__{prefix}{name}__" for name in (*_BINARY, "or", "xor") for prefix in ("", "r", "i"))

SPECIAL_METHODS: Final = frozenset(
    {"__init__", "__post_init__", "__str__", "__repr__", "__bytes__", "__format__", "__hash__", "__bool__"}
    | {"__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"}
    | {"__len__", "__length_hint__", "__contains__", "__iter__", "__next__", "__reversed__"}
    | {"__getitem__", "__setitem__", "__delitem__", "__missing__", "__call__", "__enter__", "__exit__"}
    | {"__neg__", "__pos__", "__abs__", "__invert__", "__int__", "__float__", "__complex__", "__index__"}
    | {"__round__", "__trunc__", "__floor__", "__ceil__", *_OPERATORS}
) - {"__idivmod__"}
"""What a class may define of Python's protocols: those that are handed plain values and decide nothing about how
attributes are found, classes are made, or objects are copied and destroyed."""

REFUSED_BUILTINS: Final[dict[str, str]] = {
    "__import__": "write an import statement",
    "aiter": "there is no async code in a function; use iter",
    "anext": "there is no async code in a function; use next",
    "breakpoint": "print or context.log shows values while a function runs",
    "compile": "a function cannot make code from text; write the code, or look functions up in a dict",
    "copyright": "leave it out",
    "credits": "leave it out",
    "dir": "name the attributes you need; hasattr(value, 'name') asks for one",
    "eval": "json.loads reads data; a dict of functions picks what to run",
    "exec": "a function cannot make code from text; a dict of functions picks what to run",
    "exit": "return from the handler, or raise Reject(code, text)",
    "globals": "keep values in a dict of your own",
    "help": "leave it out",
    "id": "compare identity with 'is'",
    "input": "what the caller sends is in event.data, event.text and event.json()",
    "license": "leave it out",
    "locals": "keep values in a dict of your own",
    "memoryview": "slice bytes, or use bytearray",
    "open": "a function has no files; io.StringIO and io.BytesIO are files in memory",
    "quit": "return from the handler, or raise Reject(code, text)",
    "vars": "name the attributes you need, or keep values in a dict of your own",
}
"""Python's builtins that an author does not get, and what to write instead."""


def quoted(name: str) -> str:
    """A name as messages show it: an author may write one of a million characters."""
    return repr(name if len(name) <= 100 else name[:97] + "...")


def is_private(name: str) -> bool:
    """Whether `name` begins with an underscore, as it stands or as Python's parser would fold it (NFKC).

    A single `_` is a name like any other.
    """
    if not name.isascii():
        name = unicodedata.normalize("NFKC", name)
    return name.startswith("_") and name != "_"


def attribute_refusal(name: str) -> str | None:
    """Why no object's attribute `name` can be read, or None."""
    if is_private(name):
        return "attribute names may not begin with '_'"
    if name in REFUSED_ATTRIBUTES:
        return f"attribute {quoted(name)} leads into Python's insides"
    return None
