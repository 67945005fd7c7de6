"""What the policy refuses and where it says so, what it lets through, and what its guards stop at run time."""

from __future__ import annotations

import types
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexlet_sandboxes.language.names import (
    ALWAYS_REFUSED,
    REFUSED_ATTRIBUTES,
    REFUSED_BUILTINS,
    SPECIAL_METHODS,
    is_private,
)
from tests.support.language import Host, call, problems_of, refusal

CLASS = "class C:\n    pass\n"


def handler(body: str, before: str = "") -> str:
    lines = "\n".join("    " + line for line in body.splitlines())
    return f"{before}\ndef handler(event, context):\n{lines}\n"


# Refused in the source.


@pytest.mark.parametrize(
    "source",
    [
        "x = ().__class__",
        "x = [].__init__",
        "x.__dict__ = {}",
        "del x.__dict__",
        "x._y += 1",
        "for x.__class__ in y: pass",
        "with y as x.__class__: pass",
        "x = f'{y.__class__}'",
        "x = f'{1:{y.__class__}}'",
        "@x.__class__\ndef f(): pass",
        "def f(a=x.__class__): pass",
        "def f(a: x.__class__): pass",
        "def f() -> x.__class__: pass",
        "class C(x.__class__): pass",
        "y = lambda a=x.__class__: 1",
        "y = [a for a in x.__class__]",
        "y = x[z.__class__]",
        "assert x, y.__class__",
        "raise x from y.__cause__",
        "match x:\n    case y.__class__: pass",
        "match x:\n    case y.__class__(): pass",
        "match x:\n    case object(__class__=k): pass",
        "match x:\n    case object(gi_frame=k): pass",
        "match x:\n    case str(format=k): pass",
        "match x:\n    case str(format_map=k): pass",
        "match x:\n    case AttributeError(obj=k): pass",
        "match x:\n    case y.format: pass",
        "match x:\n    case y.format(): pass",
        "x.format += y",
        "y = super().__class__",
        "def f(self):\n    super().__getattribute__('x')",
        "def f(self):\n    super(C, self).__init__()",
        "def f(self):\n    super",
        "x = g.gi_frame",
        "x = (y := g).gi_code",
    ],
)
def test_attributes_that_lead_outside(source: str) -> None:
    assert problems_of(source)


@pytest.mark.parametrize("name", sorted(ALWAYS_REFUSED | REFUSED_ATTRIBUTES))
def test_names_of_pythons_insides(name: str) -> None:
    (problem,) = problems_of(f"x = y.{name}")
    assert (problem.code, problem.line, problem.column) == ("attribute-refused", 1, 7)
    assert problem.end_column == 7 + len(name)


def test_what_this_python_has_of_insides_is_all_refused() -> None:
    def generator() -> Any:
        yield

    one = generator()
    for value in (one, one.gi_frame, generator.__code__):
        public = {name for name in dir(value) if not name.startswith("_")}
        assert public - REFUSED_ATTRIBUTES <= {"close", "send", "throw", "clear", "replace"}
    assert isinstance(one, types.GeneratorType)


BINDINGS = [
    "{} = 1",
    "a, {} = 1, 2",
    "[a, *{}] = [1]",
    "{}: int = 1",
    "{}: int",
    "a = ({} := 1)",
    "{} += 1",
    "del {}",
    "for {} in []: pass",
    "with a as {}: pass",
    "import math as {}",
    "from math import pi as {}",
    "def {}(): pass",
    "class {}: pass",
    "def f({}): pass",
    "def f({}, /): pass",
    "def f(*, {}): pass",
    "def f(*{}): pass",
    "def f(**{}): pass",
    "a = lambda {}: 1",
    "a = [1 for {} in []]",
    "a = {{1: 1 for {} in []}}",
    "a = [({} := 1) for b in []]",
    "def f():\n    global {}",
    "def g():\n    def f():\n        nonlocal {}",
    "try: pass\nexcept ValueError as {}: pass",
    "match a:\n    case {}: pass",
    "match a:\n    case [*{}]: pass",
    "match a:\n    case {{'a': 1, **{}}}: pass",
    "match a:\n    case int() as {}: pass",
    "match a:\n    case [{}, 1]: pass",
]


# Where Python itself takes no `_`, or where it would have to be bound around.
NOT_UNDERSCORE = {
    "def g():\n    def f():\n        nonlocal {}",
    "match a:\n    case {{'a': 1, **{}}}: pass",
    "match a:\n    case int() as {}: pass",
}


@pytest.mark.parametrize("name", ["_x", "__x", "__builtins__", "_type_", "_owns_", "__name__", "super", "gi_frame"])
@pytest.mark.parametrize("form", BINDINGS)
def test_names_that_cannot_be_bound(form: str, name: str) -> None:
    assert any(name in problem.source_line for problem in problems_of(form.format(name)))


@pytest.mark.parametrize("form", [form for form in BINDINGS if form not in NOT_UNDERSCORE])
def test_a_single_underscore_may_be_bound(form: str) -> None:
    assert problems_of(form.format("_")) == []


@pytest.mark.parametrize("name", sorted(REFUSED_BUILTINS))
def test_missing_builtins_are_refused_with_advice(name: str) -> None:
    (problem,) = problems_of(f"x = [{name}]")
    assert problem.advice == REFUSED_BUILTINS[name]
    assert (problem.line, problem.column, problem.end_column) == (1, 6, 6 + len(name))


def test_a_builtins_name_may_be_the_authors_own() -> None:
    assert call("def open(text):\n    return text.upper()\n" + handler("return open('x')")) == "X"


@pytest.mark.parametrize(
    "name",
    [
        *("__getattr__", "__getattribute__", "__setattr__", "__delattr__", "__class_getitem__", "__init_subclass__"),
        *("__new__", "__del__", "__get__", "__set__", "__set_name__", "__reduce__", "__reduce_ex__", "__getstate__"),
        *("__setstate__", "__prepare__", "__mro_entries__", "__instancecheck__", "__subclasscheck__", "__dict__"),
        *("__subclasshook__", "__class__", "__bases__", "__module__", "__qualname__", "__annotations__", "__buffer__"),
        *("__await__", "__aiter__"),
    ],
)
def test_special_names_outside_the_list(name: str) -> None:
    assert problems_of(f"class C:\n    def {name}(self, *args):\n        return self")
    assert problems_of(f"class C:\n    {name} = 1")
    assert problems_of(f"def {name}(): pass")


@pytest.mark.parametrize("name", sorted(SPECIAL_METHODS))
def test_special_methods_are_for_classes(name: str) -> None:
    assert problems_of(f"class C:\n    def {name}(self, *args):\n        return 1") == []
    assert problems_of(f"def {name}(self): pass")
    assert problems_of(f"x = C.{name}")
    assert problems_of(f"class C:\n    def f(self):\n        {name} = 1")
    assert problems_of(f"class C:\n    def f(self):\n        return super().{name}()") == []


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("async def f():\n    async for x in y: pass", "construct-refused"),
        ("class C(metaclass=M): pass", "construct-refused"),
        ("class C(**k): pass", "construct-refused"),
        ("class C(B, _x=1): pass", "name-refused"),
        ("f(_x=1)", "name-refused"),
        ("try: pass\nexcept* ValueError: pass", "construct-refused"),
        ("from math import *", "import-refused"),
        ("type('C', (), {})", "name-refused"),
        ("class C:\n    __slots__ = ('__dict__',)", "name-refused"),
        ("class C:\n    __slots__ = x", "name-refused"),
        ("class C:\n    __match_args__ = ('gi_frame',)", "name-refused"),
        ("__all__ = ['_x']", "name-refused"),
        ("class C:\n    __exit__ = print", "name-refused"),
        ("super = 1", "name-refused"),
        ("import super", "import-refused"),
    ],
)
def test_constructs_that_are_refused(source: str, code: str) -> None:
    assert code in {problem.code for problem in problems_of(source)}


def test_all_problems_of_all_files_come_at_once_in_their_order() -> None:
    body = "    x = event.__class__; y = _z\n    async def f():\n        exec('')\n"
    source = f"import os\n\ndef handler(event, context):\n{body}"
    problems = problems_of(source, files={"prices.py": "import sys\n", "broken.py": "x = (\n"})
    assert [(problem.place, problem.line, problem.column, problem.end_column) for problem in problems] == [
        ("function.py", 1, 1, 10),
        ("function.py", 4, 15, 24),
        ("function.py", 4, 30, 32),
        ("function.py", 5, 5, 19),
        ("function.py", 6, 9, 13),
        ("broken.py", 1, 5, 0),
        ("prices.py", 1, 1, 11),
    ]
    assert problems[1].source_line == "    x = event.__class__; y = _z"


def test_columns_count_characters() -> None:
    (problem,) = problems_of("é = 'ü'; x = y._z")
    assert (problem.column, problem.end_column) == (16, 18)
    assert problem.source_line[problem.column - 1 : problem.end_column - 1] == "_z"


def test_a_flood_of_problems_is_bounded() -> None:
    problems = problems_of("_a;" * 5000 + "\n" + "_" + "b" * 100_000 + " = 1\n")
    assert len(problems) == 101
    assert problems[-1].message == "4901 more problems"
    assert sum(len(problem.message) + len(problem.source_line) for problem in problems) < 100_000


@given(st.text(min_size=1, max_size=8))
def test_no_name_that_python_folds_to_an_underscore_gets_through(name: str) -> None:
    source = f"def handler(event, context):\n    return event.{name}\n"
    try:
        tree = compile(source, "x", "exec", flags=0x400, dont_inherit=True)  # PyCF_ONLY_AST
        read = tree.body[0].body[0].value.attr  # type: ignore[attr-defined]  # the source has that shape
    except (SyntaxError, ValueError, AttributeError):
        return
    if is_private(read) or read in REFUSED_ATTRIBUTES:
        assert problems_of(source)


@pytest.mark.parametrize(
    "spelling", ["\uff47i_frame", "g\u2071_frame", "\u1d4di\uff3fframe", "tb\uff3fframe", "mr\u00ba"]
)
def test_look_alikes(spelling: str) -> None:
    assert problems_of(f"x = y.{spelling}")
    assert is_private("\uff3fx")


# Stopped while running.


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("getattr((), '__class__')", AttributeError),
        ("getattr((), '_x', 1) + getattr((), 'gi_frame', 1) + getattr((), 'mro', 'absent')", TypeError),
        ("getattr(iter(n for n in [1]), 'gi_' + 'frame')", AttributeError),
        ("getattr(1, b'real')", TypeError),
        ("setattr(C(), '__class__', C)", AttributeError),
        ("delattr(C(), '__dict__')", AttributeError),
        ("setattr(C, 'x', 1)", TypeError),
        ("delattr(C, 'x')", TypeError),
        ("C.x = 1", TypeError),
        ("C().x.y = 1", AttributeError),
        ("handler.x = 1", TypeError),
        ("print.x = 1", TypeError),
        ("Exception('x').args = 1", TypeError),
        ("int.x = 1", TypeError),
        ("del C.x", TypeError),
        ("C.x += 1", TypeError),
        ("'x'[0] = 1", TypeError),
        ("(1, 2)[0] += 1", TypeError),
        ("del 'x'[0]", TypeError),
        ("C()[0] = 1", TypeError),
        ("C[0] = 1", TypeError),
        ("t = [type][0]; t(1)", TypeError),
        ("t = [type][0]; t('X', (), {})", TypeError),
        ("class M(type): pass", TypeError),
        ("'{0.__class__}'.format(1)", ValueError),
        ("'{0[0]}'.format([1])", ValueError),
        ("'{x.__class__}'.format_map({'x': 1})", ValueError),
        ("str.format('{0.__class__}', 1)", ValueError),
        ("str.format_map('{x.real}', {'x': 1})", ValueError),
        ("getattr('{0.real}', 'format')(1)", ValueError),
        ("getattr(str, 'for' + 'mat')('{0.real}', 1)", ValueError),
        ("list(map(str.format, ['{0.real}'], [1]))", ValueError),
        ("S('{0.real}').format(1)", ValueError),
        ("S.format(S('{0.real}'), 1)", ValueError),
        ("S('{0.real}').through_super()(1)", ValueError),
        ("'{:{0.real}}'.format(1, 2)", ValueError),
        ("str.format(1)", TypeError),
        ("print(1, file=1)", TypeError),
        ("print(1, sep=1)", TypeError),
    ],
)
def test_guards(body: str, error: type[Exception]) -> None:
    before = CLASS + "class S(str):\n    def through_super(self):\n        return super().format\n"
    with pytest.raises(error):
        call(handler(body, before))


def test_what_a_failed_attribute_was_looked_for_on_is_not_handed_back() -> None:
    body = "try:\n    1 .nothing\nexcept AttributeError as error:\n    return {} "
    for read in ("error.obj", "getattr(error, 'obj')"):
        with pytest.raises(AttributeError, match="out of reach"):
            call(handler(body.format(read)))
    assert call(handler(body.format("[getattr(error, 'obj', None), hasattr(error, 'obj'), error.name]"))) == [
        None,
        False,
        "nothing",
    ]
    own = "class E(AttributeError):\n    pass\n"
    with pytest.raises(AttributeError):
        call(handler("return E('x').obj", own))
    assert call(handler("c = C()\nc.obj = 1\nreturn c.obj", CLASS)) == 1


def test_abstract_classes_are_not_registered_with() -> None:
    source = "from collections.abc import Mapping\nclass M(Mapping):\n    pass\n"
    for attack in ("Mapping.register(int)", "M.register(str)", "getattr(M, 'register')(str)"):
        with pytest.raises(AttributeError, match="derive from"):
            call(handler(attack, source))


def test_patterns_read_no_guarded_attribute_by_position() -> None:
    source = "from dataclasses import dataclass\n@dataclass(init=False)\nclass P:\n    register: object\n"
    for pattern in ("P(found)", "[P(found), *_]", "{'k': P(found)}", "P(found) | int(found)"):
        body = f"match [P()]:\n    case {pattern}:\n        return found"
        with pytest.raises(TypeError, match="'register' is not available in a pattern"):
            call(handler(body, source))


@pytest.mark.parametrize(
    "source",
    [
        "class P(str):\n    format: object\n",
        "class B:\n    format_map: object\nclass P(str, B): pass\n",
        "class B:\n    format: object\nclass C(B): pass\nclass P(str, C): pass\n",
        "class P(AttributeError):\n    obj: object\n",
        "class B:\n    obj: object\nclass P(AttributeError, B): pass\n",
    ],
)
def test_no_class_has_a_field_that_trusted_code_would_read_unguarded(source: str) -> None:
    """`dataclasses.asdict` and its like read fields by name: of a str, this one is the real `str.format`, and of an
    AttributeError what trusted code failed on."""
    (problem,) = refusal(source)
    assert "TypeError" in problem.message
    assert problems_of(source) == []
    assert call(handler("return 1", "class P:\n    format: object\n    obj: object\n")) == 1


def test_a_class_in_a_pattern_is_looked_at_once() -> None:
    """One that changes between the look and the match would smuggle its attributes through."""
    source = """
from dataclasses import dataclass

@dataclass
class Safe:
    x: int = 1

class Holder:
    def __init__(self):
        self.asked = 0

    @property
    def kind(self):
        self.asked += 1
        return Safe
"""
    body = "h = Holder()\nmatch Safe(7):\n    case h.kind(n):\n        return [n, h.asked]"
    assert call(handler(body, source)) == [7, 1]


def test_methods_write_to_instances_only() -> None:
    source = """
class C:
    def put(self, value):
        self.value = value
        return self.value

    def later(self, value):
        yield 1
        self.value = value

    @classmethod
    def on_class(cls):
        cls.value = 1

    @staticmethod
    def on_any(this):
        this.value = 1

    def rebound(self, other):
        self = other
        self.value = 1

    def nested(self, other):
        def inner(self):
            self.value = 1
        inner(other)

    def by_lambda(self, other):
        nonlocal_self = self
        for self.value in [1]:
            pass
        return nonlocal_self.value
"""
    assert call(handler("c = C()\nreturn [c.put(3), c.value]", source)) == [3, 3]
    for attack in (
        "C.put(C, 1)",
        "C.put(event, 1)",
        "C.put(handler, 1)",
        "list(C.later(C, 1))",
        "C.on_class()",
        "C.on_any(C)",
        "C().rebound(C)",
        "C().nested(C)",
    ):
        with pytest.raises(TypeError, match="cannot be written"):
            call(handler(attack, source))
    assert call(handler("return C().by_lambda(1)", source)) == 1


def test_classes_made_while_running_are_own_classes_too() -> None:
    body = """
class Late:
    def __init__(self):
        self.x = 1

late = Late()
late.x += 1
return late.x
"""
    assert call(handler(body)) == 2


def test_exit_is_not_given_the_traceback() -> None:
    source = """
class Named:
    def __exit__(self, kind, error, trace):
        seen.append(trace)
        return True
    def __enter__(self): pass

class Star(Named):
    def __exit__(self, *args):
        seen.append(args[-1])
        return True

class All(Named):
    def __exit__(*args):
        seen.append(args[-1])
        return True

seen = []
"""
    body = "for kind in (Named, Star, All):\n    with kind():\n        1 / 0\nreturn seen"
    assert call(handler(body, source)) == [None, None, None]


CATCHES = [
    "try:\n    raise MemoryError\nexcept MemoryError:\n    pass",
    "try:\n    raise MemoryError\nexcept:\n    pass",
    "try:\n    raise MemoryError\nexcept Exception as error:\n    pass",
    "try:\n    raise MemoryError\nexcept (KeyError, Exception):\n    pass",
    "try:\n    raise MemoryError\nexcept E:\n    pass",
    "try:\n    raise MemoryError\nexcept [BaseException][0]:\n    pass",
    "try:\n    raise MemoryError\nfinally:\n    return 1",
    "for n in [1]:\n    try:\n        raise MemoryError\n    finally:\n        break",
    "try:\n    raise KeyError\nexcept KeyError:\n    raise MemoryError\nfinally:\n    return 1",
    "try:\n    try:\n        raise MemoryError\n    finally:\n        raise KeyError\nexcept KeyError:\n    pass",
    "with Swallow():\n    raise MemoryError",
    "def g():\n try:\n  yield\n except BaseException:\n  yield\ni = g()\nnext(i)\ni.throw(MemoryError())",
]


@pytest.mark.parametrize("body", CATCHES)
def test_memory_that_ran_out_is_noticed_though_it_is_caught(body: str) -> None:
    before = (
        "E = MemoryError\nclass Swallow:\n    def __enter__(self): pass\n    def __exit__(self, *args): return True\n"
    )
    host = Host()
    call(handler(body + "\nreturn 1", before), host=host)
    assert host.memory_exceeded


def test_other_exceptions_are_no_memory_errors() -> None:
    host = Host()
    body = (
        "for kind in (ValueError, RecursionError):\n try:\n  raise kind\n except Exception:\n  pass\n finally:\n  pass"
    )
    call(handler(body), host=host)
    assert not host.memory_exceeded


def test_a_module_that_catches_memory_that_ran_out_is_not_loaded() -> None:
    with pytest.raises(MemoryError):
        refusal("try:\n    raise MemoryError\nexcept MemoryError:\n    pass\ndef handler(e, c): pass\n")


# What an author sees of values.


def test_texts_about_objects_hold_no_addresses() -> None:
    body = "return [repr(C()), str(C()), f'{C()!r}', str([C()]), repr(handler), repr(n for n in [1]), repr(object())]"
    for text in call(handler(body, CLASS)):
        assert "0x" not in text
    assert call(handler("return repr(C())", CLASS)) == "<function.C object>"


def test_hashes_tell_no_addresses() -> None:
    source = handler("return [hash(o) for o in event]", CLASS)
    objects = [object(), object]
    assert not set(call(source, objects)) & {hash(item) for item in objects}
    assert call(handler("return hash((1, 'a')) == hash((1, 'a')) and hash(1) == hash(1.0)"))


def test_print_goes_to_the_host() -> None:
    host = Host()
    call(handler("print('a', 1, sep='-', end='!')\nprint()"), host=host)
    assert host.written == [("stdout", "a-1!"), ("stdout", "\n")]


def test_what_a_host_adds_is_there() -> None:
    assert call(handler("return double(2)"), host=Host(builtins={"double": lambda n: n * 2})) == 4


def test_members_of_an_enumeration_write_to_themselves_while_it_is_made() -> None:
    source = "from enum import Enum\nclass E(Enum):\n    A = 1, 2\n    def __init__(self, x, y):\n        self.y = y\n"
    assert call(handler("return E.A.y", source)) == 2


def test_a_protocol_asks_for_what_it_says_and_no_more() -> None:
    source = (
        "from typing import Protocol, runtime_checkable\n@runtime_checkable\nclass P(Protocol):\n    upper: object\n"
    )
    assert call(handler("return [isinstance('x', P), isinstance(1, P)]", source)) == [True, False]


def test_an_enumeration_with_a_plain_mixin_shows_its_values() -> None:
    source = "from enum import Enum\nclass Mixin:\n    def two(self): return 2\nclass E(Mixin, Enum):\n    A = 1\n"
    assert call(handler("return [repr(E.A), E.A.two()]", source)) == ["<E.A: 1>", 2]


def test_a_name_is_a_text_or_not_there() -> None:
    source = "import typing, functools\nclass C:\n    def m(self): return self.__class__.__name__\ndef f(): pass\n"
    read = "[C.__name__, f.__name__, C().m(), int.__name__, len.__name__, C().m.__name__, (1).__class__.__name__]"
    assert call(handler(f"return {read}", source)) == ["C", "f", "C", "int", "len", "m", "int"]
    for nameless in ("1", "C()", "functools.partial(f)", "typing"):
        with pytest.raises(AttributeError, match="__name__"):
            call(handler(f"return ({nameless}).__name__", source))


@pytest.mark.parametrize(
    "source",
    [
        "def f(): pass\nf.__name__ = 'g'",
        "def f(): pass\nf.__name__ += 'g'",
        "def f(): pass\ndel f.__name__",
        "x = (1).__class__",
        "(1).__class__.__name__.__class__",
        "class C:\n    __name__ = 'x'",
        "import operator\nmatch 'int':\n    case int.__name__: pass",
        "match 1:\n    case int.__name__(): pass",
        "x = type(1) in (int,)",
        "x = type(1) < int",
        "x = int is type(1) is int",
        "x = (type(1), 2) == (int, 2)",
        "x = type('X', (), {}) is int",
    ],
)
def test_what_names_and_types_are_not_there_for(source: str) -> None:
    assert problems_of(source)


def test_a_class_is_compared_without_being_shown() -> None:
    source = "class E:\n    def __eq__(self, other): return other\n    __ne__ = __eq__\n"
    body = "return [type(1) == int, int != type(1), type(1) is E, type(E) == E(), E() == type(E), type(E()) is not E]"
    assert call(handler(body, source)) == [True, False, False, False, False, False]


def test_a_decimal_context_may_be_written_to() -> None:
    source = "import decimal\nclass Mine(decimal.Context): pass\n"
    body = "c = decimal.Context()\nc.prec = 3\nsetattr(c, 'rounding', decimal.ROUND_UP)\nreturn str(c.divide(2, 3))"
    assert call(handler(body, source)) == "0.667"
    with pytest.raises(AttributeError):
        call(handler("decimal.Context().other = 1", source))
