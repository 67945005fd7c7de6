"""What the names of a module lead to: how our own table is proven, and what an operator is told before adding to it.

A function can do two things with a value it was given: read its public attributes, and call it. `reach` follows the
first to the end, and reads the code of Python functions for the second, through the functions and classes they use in
turn. What C code does is not visible here; C functions are judged by the module they come from. So a finding is a fact,
and finding nothing is no proof: the kernel's locks are there for the rest.
"""

from __future__ import annotations

import builtins
import collections
import dis
import functools
import io
import itertools
import operator
import string
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, MutableSequence, MutableSet
from dataclasses import dataclass
from importlib import import_module

from nexlet_sandboxes.language.modules.proxies import ModuleProxy, make_proxy
from nexlet_sandboxes.language.names import GUARDED_ATTRIBUTES, REFUSED_BUILTINS, attribute_refusal

__all__ = ["Finding", "audit", "operator_proxy", "reach"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_DEPTH = 6  # attributes of attributes; deeper, the same classes come around again
_CALLS = 400  # functions looked at behind one name

_OUTSIDE = _words("""
    _asyncio _ctypes _curses _dbm _frozen_importlib _frozen_importlib_external _gdbm _imp _interpreters _io _locale
    _multiprocessing _pickle _posixshmem _posixsubprocess _signal _socket _sqlite3 _ssl _testcapi _thread _tkinter
    _tracemalloc _winapi asyncio atexit cffi code codecs codeop concurrent ctypes dbm ensurepip faulthandler fcntl
    fileinput ftplib gc glob grp http imaplib imp importlib inspect io linecache locale logging marshal mmap msvcrt
    multiprocessing nt numpy.ctypeslib os pathlib pdb pickle pkgutil platform poplib posix posixpath pty pwd
    readline resource runpy select selectors shelve shutil signal site smtplib socket socketserver sqlite3 ssl
    subprocess sys syslog tempfile termios threading trace traceback tracemalloc urllib.request venv weakref
    webbrowser winreg zipfile zipimport
""")
"""Modules that reach files, processes, the network, other threads or the interpreter itself."""

_HARMLESS = _words("""
    _codecs.lookup_error _io.BytesIO _io.StringIO _thread.RLock _thread.allocate_lock _thread.get_ident
    codecs.BOM_UTF16_BE codecs.BOM_UTF16_LE codecs.BOM_UTF32_BE codecs.BOM_UTF32_LE codecs.BOM_UTF8
    codecs.lookup_error io.BytesIO io.StringIO io.text_encoding os.PathLike os.fspath os.urandom posix.fspath
    posix.urandom sys.byteorder sys.exc_info sys.float_info sys.getrecursionlimit sys.getsizeof sys.hash_info
    sys.intern sys.maxsize sys.maxunicode sys.version_info threading.Lock threading.RLock weakref.WeakKeyDictionary
    weakref.WeakSet weakref.WeakValueDictionary weakref.ref
""")
"""What such modules have that reaches nothing."""

_BY_NAME: dict[int, str] = {
    id(value): name
    for name, value in {
        "operator.attrgetter": operator.attrgetter,
        "operator.methodcaller": operator.methodcaller,
        "functools.update_wrapper": functools.update_wrapper,
        "functools.wraps": functools.wraps,
        "string.Formatter": string.Formatter,
        "typing.get_type_hints": typing.get_type_hints,
        **{name: getattr(builtins, name) for name in ("getattr", "setattr", "delattr")},
    }.items()
}
_REFUSED: dict[int, str] = {
    id(getattr(builtins, name)): name for name in REFUSED_BUILTINS if hasattr(builtins, name) and name != "type"
}
_EVALUATES = frozenset({"__import__", "breakpoint", "compile", "eval", "exec", "input", "open"})
"""Builtins that matter also where trusted code uses them for an author; `id` or `dir` in its hands do not."""
_MUTABLE = (MutableSequence, MutableMapping, MutableSet)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a name leads to.

    Attributes:
        path: how to get there, "JSONEncoder.default" say.
        kind: "module", "metaclass", "builtin", "attributes", "shared", "file", "insides" or "uses".
        what: what is there, for people.
    """

    path: str
    kind: str
    what: str

    def __str__(self) -> str:
        return f"{self.path} {self.what}"


def audit(name: str, names: Iterable[str]) -> list[str]:
    """What the names of a module would leak, a line each; empty where nothing was found.

    Imports the module: for an operator's own modules, by the operator's command, never for an author's.

    Raises:
        ImportError: there is no such module.
    """
    source = import_module(name)
    found: list[str] = []
    for given in names:
        if attribute_refusal(given) is not None or not given.isidentifier():
            found.append(f"{given} is not a name that a function could write")
        elif not hasattr(source, given):
            found.append(f"{given} is not there: module {name} has no such name")
        else:
            found.extend(str(finding) for finding in reach(given, getattr(source, given)))
    return found


def operator_proxy(name: str, names: Iterable[str]) -> ModuleProxy:
    """The module of that name, holding only these names.

    Raises:
        ImportError: there is no such module, or it has no such name.
        ValueError: a name begins with an underscore, or what it names is a module: allow that one by its own name.
    """
    source = import_module(name)
    values: dict[str, object] = {}
    for given in names:
        if attribute_refusal(given) is not None:
            raise ValueError(f"{name}.{given}: a function cannot write this name")
        if not hasattr(source, given):
            raise ImportError(f"module {name!r} has no name {given!r}", name=name)
        value = getattr(source, given)
        if isinstance(value, types.ModuleType):
            raise ValueError(f"{name}.{given} is a whole module; allow {value.__name__!r} with the names it may give")
        values[given] = value
    return make_proxy(name, values)


def reach(path: str, value: object) -> Iterator[Finding]:
    """Everything of concern that `value`, which an author would write as `path`, leads to."""
    seen: dict[int, object] = {}
    waiting: collections.deque[tuple[str, object, int]] = collections.deque([(path, value, 0)])
    while waiting:
        at, here, depth = waiting.popleft()
        if id(here) in seen:
            continue
        seen[id(here)] = here  # kept, so that no other object gets the same id meanwhile
        finding = _judge(at, here)
        if finding is not None:
            yield finding
            if finding.kind != "shared":
                continue
        for used in _uses(here):
            yield Finding(at, "uses", f"uses {used}")
        if depth < _DEPTH and not isinstance(here, _ATOMS):
            waiting.extend((f"{at}.{name}", child, depth + 1) for name, child in _attributes(here))
            if isinstance(here, tuple | frozenset):
                waiting.extend((f"{at}[{index}]", child, depth + 1) for index, child in enumerate(here))


_ATOMS = (str, bytes, int, float, complex, bool, type(None), type(Ellipsis), type(NotImplemented))


def _judge(path: str, value: object) -> Finding | None:
    if isinstance(value, types.ModuleType):
        return Finding(path, "module", f"is the module {value.__name__}, with everything in it")
    if isinstance(value, type) and issubclass(value, type):
        return Finding(path, "metaclass", "makes classes with any methods at all")
    if id(value) in _REFUSED:
        return Finding(path, "builtin", f"is the builtin {_REFUSED[id(value)]}")
    if id(value) in _BY_NAME:
        return Finding(path, "attributes", f"is {_BY_NAME[id(value)]}, which reads or writes attributes by name")
    if isinstance(value, _MUTABLE):
        return Finding(path, "shared", f"is a {type(value).__name__} that everybody shares and anybody can change")
    if isinstance(value, io.IOBase) and not isinstance(value, io.StringIO | io.BytesIO):
        return Finding(path, "file", "is an open file")
    if isinstance(value, types.FrameType | types.CodeType | types.TracebackType):
        return Finding(path, "insides", f"is a {type(value).__name__} object")
    if isinstance(value, types.BuiltinFunctionType):
        owner = value.__self__.__name__ if isinstance(value.__self__, types.ModuleType) else ""
        if owner in _OUTSIDE and f"{owner}.{value.__name__}" not in _HARMLESS:
            return Finding(path, "uses", f"is {owner}.{value.__name__}")
    return None


def _attributes(value: object) -> Iterator[tuple[str, object]]:
    """The attributes of `value` that source may name."""
    for name in dir(value):
        if attribute_refusal(name) is not None or name in GUARDED_ATTRIBUTES:
            continue
        try:
            child = getattr(value, name)
        except Exception:  # noqa: BLE001, S112 - what raises for us gives nothing to an author either
            continue
        yield name, child


def _uses(value: object) -> list[str]:
    """What the code behind a callable reaches outside, as dotted names, in the order met."""
    found: dict[str, None] = {}
    waiting: list[types.CodeType | types.FunctionType] = list(_functions(value))
    looked: set[types.CodeType] = set()
    while waiting and len(looked) < _CALLS:
        function = waiting.pop()
        if not isinstance(function, types.FunctionType) or function.__code__ in looked:
            continue
        looked.add(function.__code__)
        found.update((f"import {name}", None) for name in _imported(function.__code__) if _suspicious(name))
        enclosed = _enclosed(function)
        for chain in _names(function.__code__):
            target = enclosed.get(chain[0], function.__globals__.get(chain[0], getattr(builtins, chain[0], None)))
            dotted = ""
            if isinstance(target, types.ModuleType):
                dotted = target.__name__
                for name in chain[1:]:
                    if not isinstance(target, types.ModuleType) or not hasattr(target, name):
                        break
                    target = getattr(target, name)
                    dotted = f"{dotted}.{name}"
            reason = _outside(dotted, target)
            if reason:
                found.setdefault(reason)
            else:
                waiting.extend(_functions(target))
    return list(found)


def _outside(dotted: str, target: object) -> str:
    if dotted in _HARMLESS:
        return ""
    if id(target) in _REFUSED:
        return _REFUSED[id(target)] if _REFUSED[id(target)] in _EVALUATES else ""
    if _is_outside(dotted):
        return dotted
    home = getattr(target, "__module__", None)
    if not isinstance(home, str) or not _is_outside(home):
        return ""
    if isinstance(target, types.FunctionType | types.BuiltinFunctionType | type):
        named = f"{_public(home)}.{target.__name__}"
        return "" if named in _HARMLESS else named
    return ""


def _public(module: str) -> str:
    """A module by the name it is imported by: what `pathlib._local` holds is, to everybody, of `pathlib`."""
    first, *rest = module.split(".")
    return ".".join((first, *itertools.takewhile(lambda part: not part.startswith("_"), rest)))


def _suspicious(imported: str) -> bool:
    # Imported late, `sys` and `weakref` serve bookkeeping; that a module is handed on shows elsewhere.
    return _is_outside(imported) and imported not in ("sys", "weakref")


def _is_outside(dotted: str) -> bool:
    return any(dotted == name or dotted.startswith(f"{name}.") for name in _OUTSIDE)


def _functions(value: object) -> Iterator[types.FunctionType]:
    """The Python functions that calling `value` runs, as far as it shows: itself, or a class's own methods."""
    if isinstance(value, types.MethodType):
        value = value.__func__
    value = getattr(value, "__wrapped__", value)
    if isinstance(value, types.FunctionType):
        yield value
    elif isinstance(value, type):
        for member in value.__dict__.values():
            plain = member.__func__ if isinstance(member, staticmethod | classmethod) else member
            plain = plain.fget if isinstance(plain, property) else plain
            if isinstance(plain, types.FunctionType):
                yield plain


def _enclosed(function: types.FunctionType) -> Mapping[str, object]:
    """What a function has from the functions around it, by name."""
    found: dict[str, object] = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return found


@functools.cache
def _imported(code: types.CodeType) -> tuple[str, ...]:
    """The modules that code imports while it runs."""
    here = [str(step.argval) for step in dis.get_instructions(code) if step.opname == "IMPORT_NAME"]
    inner = [
        name for constant in code.co_consts if isinstance(constant, types.CodeType) for name in _imported(constant)
    ]
    return (*here, *inner)


@functools.cache
def _names(code: types.CodeType) -> tuple[tuple[str, ...], ...]:
    """The names from outside that code reads, each with the attributes it reads of it at once: ("os", "urandom")."""
    return tuple(dict.fromkeys(tuple(chain) for chain in _chains(code)))


def _chains(code: types.CodeType) -> Iterator[list[str]]:
    chain: list[str] = []
    for instruction in dis.get_instructions(code):
        if chain and instruction.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            chain.append(str(instruction.argval))
            continue
        if chain and instruction.opname in ("CACHE", "PUSH_NULL"):
            continue
        if chain:
            yield chain
            chain = []
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF"):
            chain = [str(instruction.argval)]
    if chain:
        yield chain
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _chains(constant)
