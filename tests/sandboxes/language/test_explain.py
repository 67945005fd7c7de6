"""What is told of an author's exception: their own lines, bounded, and without running any of their code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexlet_sandboxes.language import Loaded, load
from nexlet_sandboxes.language.explain import MAX_SUMMARY, MAX_TEXT, Explainer
from nexlet_sandboxes.program import Program
from tests.support.language import Host


def failure(source: str, event: object = None, files: Mapping[str, str] | None = None) -> tuple[Loaded, BaseException]:
    loaded = load(Program(source=source, files=files or {}), Host())
    with pytest.raises(BaseException) as caught:  # every test looks at what was raised
        loaded.handler(event, None)
    return loaded, caught.value


def test_a_traceback_shows_the_authors_lines_only() -> None:
    source = """from decimal import Decimal
from prices import price

def handler(event, context):
    return price(event)
"""
    loaded, error = failure(source, 0, {"prices.py": "import json\n\ndef price(n):\n    return json.loads('{') / n\n"})
    assert loaded.explain(error) == (
        "Traceback (most recent call last):\n"
        '  File "function.py", line 5, in handler\n'
        "    return price(event)\n"
        '  File "prices.py", line 4, in price\n'
        "    return json.loads('{') / n\n"
        "JSONDecodeError: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"
    )
    assert loaded.summary(error) == loaded.explain(error).splitlines()[-1]


def test_causes_are_told_and_suppressed_ones_are_not() -> None:
    source = """def handler(event, context):
    try:
        {}["k"]
    except KeyError as error:
        if event == "cause":
            raise ValueError("no k") from error
        if event == "none":
            raise ValueError("no k") from None
        raise ValueError("no k")
"""
    loaded, error = failure(source, "cause")
    text = loaded.explain(error)
    assert text.index("KeyError: 'k'") < text.index("direct cause") < text.index("ValueError: no k")
    loaded, error = failure(source, "context")
    assert "During handling of the above exception" in loaded.explain(error)
    loaded, error = failure(source, "none")
    assert "KeyError" not in loaded.explain(error)


@pytest.mark.parametrize("args", ["'own'", "'own', ('f', 1, 2, 'line')"])
def test_syntax_errors_whose_text_is_made_of_anything(args: str) -> None:
    source = "class Own(str):\n    def __str__(self): ran.append(1)\nran = []\n\ndef handler(event, context):\n"
    loaded, error = failure(source + f"    own = Own()\n    raise SyntaxError({args})\n".replace("'own'", "own"))
    assert loaded.summary(error).startswith("SyntaxError: ")
    assert loaded.handler.__globals__["ran"] == []


def test_a_chain_that_has_no_end_is_bounded() -> None:
    loaded, error = failure(
        "def handler(event, context):\n    error = last = ValueError(0)\n    for n in range(100):\n        try:\n"
        "            raise ValueError(n) from last\n        except ValueError as this:\n            last = this\n"
        "    raise last\n"
    )
    text = loaded.explain(error)
    assert text.count("ValueError: ") == 5
    assert text.endswith("ValueError: 99")
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    assert Explainer().explain(one).count("ValueError") == 2


def test_deep_recursion_is_cut_in_the_middle() -> None:
    loaded, error = failure("def f(n):\n    return f(n + 1)\n\ndef handler(event, context):\n    return f(0)\n")
    text = loaded.explain(error)
    assert text.count("\n  File ") == 30
    assert "more\n" in text
    assert text.splitlines()[1:3] == ['  File "function.py", line 5, in handler', "    return f(0)"]
    assert len(text) <= MAX_TEXT


HOSTILE = """
ran = []

class Hostile:
    def __str__(self): ran.append("str")
    def __repr__(self): ran.append("repr")
    def __format__(self, spec): ran.append("format")
    def __bool__(self): ran.append("bool")
    def __len__(self): ran.append("len")
    def __iter__(self): ran.append("iter")
    def __eq__(self, other): ran.append("eq")
    def __hash__(self):
        ran.append("hash")
        return 1

class Text(str):
    __str__ = __repr__ = Hostile.format if False else lambda self: ran.append("text")

class Raised(Exception):
    def __str__(self): ran.append("error str")
    def __repr__(self): ran.append("error repr")
    @property
    def args(self): ran.append("args")
    @property
    def text(self): ran.append("text")

class Wrong(UnicodeDecodeError):
    pass

def handler(event, context):
    hostile = {Hostile(): Hostile()}
    ran.clear()
    kind, args = event
    values = {"own": Hostile(), "text": Text("t"), "nested": [hostile, (Hostile(),), {"k": Hostile()}], "dict": hostile}
    values |= {"code": 5, "plain": "p"}
    raise {
        "Raised": Raised, "ValueError": ValueError, "KeyError": KeyError, "OSError": OSError, "SystemExit": SystemExit,
        "SyntaxError": SyntaxError, "StopIteration": StopIteration, "ImportError": ImportError,
    }[kind](*[values[name] for name in args])
"""


@pytest.mark.parametrize(
    "kind", ["Raised", "ValueError", "KeyError", "OSError", "SystemExit", "StopIteration", "ImportError"]
)
@pytest.mark.parametrize(
    "args",
    [
        (),
        ("own",),
        ("text",),
        ("nested",),
        ("dict",),
        ("own", "text"),
        ("text", "text"),
        ("code", "plain", "own"),
        ("code", "plain", "plain", "code", "own"),
    ],
)
def test_none_of_the_authors_code_runs(kind: str, args: tuple[str, ...]) -> None:
    loaded, error = failure(HOSTILE, (kind, args))
    ran: list[str] = loaded.handler.__globals__["ran"]
    ran.clear()
    assert loaded.summary(error).startswith(kind)
    assert loaded.explain(error).splitlines()[-1] == loaded.summary(error)
    assert ran == []


@pytest.mark.parametrize(
    ("expression", "summary"),
    [
        ("ValueError('text')", "ValueError: text"),
        ("ValueError()", "ValueError"),
        ("ValueError(1, 'two', b'3', None, 1.5)", "ValueError: (1, 'two', b'3', None, 1.5)"),
        ("KeyError('k')", "KeyError: 'k'"),
        ("OSError(2, 'No such thing')", "FileNotFoundError: [Errno 2] No such thing"),
        ("ValueError('two\\nlines')", "ValueError: two lines"),
        ("ValueError([1, {'a': (2,)}])", "ValueError: [1, {'a': (2,)}]"),
        ("ValueError(list(range(100)))", "ValueError: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ...]"),
        ("ValueError(object())", "ValueError: <object>"),
        ("ValueError([[[[[1]]]]])", "ValueError: [[[<list>]]]"),
        ("ValueError(1 << 5000)", "ValueError: <int of 5001 bits>"),
        ("SystemExit(3)", "SystemExit: 3"),
        ("E('own')", "E: own"),
        ("E('own', 2)", "E: ('own', 2)"),
    ],
)
def test_summaries(expression: str, summary: str) -> None:
    loaded, error = failure(f"class E(Exception):\n    pass\n\ndef handler(event, context):\n    raise {expression}\n")
    assert loaded.summary(error) == summary


@pytest.mark.parametrize(
    "expression",
    [
        "ValueError('x' * 10_000_000)",
        "ValueError(b'x' * 10_000_000)",
        "KeyError('\\n' * 10_000_000)",
        "ValueError(['x' * 1_000_000] * 100)",
        "ValueError({'k' * 1_000_000: 'v' * 1_000_000})",
        "ValueError(10 ** 5000)",
        "ValueError(*range(1_000_000))",
        "ValueError('\\ud800')",
        "note('n' * 1_000_000, 100)",
    ],
)
def test_everything_is_bounded(expression: str) -> None:
    source = f"""
def note(text, count):
    error = ValueError("noted")
    for _ in range(count):
        error.add_note(text)
    return error

def handler(event, context):
    raise {expression}
"""
    loaded, error = failure(source)
    assert len(loaded.summary(error)) <= MAX_SUMMARY
    assert "\n" not in loaded.summary(error)
    assert len(loaded.explain(error)) <= MAX_TEXT


def test_long_lines_and_names_are_cut() -> None:
    name = "n" * 5000
    long_line = f"    x = '{'y' * 5000}'; raise ValueError(event)"
    source = f"def {name}(event):\n{long_line}\n\ndef handler(event, context):\n    {name}(event)\n"
    loaded, error = failure(source, 1)
    assert max(len(line) for line in loaded.explain(error).splitlines()) < 250


def test_notes_are_told() -> None:
    source = (
        "def handler(event, context):\n    error = ValueError('v')\n    error.add_note('look here')\n    raise error\n"
    )
    loaded, error = failure(source)
    assert loaded.explain(error).endswith("ValueError: v\nlook here")


def test_frames_are_the_authors_by_what_they_run_in_not_by_their_name() -> None:
    """A file of the author's may be called as one of ours, and theirs is the only one that is shown."""
    namespace: dict[str, Any] = {}
    exec(compile("def trusted(f):\n    f()\n", "function.py", "exec"), namespace)
    host = Host(builtins={"trusted": namespace["trusted"]})
    loaded = load(
        Program(source="def handler(event, context):\n    trusted(lambda: 1 / 0)\n"),
        host,
    )
    with pytest.raises(ZeroDivisionError) as caught:
        loaded.handler(None, None)
    assert [line for line in loaded.explain(caught.value).splitlines() if "File" in line] == [
        '  File "function.py", line 2, in handler',
        '  File "function.py", line 2, in <lambda>',
    ]


@given(
    st.recursive(
        st.none() | st.text() | st.binary() | st.integers() | st.floats(), lambda s: st.lists(s) | st.tuples(s)
    )
)
def test_whatever_an_exception_holds_it_can_be_told(value: object) -> None:
    explainer = Explainer()
    for error in (ValueError(value), KeyError(value), OSError(value, value), SystemExit(value)):
        assert len(explainer.summary(error)) <= MAX_SUMMARY
        assert len(explainer.explain(error)) <= MAX_TEXT
