"""The language as a table: each construct with an example, whether it is accepted, why, and what to write instead.

The table is the specification, the test and the documentation in one. Every example is compiled by the tests; those
that are accepted are run, with the assertions in them; those that are refused have to be refused at compile time, or,
where only running tells, by the exception that the row names. `docs/language.md` is what
`python -m nexlet_sandboxes.language.constructs` prints.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from nexlet_sandboxes.language import names, parsing
from nexlet_sandboxes.language.names import REFUSED_BUILTINS, SPECIAL_METHODS

__all__ = ["CONSTRUCTS", "Construct", "document"]


@dataclass(frozen=True, slots=True)
class Construct:
    """One row.

    Attributes:
        section: the heading it stands under.
        name: what it is called.
        example: a whole module, or the lines of one that matter.
        accepted: whether it may be written.
        why: why not, or what is worth knowing of it.
        instead: what to write, for what is refused.
        raises: the exception that stops it, where it compiles and is stopped while it runs.
    """

    section: str
    name: str
    example: str
    accepted: bool = True
    why: str = ""
    instead: str = ""
    raises: str = ""


def _yes(section: str, name: str, example: str, why: str = "") -> Construct:
    return Construct(section, name, textwrap.dedent(example).strip("\n"), True, why)


def _no(section: str, name: str, example: str, why: str, instead: str, raises: str = "") -> Construct:
    return Construct(section, name, textwrap.dedent(example).strip("\n"), False, why, instead, raises)


_VALUES: Final = "Values and variables"
_FLOW: Final = "Control flow"
_FUNCTIONS: Final = "Functions"
_CLASSES: Final = "Classes"
_ATTRIBUTES: Final = "Attributes and names"
_BUILTINS: Final = "Builtins"
_IMPORTS: Final = "Imports"
_LIMITS: Final = "Limits of a source"

CONSTRUCTS: Final[tuple[Construct, ...]] = (
    _yes(
        _VALUES,
        "assignment in all its forms",
        """
        total = 0
        total += 5
        first, *rest = [1, 2, 3]
        a = b = 2
        count: int = 7
        if (length := len(rest)) > 1:
            total += length
        assert (total, first, rest, count) == (7, 1, [2, 3], 7)
        """,
    ),
    _yes(
        _VALUES,
        "items: reading, writing, deleting, augmented assignment",
        """
        stock = {"apple": 3}
        stock["pear"] = 1
        stock["apple"] += 2
        del stock["pear"]
        numbers = [1, 2, 3, 4]
        numbers[1:3] = [9]
        assert stock == {"apple": 5} and numbers == [1, 9, 4]
        """,
        "Items are written to lists, dicts and their kin, bytearrays, and instances of your own classes.",
    ),
    _yes(
        _VALUES,
        "f-strings, and the other ways to format",
        """
        price = 9.9
        assert f"{price:>8.2f} {price!r}" == "    9.90 9.9"
        assert "{:.1f} {name}".format(price, name="pear") == "9.9 pear"
        assert "%05.1f" % price == "009.9"
        """,
    ),
    _no(
        _VALUES,
        "format strings that reach into a value",
        """
        text = "{0.real}".format(1)
        """,
        "`str.format` walks attributes and items by name, wherever they lead.",
        'an f-string, f"{value.real}", or format the value itself',
        raises="ValueError",
    ),
    _yes(
        _VALUES,
        "comprehensions and generator expressions",
        """
        squares = [n * n for n in range(4) if n % 2]
        by_name = {name: len(name) for name in ("ann", "bo")}
        letters = {letter for word in ("ab", "bc") for letter in word}
        assert squares == [1, 9] and by_name["bo"] == 2 and len(letters) == 3
        assert sum(n for n in range(10)) == 45
        """,
    ),
    _yes(
        _VALUES,
        "_ for what is not needed",
        """
        for _ in range(3):
            pass
        _, last = ("not this", "this")
        assert last == "this"
        """,
    ),
    _yes(
        _FLOW,
        "if, while, for, with else, break and continue",
        """
        found = None
        for n in range(10):
            if n % 2:
                continue
            if n > 5:
                found = n
                break
        else:
            found = -1
        while found > 0:
            found -= 4
        assert found == -2
        """,
    ),
    _yes(
        _FLOW,
        "match",
        """
        from dataclasses import dataclass

        @dataclass
        class Order:
            number: int
            state: str = "new"

        def tell(value):
            match value:
                case {"type": "order", "id": number, **rest}:
                    return f"order {number}"
                case [first, *others]:
                    return f"{first} and {len(others)} more"
                case Order(number, state="new"):
                    return f"new order {number}"
                case int() | float() as amount if amount > 0:
                    return f"{amount} EUR"
                case None:
                    return "nothing"
                case _:
                    return "?"

        assert tell({"type": "order", "id": 7}) == "order 7"
        assert tell([1, 2, 3]) == "1 and 2 more"
        assert tell(Order(8)) == "new order 8"
        assert [tell(5), tell(None), tell("x")] == ["5 EUR", "nothing", "?"]
        """,
    ),
    _yes(
        _FLOW,
        "try, except, else, finally, raise from, assert",
        """
        done = []
        try:
            try:
                {}["missing"]
            except KeyError as error:
                raise ValueError("no such thing") from error
            finally:
                done.append("inner")
        except (ValueError, TypeError) as error:
            done.append(str(error))
        else:
            done.append("never")
        assert done == ["inner", "no such thing"]
        """,
        "A caught `MemoryError` still ends the invocation as out of memory.",
    ),
    _yes(
        _FLOW,
        "with",
        """
        from contextlib import contextmanager

        class Section:
            def __enter__(self):
                return self

            def __exit__(self, kind, error, traceback):
                return kind is KeyError

        @contextmanager
        def named(name):
            yield name.upper()

        with Section() as section, named("a") as name:
            assert name == "A"
            raise KeyError("swallowed")
        """,
        "`__exit__` is given `None` in place of the traceback.",
    ),
    _no(
        _FLOW,
        "except*",
        """
        try:
            pass
        except* ValueError:
            pass
        """,
        "Exception groups come from async code, which there is none of.",
        "`except`",
    ),
    _no(
        _FLOW,
        "reading a traceback",
        """
        try:
            1 / 0
        except ZeroDivisionError as error:
            trace = error.__traceback__
        """,
        "A traceback leads to frames, and those to everything.",
        "raise the exception: its traceback goes to the function's stderr feed",
    ),
    _yes(
        _FUNCTIONS,
        "functions, lambdas, closures, decorators",
        """
        import functools

        def counter(start=0, /, *, step=1):
            value = start

            def count():
                nonlocal value
                value += step
                return value

            return count

        def twice(function):
            @functools.wraps(function)
            def inner(*args, **kwargs):
                return function(*args, **kwargs) * 2

            return inner

        @twice
        def price(amount: float, tax: float = 0.2) -> float:
            return amount + tax

        count = counter(step=2)
        assert [count(), count()] == [2, 4]
        assert price(1.0, tax=0.5) == 3.0
        assert (lambda a, *rest: a + len(rest))(1, 2, 3) == 3
        """,
    ),
    _yes(
        _FUNCTIONS,
        "generators",
        """
        def numbers(upto):
            for n in range(upto):
                got = yield n
                if got:
                    return got

        def both():
            yield from numbers(2)
            yield "end"

        assert list(both()) == [0, 1, "end"]
        """,
    ),
    _yes(
        _FUNCTIONS,
        "global",
        """
        calls = 0

        def called():
            global calls
            calls += 1

        called()
        assert calls == 1
        """,
        "A module's variables live as long as the worker does. How long that is, and how many workers there are, is "
        "promised to nobody.",
    ),
    _no(
        _FUNCTIONS,
        "async def, await",
        """
        async def handler(event, context):
            return 1
        """,
        "A worker makes one call at a time, and has nothing to do while that waits for something.",
        "`def`; many messages are run side by side by many workers, or by one call: `batch`",
    ),
    _no(
        _FUNCTIONS,
        "a generator's insides",
        """
        frame = (n for n in [1]).gi_frame
        """,
        "They lead to frames, and those to everything.",
        "leave it out; the same holds for every name of frames, code objects and tracebacks",
    ),
    _yes(
        _CLASSES,
        "classes with attributes, methods, properties, inheritance, super()",
        """
        class Account:
            currency = "EUR"

            def __init__(self, balance=0):
                self.balance = balance

            @property
            def empty(self):
                return self.balance == 0

            @empty.setter
            def empty(self, value):
                self.balance = 0 if value else self.balance

            @classmethod
            def of(cls, text):
                return cls(int(text))

            @staticmethod
            def plural(n):
                return "s" if n != 1 else ""

        class Savings(Account):
            def __init__(self, balance=0, rate=0.02):
                super().__init__(balance)
                self.rate = rate

            def add_interest(self):
                self.balance += self.balance * self.rate
                return self

        savings = Savings.of("100").add_interest()
        assert savings.balance == 102.0 and savings.currency == "EUR"
        savings.empty = True
        assert savings.empty and Account.plural(2) == "s"
        """,
    ),
    _yes(
        _CLASSES,
        "special methods",
        """
        class Money:
            __slots__ = ("cents",)

            def __init__(self, cents):
                self.cents = cents

            def __add__(self, other):
                return Money(self.cents + other.cents)

            __radd__ = __add__

            def __eq__(self, other):
                return isinstance(other, Money) and self.cents == other.cents

            def __hash__(self):
                return hash(self.cents)

            def __lt__(self, other):
                return self.cents < other.cents

            def __repr__(self):
                return f"{type(self).__name__}({self.cents})"

        assert repr(Money(1) + Money(2)) == "Money(3)"
        assert sorted([Money(2), Money(1)])[0] == Money(1)
        """,
        "Those that are given plain values: " + ", ".join(f"`{name}`" for name in sorted(SPECIAL_METHODS)) + ".",
    ),
    _no(
        _CLASSES,
        "special methods that change how Python works",
        """
        class Wild:
            def __getattr__(self, name):
                return name
        """,
        "How attributes are found, classes are made, and objects are copied, pickled and destroyed is not an author's.",
        "a method with a name of its own, or a dict",
    ),
    _yes(
        _CLASSES,
        "dataclasses, enumerations, named tuples, own exceptions",
        """
        from dataclasses import dataclass, field
        from enum import Enum, StrEnum, auto
        from typing import NamedTuple

        @dataclass(frozen=True, order=True)
        class Line:
            price: int
            tags: list[str] = field(default_factory=list, compare=False)

        class State(StrEnum):
            NEW = auto()
            PAID = auto()

        class Point(NamedTuple):
            x: int
            y: int = 0

        class OutOfStock(Exception):
            def __init__(self, item, left=0):
                super().__init__(f"{item}: {left} left")
                self.item = item

        assert Line(1) < Line(2) and State("paid") is State.PAID and Point(1).y == 0
        try:
            raise OutOfStock("pear")
        except OutOfStock as error:
            assert str(error) == "pear: 0 left" and error.item == "pear"
        """,
    ),
    _no(
        _CLASSES,
        "metaclass=",
        """
        class Odd(metaclass=int):
            pass
        """,
        "A metaclass decides what a class is.",
        "a class decorator",
    ),
    _no(
        _CLASSES,
        "writing to a class from outside",
        """
        class Settings:
            limit = 1

        Settings.limit = 2
        """,
        "A class may be everybody's, and so may its methods.",
        "an instance's attribute, or a dict in a variable of the module",
        raises="TypeError",
    ),
    _no(
        _CLASSES,
        "writing to what is not an instance of an own class",
        """
        import math

        math.pi = 3
        """,
        "Modules, functions and the objects of modules are shared. (A decimal context may be written to, as in "
        "`getcontext().prec = 28`: it is the worker's.)",
        "a variable of your own",
        raises="TypeError",
    ),
    _yes(
        _ATTRIBUTES,
        "attributes of everything, by public names",
        """
        word = "Pear"
        assert word.lower().startswith("p") and (3).real == 3
        assert getattr(word, "upper")() == "PEAR" and not hasattr(word, "weight")
        """,
    ),
    _no(
        _ATTRIBUTES,
        "names that begin with an underscore",
        """
        _cache = {}
        """,
        "Python's own machinery has such names, and so has ours.",
        "the name without the underscore: nobody else sees a function's module",
    ),
    _no(
        _ATTRIBUTES,
        "attributes that begin with an underscore",
        """
        kind = "text".__class__
        """,
        "They lead out of what a function was given.",
        "`isinstance(value, str)` asks what something is",
    ),
    _no(
        _ATTRIBUTES,
        "the same by another spelling",
        """
        frame = (n for n in [1]).GI_frame
        """.replace("GI", "\uff47\u2071"),
        "Python folds look-alikes of letters into one name, and so does the policy.",
        "plain letters",
    ),
    _no(
        _ATTRIBUTES,
        "the same by a text",
        """
        kind = getattr("text", "__cla" + "ss__")
        """,
        "For `getattr` and `hasattr` there are no such attributes.",
        "public names",
        raises="AttributeError",
    ),
    _yes(
        _ATTRIBUTES,
        "names of classes and functions, comparing a value's class, __name__, __all__",
        """
        __all__ = ["describe"]

        def describe(value):
            return type(value).__name__

        class Order:
            def __repr__(self):
                return f"<{self.__class__.__name__}>"

        assert [describe(1.5), describe.__name__] == ["float", "describe"] and repr(Order()) == "<Order>"
        assert type(1) is int and type(True) != int
        if __name__ == "__main__":
            print("not when a worker runs it")
        """,
        "`__name__` is the one name of its kind that may be read. `type(value)` and `value.__class__` are there for "
        "it, and `type(value)` to be compared with a class.",
    ),
    _yes(
        _BUILTINS,
        "what every author uses",
        """
        assert sum([1, 2]) + max(3, 4) + min([5]) + abs(-1) == 13
        assert sorted({"b", "a"}) == ["a", "b"] and list(reversed("ab")) == ["b", "a"]
        assert dict(zip("ab", range(2))) == {"a": 0, "b": 1}
        assert [n for n, c in enumerate("ab") if isinstance(c, str)] == [0, 1]
        assert all(map(bool, filter(None, [1, 0]))) and any([0, 1]) and round(2.567, 1) == 2.6
        assert isinstance(int, type) and callable(print) and bytes([65]) == b"A"
        print("to the log feed", 1, sep=": ")
        """,
    ),
    *(
        _no(_BUILTINS, name, f"x = {name}", "", instead)
        for name, instead in sorted(REFUSED_BUILTINS.items())
        if not name.startswith("_") and name not in {"copyright", "credits", "license", "exit", "quit", "help"}
    ),
    _no(
        _BUILTINS,
        "type()",
        """
        kind = type(1)
        """,
        "A class made by `type(name, bases, dict)` could have any special method.",
        "`isinstance(value, SomeClass)`, `type(value) is SomeClass`, `type(value).__name__`, a class statement",
    ),
    _yes(
        _IMPORTS,
        "the allowed modules",
        """
        import json
        import urllib.parse
        from collections import Counter
        from datetime import datetime, timedelta, timezone
        from decimal import Decimal as D

        assert json.loads("[1]") == [1] and urllib.parse.quote("a b") == "a%20b"
        assert Counter("aab")["a"] == 2 and D("0.1") + D("0.2") == D("0.3")
        """,
        "`nexfn modules` lists them with the names each gives; an operator may allow more.",
    ),
    _yes(
        _IMPORTS,
        "from __future__ import annotations",
        """
        from __future__ import annotations

        def total(prices: Sequence[Price]) -> Price:
            return sum(prices)

        assert total([1, 2]) == 3
        """,
    ),
    _no(
        _IMPORTS,
        "other modules",
        """
        import os
        """,
        "",
        "settings are in `context.env`; what there is besides, `nexfn modules` tells",
    ),
    _no(
        _IMPORTS,
        "names that an allowed module does not give",
        """
        from json import codecs
        """,
        "Modules of the standard library hold each other, and so everything.",
        "the names that `nexfn modules json` lists",
    ),
    _no(
        _IMPORTS,
        "star imports",
        """
        from math import *
        """,
        "Nobody can tell which names it brings.",
        "`from math import pi, sqrt`",
    ),
    _no(
        _IMPORTS,
        "relative imports",
        """
        from . import prices
        """,
        "A function's files are no package.",
        "`import prices`, for a file `prices.py` beside the function",
    ),
    _no(
        _LIMITS,
        "deep nesting",
        "x = " + "-" * 300 + "1",
        f"A source may be {parsing.MAX_SOURCE // 1024} KiB a file, {parsing.MAX_TOKENS} words and signs, "
        f"{parsing.MAX_NODES} syntax nodes, and {parsing.MAX_DEPTH} levels deep.",
        "several statements",
    ),
)
"""All rows, in the order of the documentation."""


def document() -> str:
    """The page `docs/language.md`."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Which Python a function may be written in"
    yield ""
    yield "<!-- Made by `python -m nexlet_sandboxes.language.constructs`; a test keeps it true. -->"
    yield ""
    yield from textwrap.wrap(
        "A function is ordinary Python, of the version that the nexlet runs on, less what could lead out of the "
        "sandbox. What is refused is refused when it is deployed, all of it at once, with line, column and what to "
        "write instead; `nexfn check` says the same beforehand. Every example on this page is run by a test.",
        100,
    )
    section = ""
    for row in CONSTRUCTS:
        if row.section != section:
            section = row.section
            yield ""
            yield f"## {section}"
        yield ""
        yield f"### {'Yes' if row.accepted else 'No'}: {_title(row)}"
        yield ""
        if len(row.example) <= 200 or row.accepted:
            yield "```python"
            yield from row.example.splitlines()
            yield "```"
        said = row.why
        if row.instead:
            said += f"{' ' if said else ''}Instead: {row.instead}."
        if row.raises:
            said += f" Raises `{row.raises}` where it runs."
        if said:
            yield ""
            yield from textwrap.wrap(said, 100, break_on_hyphens=False, break_long_words=False)
    yield ""
    yield "## Names that are never attributes"
    yield ""
    shown = ", ".join(f"`{name}`" for name in sorted(names.ALWAYS_REFUSED))
    yield from textwrap.wrap(shown, 100, break_on_hyphens=False, break_long_words=False)


def _title(row: Construct) -> str:
    return row.name if " " in row.name else f"`{row.name}`"


if __name__ == "__main__":
    import sys

    sys.stdout.write(document())
