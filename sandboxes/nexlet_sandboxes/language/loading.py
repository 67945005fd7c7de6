"""From a program to a handler that can be called: check it, compile it, run its module once.

`check` only looks: nothing of the author's runs, and every problem of every file comes at once. `translate` does the
same and gives the compiled form, which `load` takes in the place of the sources: parsing, the policy and the compiler
touch many times the memory that a loaded program does, so one process does that for all the workers of a function.
`load` then runs the module under the policy's guards.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import marshal
import types
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import Any

from nexlet_models.problems import Problem
from nexlet_sandboxes.language import guards, modules
from nexlet_sandboxes.language.diagnostics import Source, nearest
from nexlet_sandboxes.language.explain import Explainer
from nexlet_sandboxes.language.host import HOST_MODULES, Host
from nexlet_sandboxes.language.imports import Importable, stem
from nexlet_sandboxes.language.names import MAIN_MODULE, is_private
from nexlet_sandboxes.language.parsing import parse, syntax_problem
from nexlet_sandboxes.language.policy import Policy
from nexlet_sandboxes.language.warming import TIMES, warm_up
from nexlet_sandboxes.outcomes import LoadRefused
from nexlet_sandboxes.program import Program

__all__ = ["MAX_PROBLEMS", "Loaded", "check", "load", "preload", "translate"]

MAX_PROBLEMS = 100
"""Problems that are told of one program; how many more there are is said."""

_YIELDS = "{name!r} is a generator: what a function answers is what it returns"
_COLLECT = "return one value: collect what it yields in a list, and return that"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A program that is ready.

    Attributes:
        handler: the author's function, called as `handler(event, context)`, or with a list of events.
        explain: the traceback of an exception it raised: the author's lines only, bounded, never running their code.
        summary: one bounded line about such an exception.
    """

    handler: Callable[..., Any]
    explain: Callable[[BaseException], str]
    summary: Callable[[BaseException], str]


def preload(extra: Mapping[str, Sequence[str]] = MappingProxyType({}), *, times: int = TIMES) -> None:
    """Import everything a program may need, and run what every load runs: a forked worker has it and reads no file.

    Args:
        extra: modules that an operator permits beside the allowed ones, each with its names.
        times: how often it is run.

    Raises:
        ModulesRefused: with every module of these that cannot be given, and why.
    """
    modules.preload(extra)
    for name in _OF_PYTHON:
        with suppress(ModuleNotFoundError):  # an older Python does without
            import_module(name)
    for codec in _CODECS:
        "a".encode(codec)
    warm_up(load, times=times)


_CODECS = (
    *("ascii", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "utf-7"),
    *("latin-1", "iso8859-15", "cp1252", "cp437", "idna", "punycode", "unicode_escape", "raw_unicode_escape"),
)
"""What `str.encode` and `bytes.decode` know in a worker: Python loads each from a file when it is first asked for."""


def check(program: Program) -> list[Problem]:
    """Everything that is wrong with a program's sources, in their order; the main file first. Nothing is run."""
    return _Build(program, HOST_MODULES).compile(handler=True)


def translate(program: Program) -> bytes:
    """The compiled form of a program, for `load`. Nothing of it is run.

    It is code: only a process that may run whatever the program's author wrote may take it from whoever made it.

    Raises:
        LoadRefused: with every problem of the sources.
    """
    build = _Build(program, HOST_MODULES)
    problems = build.compile(handler=True)
    if problems:
        raise LoadRefused(problems)
    return _MAGIC + marshal.dumps((build.main.code, {name: file.code for name, file in build.files.items()}))


_MAGIC = importlib.util.MAGIC_NUMBER
"""Which Python's code it is: an interpreter may be replaced while its nexlet runs, and a new zygote is the new one. It
stands before the rest, since another Python's code may not even be readable."""


def load(program: Program, host: Host, *, handler: bool = False, compiled: bytes = b"") -> Loaded:
    """Compile a program and run its module once.

    Args:
        handler: whether to refuse a handler that cannot be called with an event and a context, as `check` does.
        compiled: what `translate` made of this very program; without it, or where another Python made it, the sources
            are compiled here.

    Raises:
        LoadRefused: with every problem of the sources, or the one exception that the module raised.
        MemoryError: it took more than there is.
    """
    build = _Build(program, host.modules)
    if not (compiled and build.take(compiled)):
        problems = build.compile(handler=handler)
        if problems:
            raise LoadRefused(problems)
    # A worker is forked with the generators of the process before it, and so are all others.
    modules.reseed()
    return _Running(program, host, build).start()


class _File:
    """One source: its text, its tree, what is wrong with it, and if nothing is, its code."""

    __slots__ = ("code", "problems", "source", "tree")

    def __init__(self, filename: str, text: str) -> None:
        # Some editors begin a file with it, and Python takes no notice of it in a file.
        self.source = Source(filename, text.removeprefix("\ufeff"))
        self.tree: ast.Module | None = None
        self.problems: list[Problem] = []
        self.code: types.CodeType | None = None

    def parse(self) -> None:
        """Have the tree."""
        self.tree, self.problems = parse(self.source)

    def compile(self) -> None:
        """Take the policy over the tree, and make code of what it leaves."""
        tree, source = self.tree, self.source
        # Compiled, the tree is of no use any more, and it may be many times the size of the source.
        self.tree = None
        if tree is None:
            return
        policy = Policy(source)
        try:
            changed = policy.transform(tree)
            self.problems += policy.problems
            if self.problems:
                return
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.code = compile(changed, source.filename, "exec", dont_inherit=True, optimize=0)
        except SyntaxError as error:
            # Some rules are only looked at here: 'return' outside function, names that are local and global.
            self.problems.append(syntax_problem(source, error))
        except RecursionError:
            self.problems.append(source.on(0, "the source is nested too deeply", code="nested-too-deeply"))
        except (ValueError, OverflowError, SystemError) as error:
            self.problems.append(source.on(0, f"the source cannot be compiled: {error}", code="syntax-error"))

    def defined(self) -> frozenset[str] | None:
        """The public names of its module level, None where they cannot be told."""
        return (
            None if self.tree is None else frozenset(name for name in _module_names(self.tree) if not is_private(name))
        )


class _Build:
    """All files of a program, and what becomes of them: parsed, checked and compiled, or compiled already."""

    def __init__(self, program: Program, host_modules: Mapping[str, Collection[str]]) -> None:
        self.program = program
        self.importable = Importable(program, host_modules)
        self.main = _File(program.filename, program.source)
        self.files = {name: _File(name, text) for name, text in sorted(program.files.items())}

    def compile(self, *, handler: bool) -> list[Problem]:
        """What is wrong; if nothing is, every file has its code. `handler`: look at how it can be called, too."""
        found = self.importable.files(self.program)
        files = (self.main, *self.files.values())
        for file in files:
            file.parse()
        defined = {stem(file.source.filename): file.defined() for file in files}
        for file in files:
            if file.tree is not None:
                file.problems += self.importable.check(file.tree, file.source, defined)
                if handler and file is self.main:
                    file.problems += _handler_problems(file.tree, file.source, self.program)
            file.compile()
            found += _in_order(file.problems)
        if len(found) > MAX_PROBLEMS:
            more = Problem(
                f"{len(found) - MAX_PROBLEMS} more problems", place=self.program.filename, code="more-problems"
            )
            return [*found[:MAX_PROBLEMS], more]
        return found

    def take(self, compiled: bytes) -> bool:
        """Take the code that `translate` made; False where another Python made it.

        Raises:
            LoadRefused: it is none: whoever made it was not `translate`.
        """
        if not compiled.startswith(_MAGIC):
            return False
        try:
            main, files = marshal.loads(memoryview(compiled)[len(_MAGIC) :])  # noqa: S302  # see `translate`
            codes = [main, *(files[name] for name in self.files)]
        except (EOFError, ValueError, TypeError, LookupError):
            codes = []
        if not codes or not all(isinstance(code, types.CodeType) for code in codes):
            problem = Problem(
                "what was made of the sources is no compiled form: the process that compiled them was not itself",
                place=self.program.filename,
                advice="deploy it again; if that does not help, the sources lead the compiler astray: please report it",
                code="compiled-form",
            )
            raise LoadRefused([problem])
        for file, code in zip((self.main, *self.files.values()), codes, strict=True):
            file.code = code
        return True


class _Running:
    """The modules of one program as they come to life, imports among them included."""

    def __init__(self, program: Program, host: Host, build: _Build) -> None:
        self._program = program
        self._host = host
        self._build = build
        self._explainer = Explainer()
        self._own = guards.OwnClasses()
        self._builtins = guards.builtins(host, self._import, self._own)
        self._files = {stem(name): file for name, file in build.files.items()}
        self._modules: dict[str, types.ModuleType] = {}
        self._given: dict[str, object] = {}

    def start(self) -> Loaded:
        program, explainer = self._program, self._explainer
        name = stem(program.filename)
        try:
            module = self._run(name, self._build.main, MAIN_MODULE)
        except MemoryError:
            raise
        except BaseException as error:  # noqa: BLE001  # SystemExit and its like are the author's faults, too
            raise LoadRefused([self._raised(error)]) from None
        finally:
            self._own.loading = False
        if self._host.memory_exceeded:
            raise MemoryError
        handler = module.__dict__.get(program.handler)
        if handler is None or is_private(program.handler):
            raise LoadRefused([_missing(self._build.main.source, program, module.__dict__)])
        if not callable(handler):
            message = f"{program.handler!r} is a {guards.class_name(handler)}, not a function"
            advice = _signature(program)
            raise LoadRefused([Problem(message, place=program.filename, advice=advice, code="handler-refused")])
        # Of a function made elsewhere or by a decorator; of a plain one `check` has said so, with the line.
        if type(handler) is types.FunctionType and handler.__code__.co_flags & inspect.CO_GENERATOR:
            message, advice = _YIELDS.format(name=program.handler), _COLLECT
            raise LoadRefused([Problem(message, place=program.filename, advice=advice, code="handler-refused")])
        return Loaded(handler, explainer.explain, explainer.summary)

    def _run(self, name: str, file: _File, qualified: str) -> types.ModuleType:
        assert file.code is not None
        module = HelperModule(qualified)
        names = module.__dict__
        names.clear()
        names["__builtins__"] = self._builtins
        names["__name__"] = qualified
        self._modules[name] = module
        self._explainer.add(module, file.source)
        try:
            exec(file.code, names)  # noqa: S102  # this is what the package is for: the policy has been over it
        except BaseException:
            self._modules.pop(name, None)
            raise
        return module

    def _raised(self, error: BaseException) -> Problem:
        message = f"the module raised {self._explainer.summary(error)}"
        place = self._explainer.place(error)
        if place is None:
            return Problem(message, place=self._program.filename, code="load-raised")
        source, line = place
        return source.on(line, message, code="load-raised")

    # Imports while running: the second wall behind what `imports` said of the sources.

    def _import(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,  # noqa: A002  # the interpreter's own signature
        locals: Mapping[str, object] | None = None,  # noqa: A002
        fromlist: tuple[str, ...] | None = None,
        level: int = 0,
    ) -> object:
        if level or type(name) is not str:
            raise ImportError("relative imports are not available")
        if name == "__future__":
            return _FUTURE
        if name in _OF_PYTHON:
            return None
        if name in self._build.importable.helpers:
            return self._helper(name, fromlist)
        allowed = self._build.importable.names(name)
        if allowed is None:
            raise ImportError(f"import of {name!r} is not allowed here")
        if not fromlist:
            return self._given_module(name.partition(".")[0])
        for wanted in fromlist:
            if wanted not in allowed:
                raise ImportError(f"cannot import name {wanted!r} from {name!r}")
        return self._given_module(name)

    def _helper(self, name: str, fromlist: tuple[str, ...] | None) -> types.ModuleType:
        module = self._modules.get(name)
        if module is None:
            module = self._run(name, self._files[name], f"{MAIN_MODULE}.{name}")
        for wanted in fromlist or ():
            if is_private(wanted) or wanted not in module.__dict__:
                raise ImportError(f"cannot import name {wanted!r} from {name!r}")
        return module

    def _given_module(self, name: str) -> object:
        found = self._given.get(name)
        if found is None:
            found = modules.proxy(name, self._host)
            if found is None and name in self._host.modules:
                found = modules.make_proxy(name, self._host.modules[name])
            if found is None and name in self._program.modules:
                found = modules.permitted(name, tuple(self._program.modules[name]))
            if found is None:
                # A package that is there only for the sake of what is in it: nexlet_functions.authoring.
                inner = self._build.importable.names(name) or ()
                found = modules.make_proxy(name, {part: self._given_module(f"{name}.{part}") for part in inner})
            self._given[name] = found
        return found


class HelperModule(types.ModuleType):
    """A module of the author's. Its dictionary holds what their code put there, and what they cannot name."""

    def __repr__(self) -> str:
        name = self.__dict__.get("__name__", "")
        return f"<module {str(name).removeprefix(MAIN_MODULE + '.')!r}>"


_OF_PYTHON = frozenset({"_pylong", "_strptime"})
"""What C code of Python's own imports when an author calls it: `time.strptime`, from 3.13 on that of `datetime`, and
from 3.12 on arithmetic with numbers of thousands of digits.

It does so by way of the caller's `__import__`, and then takes the module from `sys.modules`, whatever that returned. No
source can name one of these."""


class _Future:
    """What `from __future__ import annotations` is given."""

    __slots__ = ("annotations",)

    def __init__(self) -> None:
        self.annotations = None


_FUTURE = _Future()


def _in_order(problems: list[Problem]) -> list[Problem]:
    unique = {(problem.line, problem.column, problem.message): problem for problem in problems}
    return sorted(unique.values(), key=lambda problem: (problem.line, problem.column))


# What can be said of the handler without running anything.


def _module_names(tree: ast.Module) -> list[str]:
    """Names bound at module level, those in `if`, `try`, `with` and loops included, in the order of the source."""
    names: dict[str, None] = {}
    todo: list[ast.AST] = list(reversed(tree.body))
    while todo:
        node = todo.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names[node.name] = None
            continue
        if isinstance(node, (ast.Lambda, ast.comprehension)):
            continue
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names[node.id] = None
        elif isinstance(node, ast.alias):
            names[node.asname or node.name.split(".")[0]] = None
        elif isinstance(node, (ast.MatchAs, ast.MatchStar)) and node.name:
            names[node.name] = None
        todo.extend(reversed(list(ast.iter_child_nodes(node))))
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            names.update(dict.fromkeys(node.names))
    return list(names)


def _signature(program: Program) -> str:
    return f"write it as: def {program.handler}({'event' if program.batch == 1 else 'events'}, context):"


def _missing(source: Source, program: Program, names: Mapping[str, object] | list[str]) -> Problem:
    handler = program.handler
    public = [name for name in names if not is_private(name)]
    shown = ", ".join(public[:20]) + (", ..." if len(public) > 20 else "") if public else "nothing"
    meant = nearest(handler, public)
    advice = f"did you mean {meant!r}?" if meant else _signature(program)
    return Problem(
        f"no handler named {handler!r}; the module defines: {shown}",
        place=source.filename,
        advice=advice,
        code="handler-missing",
    )


def _handler_problems(tree: ast.Module, source: Source, program: Program) -> list[Problem]:
    handler = program.handler
    names = _module_names(tree)
    if handler not in names or is_private(handler):
        return [_missing(source, program, names)]
    definitions = [
        node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == handler
    ]
    problems = [
        source.at(
            node,
            f"{handler!r} is defined a second time; the first is on line {definitions[0].lineno}",
            code="handler-refused",
            advice="keep one of them",
        )
        for node in definitions[1:]
    ]
    if definitions:
        last = definitions[-1]
        # What a decorator makes of a function is not known before it runs.
        said = None if last.decorator_list else _uncallable(last.args)
        if said:
            advice, given = _signature(program), "event" if program.batch == 1 else "events"
            problems.append(
                source.at(
                    last,
                    f"{handler!r} cannot be called with ({given}, context): {said}",
                    code="handler-refused",
                    advice=advice,
                )
            )
        yields = None if last.decorator_list else _own_yield(last)
        if yields is not None:
            message = _YIELDS.format(name=handler)
            problems.append(source.at(yields, message, code="handler-refused", advice=_COLLECT))
    return problems


def _own_yield(function: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.Yield | ast.YieldFrom | None:
    """What makes a function a generator; None where it is none. What is defined within it is another matter."""
    todo: list[ast.AST] = list(reversed(function.body))
    while todo:
        node = todo.pop()
        if isinstance(node, (ast.Yield, ast.YieldFrom)):
            return node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)):
            todo.extend(reversed(list(ast.iter_child_nodes(node))))
    return None


def _uncallable(arguments: ast.arguments) -> str | None:
    """Why a function cannot be called with two positional arguments, or None."""
    positional = len(arguments.posonlyargs) + len(arguments.args)
    required = positional - len(arguments.defaults)
    if required > 2:
        return f"it needs {required} arguments"
    if positional < 2 and arguments.vararg is None:
        return f"it takes {positional} argument{'' if positional == 1 else 's'}"
    needed = [
        item.arg for item, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if default is None
    ]
    return f"it needs {', '.join(needed)} by name" if needed else None
