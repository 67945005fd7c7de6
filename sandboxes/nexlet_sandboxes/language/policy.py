"""The policy: what an author's syntax tree may hold, and how what it holds is compiled.

A subclass of RestrictedPython's transformer, which refuses every kind of node it does not know: what a new Python adds
stays out until someone has looked at it. Where the stock policy sends every attribute, item and loop through a guard,
this one lets what is statically harmless compile to plain Python and guards only

- attributes by names that mean harm on some objects (`names.GUARDED_ATTRIBUTES`),
- writes, of attributes to instances of the author's own classes, of items to containers,
- classes in patterns with positional parts, which read attributes by names that the class chooses,
- exception handlers, which may not hide that memory ran out.

Names that it puts into the tree begin with `_`, which no name of an author's does.
"""

from __future__ import annotations

import ast
import builtins
from typing import Any, Final, TypeVar, cast

from RestrictedPython.transformer import RestrictingNodeTransformer

from nexlet_models.problems import Problem
from nexlet_sandboxes.language.diagnostics import Source
from nexlet_sandboxes.language.names import (
    GUARDED_ATTRIBUTES,
    REFUSED_BUILTINS,
    RESERVED_NAMES,
    SPECIAL_METHODS,
    attribute_refusal,
    is_private,
    quoted,
)

__all__ = ["Policy"]

_Node = TypeVar("_Node", bound=ast.AST)
_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda

_OF_NAMED_TUPLES: Final = {
    "_asdict": "write it out: {'x': point.x, 'y': point.y}, or use a dataclass and dataclasses.asdict",
    "_fields": "write the names out, or use a dataclass and dataclasses.fields",
    "_make": "write Point(*values)",
    "_replace": "write copy.replace(point, x=1), with copy imported",
}
_UNDERSCORE_ADVICE: Final = "drop the underscore: every name of a function's module is its own"
_SPARING: Final = frozenset(
    name
    for name, value in vars(builtins).items()
    if isinstance(value, type) and issubclass(value, BaseException) and not issubclass(MemoryError, value)
)
"""Names of Python's exceptions that no MemoryError is one of."""

_NOT_IN_PATTERNS: Final = GUARDED_ATTRIBUTES | {"__name__"}
"""What is read by a call, for which a pattern has no room."""

_TRANSLATED: Final[dict[str, tuple[str, str]]] = {
    "TemplateStr": ("template strings are not available", "write an f-string"),
    "TypeAlias": ("type statements are not available", "write an assignment: Name = ..."),
    "TypeVar": ("type parameters are not available", "write T = TypeVar('T'), with TypeVar from typing"),
    "ParamSpec": ("type parameters are not available", "leave the annotation out"),
    "TypeVarTuple": ("type parameters are not available", "leave the annotation out"),
}


class Policy(RestrictingNodeTransformer):
    """Checks and rewrites one file. Use `Policy(source).transform(tree)`.

    Attributes:
        problems: everything that was refused, in no order.
    """

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.problems: list[Problem] = []
        self._source = source
        self._scopes: list[str] = []
        self._own: list[str | None] = []
        self._bound: frozenset[str] = frozenset()
        self._temporary = 0

    def transform(self, tree: ast.Module) -> ast.Module:
        """The tree that may be compiled, if there are no problems afterwards."""
        self._bound = frozenset(_bound_names(tree))
        changed = cast(ast.Module, self.visit(tree))
        return ast.fix_missing_locations(changed)

    # How RestrictedPython reports.

    def refuse(self, node: ast.AST, message: str, *, code: str, advice: str = "") -> None:
        """Record a problem at `node`."""
        self.problems.append(self._source.at(node, message, code=code, advice=advice))

    def error(self, node: ast.AST, info: str) -> None:
        """What the stock policy refuses and this one has no better words for."""
        self.refuse(node, info.rstrip(".").replace('"', "'"), code="construct-refused")

    def not_allowed(self, node: ast.AST) -> None:
        """A kind of node that is refused as such."""
        kind = type(node).__name__
        message, advice = _TRANSLATED.get(kind, (f"{kind} is not available", "write it in simpler Python"))
        self.refuse(node, message, code="construct-refused", advice=advice)

    def node_contents_visit(self, node: _Node) -> _Node:
        """Visit what `node` holds."""
        return super().node_contents_visit(node)

    # Names.

    def check_name(self, node: ast.AST, name: str | None, allow_magic_methods: bool = False) -> None:
        """Refuse a name that an author may not bind or use."""
        if name is None:
            return
        if is_private(name):
            if allow_magic_methods and self._in_class() and name in SPECIAL_METHODS:
                return
            if name.startswith("__") and name.endswith("__"):
                where = "a class may define" if self._in_class() else "there are, in a class,"
                self.refuse(
                    node,
                    f"special name {quoted(name)} is not available",
                    code="name-refused",
                    advice=REFUSED_BUILTINS.get(name)
                    or f"{where} __init__, __str__, __eq__, __len__ and others like them",
                )
            else:
                self.refuse(node, "names may not begin with '_'", code="name-refused", advice=_UNDERSCORE_ADVICE)
        elif attribute_refusal(name):
            self.refuse(
                node, f"name {quoted(name)} is not available", code="name-refused", advice="choose another name"
            )

    def check_bound(self, node: ast.AST, name: str | None, *, special: bool = False) -> None:
        """Refuse a name that is about to be bound."""
        self.check_name(node, name, allow_magic_methods=special)
        if name in RESERVED_NAMES:
            self.refuse(node, f"{name!r} cannot be redefined", code="name-refused", advice="choose another name")

    def visit_Name(self, node: ast.Name) -> ast.AST:
        """A variable: its name is looked at."""
        if not isinstance(node.ctx, ast.Load):
            # `__exit__ = f` would hand f the traceback, which the rewritten method of that name never sees.
            self.check_bound(node, node.id, special=node.id != "__exit__")
            return node
        if node.id == "super":
            self.refuse(
                node,
                "super is available as a call without arguments only",
                code="construct-refused",
                advice="write super().method(...)",
            )
        elif node.id in REFUSED_BUILTINS and node.id not in self._bound:
            self.refuse(
                node,
                f"{node.id!r} is not available in a function",
                code="name-refused",
                advice=REFUSED_BUILTINS[node.id],
            )
        elif node.id != "__name__":
            self.check_name(node, node.id, allow_magic_methods=True)
        return node

    def visit_Global(self, node: ast.Global) -> ast.AST:
        """`global x`: each name is looked at."""
        for name in node.names:
            self.check_bound(node, name)
        return node

    def visit_Nonlocal(self, node: ast.Nonlocal) -> ast.AST:
        """`nonlocal x`: each name is looked at."""
        for name in node.names:
            self.check_bound(node, name)
        return node

    def visit_keyword(self, node: ast.keyword) -> ast.AST:
        """`f(name=...)`: the callee may make an attribute or a name of it."""
        if node.arg is not None and is_private(node.arg):
            self.refuse(
                node,
                "names of keyword arguments may not begin with '_'",
                code="name-refused",
                advice='in a dict, write the key as text: {"_name": ...}',
            )
        return self.node_contents_visit(node)

    # Attributes and items.

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        """`a.b`: plain where the name is harmless, guarded where it is not or where it is written."""
        if named := self._name_of(node):
            return named
        refusal = attribute_refusal(node.attr)
        if refusal and not self._is_super_method(node):
            self._refuse_attribute(node, refusal)
        if isinstance(node.ctx, ast.Load):
            value = self._visit_value(node.value)
            if node.attr in GUARDED_ATTRIBUTES:
                return _at(node, _call("_attr_", value, ast.Constant(node.attr)))
            node.value = value
            return node
        if isinstance(node.value, ast.Name) and self._own and node.value.id == self._own[-1]:
            return node  # the method's first line made sure that this is an instance of an own class
        node.value = _guarded(node.value, self._visit_value(node.value), "_owns_", "_write_")
        return node

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        """`a[i]`: reading is plain, writing goes to containers only."""
        node = self.node_contents_visit(node)
        if not isinstance(node.ctx, ast.Load):
            node.value = _guarded(node.value, node.value, "_items_", "_item_")
        return node

    def _visit_value(self, node: ast.expr) -> ast.expr:
        return cast(ast.expr, self.visit(node))

    def _refuse_attribute(self, node: ast.Attribute, refusal: str) -> None:
        marked = ast.copy_location(ast.Name("", ast.Load()), node)
        # What is marked is the name behind the dot, which is at the end of the node.
        if node.end_lineno is not None and node.end_col_offset is not None:
            marked.lineno, marked.end_lineno = node.end_lineno, node.end_lineno
            marked.col_offset = max(0, node.end_col_offset - len(node.attr.encode()))
        if not is_private(node.attr):
            advice = "leave it out: frames, tracebacks and code objects are out of reach"
        elif node.attr in _OF_NAMED_TUPLES:
            advice = _OF_NAMED_TUPLES[node.attr]
        elif node.attr in SPECIAL_METHODS:
            advice = f"call it on super() only: super().{node.attr}(...)"
        elif node.attr == "__class__":
            advice = "isinstance(value, SomeClass) asks what it is, type(value).__name__ gives the name of its class"
        elif node.attr.startswith("__"):
            advice = "leave it out: Python's insides are out of reach"
        else:
            advice = "drop the underscore"
        self.refuse(marked, refusal, code="attribute-refused", advice=advice)

    def _name_of(self, node: ast.Attribute) -> ast.AST | None:
        """`x.__name__` gives a text; of `type(x)` or `x.__class__` it is all that most want, and gives no class."""
        if node.attr != "__name__" or not isinstance(node.ctx, ast.Load):
            return None
        of = self._type_argument(node.value)
        if of is None and isinstance(node.value, ast.Attribute) and node.value.attr == "__class__":
            of = node.value.value
        if of is not None:
            return _at(node, _call("_class_name_", self._visit_value(of)))
        return _at(node, _call("_name_", self._visit_value(node.value)))

    def _type_argument(self, node: ast.expr) -> ast.expr | None:
        """What `type(x)` asks about; None where `node` is not that call."""
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "type"
            and "type" not in self._bound
            and len(node.args) == 1
            and not isinstance(node.args[0], ast.Starred)
            and not node.keywords
        ):
            return node.args[0]
        return None

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        """`a < b`; `type(a) is C` and `type(a) == C` compare by identity, which shows the class to nobody."""
        if len(node.ops) != 1 or not isinstance(node.ops[0], (ast.Is, ast.IsNot, ast.Eq, ast.NotEq)):
            return self.node_contents_visit(node)
        sides = [node.left, *node.comparators]
        asked = [self._type_argument(side) for side in sides]
        if asked == [None, None]:
            return self.node_contents_visit(node)
        node.left, node.comparators[0] = (
            self._visit_value(side) if of is None else _at(side, _call("_type_", self._visit_value(of)))
            for side, of in zip(sides, asked, strict=True)
        )
        node.ops = [ast.Is() if isinstance(node.ops[0], (ast.Is, ast.Eq)) else ast.IsNot()]
        return node

    def _is_super_method(self, node: ast.Attribute) -> bool:
        return isinstance(node.ctx, ast.Load) and node.attr in SPECIAL_METHODS and _is_super_call(node.value)

    # Calls.

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """A call, plain; `super()` is the one with a meaning of its own."""
        if _is_super_call(node):
            if "function" not in self._scopes:
                self.refuse(
                    node,
                    "super() is for methods",
                    code="construct-refused",
                    advice="call it within a method of a class",
                )
            return node
        if isinstance(node.func, ast.Name) and node.func.id == "type" and "type" not in self._bound:
            self.refuse(
                node,
                "type() is not available in a function",
                code="name-refused",
                advice="isinstance(value, SomeClass) asks what it is, type(value).__name__ gives the name of its class"
                if len(node.args) < 2
                else "write a class statement",
            )
        return self.node_contents_visit(node)

    # Assignments.

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        """`a = b`, in all its forms; `__all__` and `__slots__` may list public names, as they do everywhere."""
        target = node.targets[0]
        if len(node.targets) == 1 and isinstance(target, ast.Name) and target.id in _LISTINGS.get(self._scopes[-1], ()):
            if _lists_public_names(node.value):
                # Star imports are what `__all__` is for, and there are none.
                return _at(node, ast.Pass()) if target.id == "__all__" else node
            self.refuse(
                node,
                f"{target.id} lists something else than public names",
                code="name-refused",
                advice=f'write the names out: {target.id} = ("name", "other")',
            )
            return node
        return self.node_contents_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        """`a: T = b`."""
        return self.node_contents_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        """`a += b`: the target is read as well as written."""
        if isinstance(node.target, ast.Attribute) and node.target.attr in GUARDED_ATTRIBUTES:
            name = node.target.attr
            self.refuse(
                node.target,
                f"augmented assignment to attribute {name!r} is not available",
                code="construct-refused",
                advice=f"write it out: x.{name} = x.{name} + ...",
            )
        return self.node_contents_visit(node)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> ast.AST:
        """`(a := b)`."""
        return self.node_contents_visit(node)

    # Loops and comprehensions: plain, their parts are visited.

    def guard_iter(self, node: ast.For | ast.comprehension) -> ast.AST:
        """`for` of every kind iterates as Python does."""
        return self.node_contents_visit(node)

    # Exceptions and contexts.

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> ast.AST:
        """`except`: memory that ran out ends the invocation, also where the author goes on from here."""
        self.check_bound(node, node.name)
        node = self.node_contents_visit(node)
        if not self._spares_memory_error(node.type):
            if node.name is None:
                node.type = node.type or _at(node, ast.Name("_base_exception_", ast.Load()))
                node.name = self._temporary_name()
            test = _call("_isinstance_", ast.Name(node.name, ast.Load()), ast.Name("_memory_error_", ast.Load()))
            node.body.insert(0, _at(node.body[0], ast.If(test, [ast.Expr(_call("_exceeded_"))], [])))
        return node

    def _spares_memory_error(self, caught: ast.expr | None) -> bool:
        """Whether a handler for `caught` is never given a MemoryError, as far as its names tell."""
        kinds = caught.elts if isinstance(caught, ast.Tuple) else [caught]
        return all(isinstance(kind, ast.Name) and kind.id in _SPARING and kind.id not in self._bound for kind in kinds)

    def visit_Try(self, node: ast.Try) -> ast.AST:
        """`try`: what is in `finally` may swallow as `except` does, so what comes by is looked at before."""
        node = self.node_contents_visit(node)
        if node.finalbody:
            noticed = ast.ExceptHandler(
                ast.Name("_memory_error_", ast.Load()), None, [ast.Expr(_call("_exceeded_")), ast.Raise()]
            )
            inner: list[ast.stmt] = node.body
            if node.handlers:
                inner = [_at(node, ast.Try(node.body, node.handlers, node.orelse, []))]
                node.orelse = []
            node.body, node.handlers = inner, [_at(node, noticed)]
        return node

    def _temporary_name(self) -> str:
        self._temporary += 1
        return f"_temporary_{self._temporary}_"

    def visit_With(self, node: ast.With) -> ast.AST:
        """`with`, plain."""
        return self.node_contents_visit(node)

    def visit_TryStar(self, node: ast.AST) -> ast.AST:
        """`except*` has been a way out of sandboxes more than once, and groups come from async code."""
        self.refuse(node, "except* is not available", code="construct-refused", advice="write 'except'")
        return self.node_contents_visit(node)

    # Functions and classes.

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        """`async def` is refused; what is in it is looked at all the same."""
        advice = "write 'def': a worker runs one message at a time"
        self.refuse(node, "async functions are not available", code="construct-refused", advice=advice)
        return self.node_contents_visit(node)

    def visit_Await(self, node: ast.Await) -> ast.AST:
        """Only in async functions, which are refused."""
        return self.node_contents_visit(node)

    def visit_AsyncFor(self, node: ast.AsyncFor) -> ast.AST:
        """Only in async functions, which are refused."""
        return self.node_contents_visit(node)

    def visit_AsyncWith(self, node: ast.AsyncWith) -> ast.AST:
        """Only in async functions, which are refused."""
        return self.node_contents_visit(node)

    def check_function_argument_names(self, node: _Function) -> None:
        """Refuse parameters by names that an author may not bind."""
        arguments = node.args
        for argument in (
            *arguments.posonlyargs,
            *arguments.args,
            *arguments.kwonlyargs,
            arguments.vararg,
            arguments.kwarg,
        ):
            if argument is not None:
                self.check_bound(argument, argument.arg)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """`def`: names are looked at; a method that writes to `self` makes sure once of what `self` is."""
        in_class = self._in_class()
        self.check_bound(node, node.name, special=True)
        self.check_function_argument_names(node)
        # Decorators, defaults and annotations belong to the scope around.
        node.decorator_list = [self._visit_value(item) for item in node.decorator_list]
        node.args = cast(ast.arguments, self.visit(node.args))
        if node.returns is not None:
            node.returns = self._visit_value(node.returns)
        for parameter in getattr(node, "type_params", ()):
            self.visit(parameter)
        own = _own_parameter(node) if in_class else None
        self._scopes.append("function")
        self._own.append(own)
        body: list[ast.stmt] = []
        for statement in node.body:
            changed = self.visit(statement)
            body.extend(changed if isinstance(changed, list) else [changed] if changed is not None else [])
        self._own.pop()
        self._scopes.pop()
        first: list[ast.stmt] = []
        if own is not None:
            this = ast.Name(own, ast.Load())
            unknown = ast.UnaryOp(ast.Not(), _type_in(this, "_owns_"))
            first.append(ast.If(unknown, [ast.Expr(_call("_write_", this))], []))
        if in_class and node.name == "__exit__":
            if node.decorator_list:
                self.refuse(
                    node.decorator_list[0],
                    "__exit__ takes no decorator: it would be given the traceback",
                    code="construct-refused",
                    advice="call what the decorator does from within the method",
                )
            first.extend(_hide_traceback(node.args))
        at = 1 if _is_docstring(node.body[0]) else 0
        node.body = body[:at] + [_at(node.body[0], item) for item in first] + body[at:]
        return node

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        """`lambda`."""
        self.check_function_argument_names(node)
        node.args = cast(ast.arguments, self.visit(node.args))
        self._scopes.append("function")
        self._own.append(None)
        node.body = self._visit_value(node.body)
        self._own.pop()
        self._scopes.pop()
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        """`class`: made by `guards.build_class`, which marks it as the author's own."""
        self.check_bound(node, node.name)
        for keyword in node.keywords:
            if keyword.arg is None or keyword.arg == "metaclass":
                what = "metaclasses are" if keyword.arg else "** in the head of a class is"
                advice = (
                    "a class decorator changes a class after it was made" if keyword.arg else "write the keywords out"
                )
                self.refuse(keyword, f"{what} not available", code="construct-refused", advice=advice)
        node.bases = [self._visit_value(item) for item in node.bases]
        node.keywords = [cast(ast.keyword, self.visit(item)) for item in node.keywords]
        node.decorator_list = [self._visit_value(item) for item in node.decorator_list]
        for parameter in getattr(node, "type_params", ()):
            self.visit(parameter)
        self._scopes.append("class")
        self._own.append(None)
        body: list[ast.stmt] = []
        for statement in node.body:
            changed = self.visit(statement)
            body.extend(changed if isinstance(changed, list) else [changed] if changed is not None else [])
        node.body = body
        self._own.pop()
        self._scopes.pop()
        return node

    def visit_Module(self, node: ast.Module) -> ast.AST:
        """The whole file."""
        self._scopes.append("module")
        node = self.node_contents_visit(node)
        self._scopes.pop()
        return node

    def _in_class(self) -> bool:
        return bool(self._scopes) and self._scopes[-1] == "class"

    # Patterns.

    def visit_Match(self, node: ast.Match) -> Any:
        """`match`: a class with positional parts is asked first which attributes it means by them."""
        hoisted: list[ast.stmt] = []
        for case in node.cases:
            for pattern in ast.walk(case.pattern):
                if isinstance(pattern, ast.MatchClass) and pattern.patterns:
                    name = self._temporary_name()
                    looked_up = self._visit_value(pattern.cls)
                    value = _call("_matched_", looked_up)
                    hoisted.append(_at(node, ast.Assign([ast.Name(name, ast.Store())], value)))
                    pattern.cls = _at(pattern, _Hoisted(name, ast.Load()))
        return [*hoisted, self.node_contents_visit(node)]

    def visit__Hoisted(self, node: ast.Name) -> ast.AST:
        """A name of our own."""
        return _at(node, ast.Name(node.id, ast.Load()))

    def visit_match_case(self, node: ast.match_case) -> ast.AST:
        """`case`."""
        return self.node_contents_visit(node)

    def visit_MatchValue(self, node: ast.MatchValue) -> ast.AST:
        """A literal, or a dotted name, which reads attributes."""
        for part in ast.walk(node.value):
            if isinstance(part, ast.Attribute) and part.attr in _NOT_IN_PATTERNS:
                self.refuse(
                    part,
                    f"attribute {part.attr!r} is not available in a pattern",
                    code="construct-refused",
                    advice="put it into a variable and compare in an 'if' behind the pattern",
                )
                return node
        return self.node_contents_visit(node)

    def visit_MatchSingleton(self, node: ast.MatchSingleton) -> ast.AST:
        """`case None`."""
        return node

    def visit_MatchSequence(self, node: ast.MatchSequence) -> ast.AST:
        """`case [a, b]`."""
        return self.node_contents_visit(node)

    def visit_MatchMapping(self, node: ast.MatchMapping) -> ast.AST:
        """`case {"a": b, **rest}`."""
        self.check_bound(node, node.rest)
        return self.node_contents_visit(node)

    def visit_MatchClass(self, node: ast.MatchClass) -> ast.AST:
        """`case Point(x=0)`: reads attributes by name, without a guard."""
        for name in node.kwd_attrs:
            refusal = attribute_refusal(name)
            if refusal is None and name in GUARDED_ATTRIBUTES:
                refusal = f"attribute {name!r} is not available in a pattern"
            if refusal:
                self.refuse(
                    node, refusal, code="attribute-refused", advice="read the attribute in an 'if' behind the pattern"
                )
        for part in ast.walk(node.cls):
            if isinstance(part, ast.Attribute) and part.attr in _NOT_IN_PATTERNS:
                self.refuse(
                    part,
                    f"attribute {part.attr!r} is not available in a pattern",
                    code="attribute-refused",
                    advice="put the class into a variable first",
                )
                return node
        return self.node_contents_visit(node)

    def visit_MatchStar(self, node: ast.MatchStar) -> ast.AST:
        """`case [first, *rest]`."""
        self.check_bound(node, node.name)
        return node

    def visit_MatchAs(self, node: ast.MatchAs) -> ast.AST:
        """`case name`, `case pattern as name`."""
        self.check_bound(node, node.name)
        return self.node_contents_visit(node)

    def visit_MatchOr(self, node: ast.MatchOr) -> ast.AST:
        """`case a | b`."""
        return self.node_contents_visit(node)

    # Not yet looked at, or looked at and left out.

    def visit_TemplateStr(self, node: ast.AST) -> None:
        """Template strings hold their expressions' values and texts for anyone: left out until they are understood."""
        self.not_allowed(node)

    def visit_Import(self, node: ast.Import) -> ast.AST:
        """`import a`: names are looked at here, modules in `imports`."""
        for alias in node.names:
            self._check_alias(alias, alias.name.split("."))
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST:
        """`from a import b`: names are looked at here, modules in `imports`."""
        if node.module == "__future__" and not node.level:
            return node
        for alias in node.names:
            if alias.name == "*":
                self.refuse(
                    node,
                    "star imports are not available",
                    code="import-refused",
                    advice=f"name what you need: from {node.module or 'module'} import name",
                )
            else:
                self._check_alias(alias, [alias.name])
        return node

    def _check_alias(self, alias: ast.alias, path: list[str]) -> None:
        for part in path:
            if is_private(part):
                self.refuse(
                    alias,
                    f"import of {quoted(alias.name)} is not allowed here",
                    code="import-refused",
                    advice="leave it out",
                )
                return
        self.check_bound(alias, alias.asname or path[0])


class _Hoisted(ast.Name):
    """A name that the policy made, so that it is not taken for one of the author's."""


def _at(place: ast.AST, node: _Node) -> _Node:
    return ast.fix_missing_locations(ast.copy_location(node, place))


def _call(name: str, *arguments: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(name, ast.Load()), list(arguments), [])


def _guarded(place: ast.expr, value: ast.expr, known: str, guard: str) -> ast.expr:
    """`value`, if the guard has nothing against writing to it."""
    if not isinstance(value, ast.Name):
        return _at(place, _call(guard, value))
    # What is usual is seen without a call. Nothing of the author's runs between the two looks at the variable.
    return _at(place, ast.IfExp(_type_in(value, known), value, _call(guard, value)))


def _type_in(value: ast.Name, known: str) -> ast.Compare:
    return ast.Compare(_call("_type_", value), [ast.In()], [ast.Name(known, ast.Load())])


def _is_super_call(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "super"
        and not node.args
        and not node.keywords
    )


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _hide_traceback(arguments: ast.arguments) -> list[ast.stmt]:
    """First lines of an `__exit__`: it is not given the traceback, and memory that ran out is noticed."""
    lines: list[ast.stmt] = [ast.Expr(_call("_noticed_"))]
    positional = [*arguments.posonlyargs, *arguments.args]
    if len(positional) > 3:
        lines.append(ast.Assign([ast.Name(positional[3].arg, ast.Store())], ast.Constant(None)))
    if arguments.vararg is not None:
        name = arguments.vararg.arg
        lines.append(ast.Assign([ast.Name(name, ast.Store())], _call("_untraced_", ast.Name(name, ast.Load()))))
    return lines


def _own_parameter(node: ast.FunctionDef) -> str | None:
    """The name of a method's first parameter, if it is written to and never bound again.

    Such a method looks once whether that parameter is an instance of an own class; it stays one, since nobody can
    assign to an object's class.
    """
    positional = [*node.args.posonlyargs, *node.args.args]
    if not positional or any(isinstance(item, ast.Name) and item.id in _NO_SELF for item in node.decorator_list):
        return None
    name = positional[0].arg
    if not any(_writes_to(part, name) for part in _own_scope(node)):
        return None
    return None if name in _bound_names(ast.Module(node.body, [])) else name


_LISTINGS: Final = {"module": ("__all__",), "class": ("__slots__", "__match_args__")}


def _lists_public_names(node: ast.expr) -> bool:
    return isinstance(node, (ast.Tuple, ast.List)) and all(
        isinstance(item, ast.Constant) and isinstance(item.value, str) and attribute_refusal(item.value) is None
        for item in node.elts
    )


_NO_SELF: Final = frozenset({"staticmethod", "classmethod"})


def _writes_to(node: ast.AST, name: str) -> bool:
    return (
        isinstance(node, ast.Attribute)
        and not isinstance(node.ctx, ast.Load)
        and isinstance(node.value, ast.Name)
        and node.value.id == name
    )


def _own_scope(node: ast.FunctionDef) -> list[ast.AST]:
    """All nodes of a function's body that are not within another function or class."""
    found: list[ast.AST] = []
    todo: list[ast.AST] = list(node.body)
    while todo:
        item = todo.pop()
        found.append(item)
        if not isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)):
            todo.extend(ast.iter_child_nodes(item))
    return found


def _bound_names(tree: ast.AST) -> set[str]:
    """Every name that is bound or declared anywhere within `tree`, in whichever scope."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            if not isinstance(node.ctx, ast.Load):
                names.add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.alias):
            names.add(node.asname or node.name.split(".")[0])
        elif isinstance(node, (ast.Global, ast.Nonlocal)):
            names.update(node.names)
        elif isinstance(node, (ast.ExceptHandler, ast.MatchStar, ast.MatchAs)):
            if node.name is not None:
                names.add(node.name)
        elif isinstance(node, ast.MatchMapping) and node.rest is not None:
            names.add(node.rest)
    return names
