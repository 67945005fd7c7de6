"""Programs of one file and of several: what a check finds, what loading runs, and how it fails."""

from __future__ import annotations

import sys

import pytest

from nexlet_models.problems import render
from nexlet_sandboxes.language import check, load
from nexlet_sandboxes.language import modules as allowed
from nexlet_sandboxes.outcomes import LoadRefused
from nexlet_sandboxes.program import Program
from tests.support.language import HANDLER, Host, call, problems_of, refusal

# The handler.


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def handle(event, context): pass", "no handler named 'handler'; the module defines: handle"),
        ("", "no handler named 'handler'; the module defines: nothing"),
        ("import json\nx = 1", "no handler named 'handler'; the module defines: json, x"),
        ("def handler(event): pass", "'handler' cannot be called with (event, context): it takes 1 argument"),
        ("def handler(): pass", "'handler' cannot be called with (event, context): it takes 0 arguments"),
        ("def handler(a, b, c): pass", "'handler' cannot be called with (event, context): it needs 3 arguments"),
        ("def handler(a, b, *, c, d=1): pass", "'handler' cannot be called with (event, context): it needs c by name"),
        (HANDLER + HANDLER, "'handler' is defined a second time; the first is on line 1"),
        ("async def handler(event, context): pass", "async functions are not available"),
        (
            "def handler(event, context):\n    yield 1",
            "'handler' is a generator: what a function answers is what it returns",
        ),
        (
            "def handler(event, context):\n    for n in event.json():\n        yield from [n]",
            "'handler' is a generator: what a function answers is what it returns",
        ),
    ],
)
def test_handlers_that_cannot_be_called(source: str, message: str) -> None:
    (problem,) = check(Program(source=source))
    assert problem.message == message
    assert problem.advice


@pytest.mark.parametrize(
    "source",
    [
        HANDLER,
        "def handler(event, context, more=None, *, other=1): pass",
        "def handler(*args): pass",
        "def handler(event, /, *rest, **named): pass",
        "handler = lambda event, context: 1",
        "def main(event, context): pass\nhandler = main",
        "if True:\n    def handler(event, context): pass",
        "import functools\n@functools.wraps(print)\ndef handler(event): pass",
        "from prices import handler",
        "class Handler:\n    def __call__(self, event, context): return 1\nhandler = Handler()",
        "def handler(event, context):\n    def numbers():\n        yield 1\n    return list(numbers())",
    ],
)
def test_handlers_that_can(source: str) -> None:
    program = Program(source=source, files={"prices.py": HANDLER})
    assert check(program) == []
    assert callable(load(program, Host()).handler)


@pytest.mark.parametrize(
    "source",
    [
        "def numbers(event, context):\n    yield 1\nhandler = numbers",
        "def same(f):\n    return f\n@same\ndef handler(event, context):\n    yield 1",
        "from prices import handler",
    ],
)
def test_generators_by_another_way_are_found_when_they_are_loaded(source: str) -> None:
    program = Program(source=source, files={"prices.py": "def handler(event, context):\n    yield 1"})
    assert check(program) == []
    with pytest.raises(LoadRefused) as refused:
        load(program, Host())
    (problem,) = refused.value.problems
    assert problem.message == "'handler' is a generator: what a function answers is what it returns"
    assert "return one value" in problem.advice


def test_loading_takes_a_handler_as_it_is() -> None:
    assert load(Program(source="def main():\n    return 1\n", handler="main"), Host()).handler() == 1


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("handler = 1", "'handler' is a int, not a function"),
        ("def handle(e, c): pass", "no handler named 'handler'; the module defines: handle"),
        ("def handler(e, c): pass\ndel handler", "no handler named 'handler'; the module defines: nothing"),
    ],
)
def test_a_handler_that_is_not_there_after_loading(source: str, message: str) -> None:
    (problem,) = refusal(source)
    assert problem.message == message


@pytest.mark.parametrize("name", ["_x", "__builtins__", "__name__"])
def test_what_is_not_the_authors_is_no_handler(name: str) -> None:
    assert check(Program(source=HANDLER, handler=name))
    assert refusal(HANDLER, handler=name)


# What the module raises.


@pytest.mark.parametrize(
    ("source", "message", "line"),
    [
        ("x = 1\nraise ValueError('no')\n", "the module raised ValueError: no", 2),
        ("def f():\n    return {}['k']\nf()\n", "the module raised KeyError: 'k'", 2),
        ("raise SystemExit(0)", "the module raised SystemExit: 0", 1),
        ("raise KeyboardInterrupt", "the module raised KeyboardInterrupt", 1),
        ("def f(): f()\nf()", "the module raised RecursionError: maximum recursion depth exceeded", 1),
        ("class E(BaseException): pass\nraise E('own')", "the module raised E: own", 2),
    ],
)
def test_a_module_that_raises(source: str, message: str, line: int) -> None:
    (problem,) = refusal(source)
    assert problem.message.startswith(message)
    assert (problem.code, problem.place, problem.line) == ("load-raised", "function.py", line)


def test_memory_that_runs_out_passes_through() -> None:
    with pytest.raises(MemoryError):
        load(Program(source="raise MemoryError"), Host())


def test_a_helper_that_raises_is_blamed_itself() -> None:
    (problem,) = refusal("import prices\n", files={"prices.py": "x = 1\n1 / 0\n"})
    assert problem.location() == "prices.py:2"


# Imports.


def test_a_refused_import_names_advice_and_what_is_allowed() -> None:
    (problem,) = problems_of("import os")
    assert problem.message == "import of 'os' is not allowed here"
    assert (problem.column, problem.end_column) == (1, 10)
    assert problem.advice.startswith("a function reads its settings from context.env; modules allowed: abc, base64, ")
    assert "did you mean 'json'?" in problems_of("import jsn")[0].advice
    assert problems_of("import httpx")[0].advice.startswith("context.http asks the hosts that grants.http ")


def test_what_may_be_imported_is_listed_once() -> None:
    advice = [problem.advice for problem in problems_of("import os\nimport numpy\nfrom shutil import copy")]
    assert [text.count("modules allowed: ") for text in advice] == [1, 0, 0]
    assert advice[2] == "a function has no files"


@pytest.mark.parametrize(
    "source",
    [
        "import os",
        "import os.path",
        "import os as math",
        "import json, sys",
        "from os import environ",
        "from os.path import join",
        "import collections.abc.sys",
        "import json.codecs",
        "from json import codecs",
        "from urllib import request",
        "import urllib.request",
        "from collections.abc import sys",
        "import nexlet_functions.settings",
        "from nexlet_functions import settings",
        "from nexlet_functions.authoring import os",
        "import nexlet_sandboxes",
        "import builtins",
        "import _thread",
        "from . import json",
        "from .json import loads",
        "from __future__ import division_of_labour",
        "from prices import missing",
        "from prices import _rate",
        "import function.prices",
        "def f():\n    import os",
        "try:\n    import os\nexcept ImportError: pass",
        "if False:\n    import os",
    ],
)
def test_imports_that_are_refused(source: str) -> None:
    problems = problems_of(source, files={"prices.py": "rate = 1"})
    assert {problem.code for problem in problems} == {"import-refused"}


@pytest.mark.parametrize("name", ["os", "sys", "json.codecs", "urllib.request", "function.prices", "", "_io"])
def test_the_import_hook_is_a_wall_of_its_own(name: str) -> None:
    """What the check of the sources would have missed: the statement is made when it is too late for the check."""
    host = Host()
    loaded = load(Program(source="import json\ndef handler(event, context):\n    import json\n    return json\n"), host)
    hook = loaded.handler.__globals__["__builtins__"]["__import__"]
    for fromlist in ((), ("path",)):
        with pytest.raises(ImportError):
            hook(name, None, None, fromlist, 0)
    with pytest.raises(ImportError):
        hook("json", None, None, ("codecs",), 0)
    with pytest.raises(ImportError):
        hook("collections", None, None, ("sys",), 0)
    with pytest.raises(ImportError):
        hook("json", None, None, (), 1)


def test_dotted_modules() -> None:
    source = """
import urllib.parse
import collections.abc as abstract
from collections import abc

def handler(event, context):
    return [urllib.parse.quote(" "), isinstance([], abstract.Sequence), abc is abstract]
"""
    assert call(source) == ["%20", True, True]


def test_modules_are_proxies() -> None:
    source = "import json\nimport math as m\n\ndef handler(event, context):\n    return [json, m]\n"
    for module in call(source):
        assert isinstance(module, allowed.ModuleProxy)


def test_modules_of_the_host() -> None:
    authoring = {"Reply": dict, "Reject": ValueError, "Event": str, "Context": int}
    host = Host(modules={"nexlet_functions.authoring": authoring})
    source = """
import nexlet_functions.authoring
from nexlet_functions.authoring import Reject

def handler(event, context):
    return [Reject, nexlet_functions.authoring.Reply]
"""
    assert check(Program(source=source)) == []
    assert call(source, host=host) == [ValueError, dict]


def test_modules_of_the_operator() -> None:
    source = "import colorsys\nfrom colorsys import rgb_to_hsv\n\n" + HANDLER.replace("None", "rgb_to_hsv(1, 1, 1)")
    assert problems_of(source)
    program = Program(source=source, modules={"colorsys": ("rgb_to_hsv",)})
    assert check(program) == []
    assert load(program, Host()).handler(None, None) == (0.0, 0.0, 1)
    assert check(Program(source="from colorsys import hsv_to_rgb\n" + source, modules=program.modules))


def test_a_package_gives_nothing_but_the_module_that_is_allowed() -> None:
    host = Host(modules={"nexlet_functions.authoring": {"Reply": dict}})
    (problem,) = refusal("import nexlet_functions\nnexlet_functions.settings\n", host)
    assert "no attribute 'settings'" in problem.message


def test_each_program_has_random_numbers_of_its_own() -> None:
    source = "import random\n\ndef handler(event, context):\n    random.seed(event)\n    return random.random()\n"
    seeded = call(source, 1)
    unseeded = "import random\nx = random.random()\ndef handler(event, context):\n    return x\n"
    assert seeded == call(source, 1)
    assert len({call(unseeded) for _ in range(3)}) == 3


# Helper files.


def test_helpers_run_once_and_live() -> None:
    files = {
        "prices.py": "from rates import tax\ncount = 0\ndef price(n):\n global count\n count += 1\n return n + tax\n",
        "rates.py": "print('once')\ntax = 2\n",
    }
    source = """
import prices
from prices import price
import rates

def handler(event, context):
    import rates as again
    return [price(1), prices.price(2), prices.count, again is rates, repr(prices)]
"""
    host = Host()
    assert call(source, host=host, files=files) == [3, 4, 2, True, "<module 'prices'>"]
    assert host.written == [("stdout", "once\n")]
    assert not {name for name in sys.modules if name.partition(".")[0] in ("function", "prices", "rates")}


def test_helpers_may_import_each_other_and_the_function() -> None:
    files = {
        "a.py": "import b\nimport function\nx = 1\ndef y():\n    return b.z + function.w\n",
        "b.py": "import a\nz = 2\n",
    }
    assert call("import a\nw = 4\ndef handler(event, context):\n    return a.x + a.y()\n", files=files) == 7


def test_a_cycle_that_needs_what_is_not_there_yet() -> None:
    files = {"a.py": "from b import z\nx = 1\n", "b.py": "from a import x\nz = 2\n"}
    (problem,) = refusal("import a\n", files=files)
    assert "cannot import name 'x' from 'a'" in problem.message
    assert problem.location() == "b.py:1"


def test_a_helper_that_failed_may_be_imported_again() -> None:
    source = """
import state

def handler(event, context):
    for _ in range(2):
        try:
            import shaky
        except ValueError:
            state.tries.append(1)
    return shaky.fine
"""
    files = {
        "state.py": "tries = []\n",
        "shaky.py": "import state\nif not state.tries:\n    raise ValueError\nfine = 'yes'\n",
    }
    assert call(source, files=files) == "yes"


def test_helpers_are_held_to_the_same_policy() -> None:
    files = {"prices.py": "x = ().__class__\n"}
    (problem,) = problems_of("import prices", files=files)
    assert problem.location() == "prices.py:1:8"
    assert refusal(HANDLER, files=files) == (problem,)


def test_helpers_are_not_written_to() -> None:
    source = "import prices\n\ndef handler(event, context):\n    prices.rate = 2\n"
    with pytest.raises(TypeError, match="cannot be written"):
        call(source, files={"prices.py": "rate = 1"})


def test_what_a_helper_hides_stays_hidden() -> None:
    source = "import prices\n\ndef handler(event, context):\n    return getattr(prices, event, 'absent')\n"
    for name in ("__builtins__", "__dict__", "__name__", "_type_", "__import__"):
        assert call(source, name, files={"prices.py": "rate = 1"}) == "absent"


@pytest.mark.parametrize(
    ("filename", "message"),
    [
        ("json.py", "the file hides the module 'json' that functions import"),
        ("urllib.py", "the file hides the module 'urllib' that functions import"),
        ("nexlet_functions.py", "the file hides the module 'nexlet_functions' that functions import"),
        ("colorsys.py", "the file hides the module 'colorsys' that functions import"),
        ("function.py", "the file has the name of the function's own module"),
        ("prices.txt", "the file's name is not one that can be imported"),
        ("a-b.py", "the file's name is not one that can be imported"),
        ("_x.py", "the file's name is not one that can be imported"),
        ("a/b.py", "the file's name is not one that can be imported"),
    ],
)
def test_files_whose_names_will_not_do(filename: str, message: str) -> None:
    program = Program(source=HANDLER, files={filename: "x = 1"}, modules={"colorsys": ("rgb_to_hsv",)})
    (problem,) = check(program)
    assert (problem.message, problem.place) == (message, filename)


def test_two_programs_share_nothing() -> None:
    source = "count = []\n\ndef handler(event, context):\n    count.append(1)\n    return len(count)\n"
    one, other = (load(Program(source=source), Host()) for _ in range(2))
    assert [one.handler(None, None), one.handler(None, None), other.handler(None, None)] == [1, 2, 1]
    assert one.handler.__globals__["__builtins__"] is not other.handler.__globals__["__builtins__"]


# Sources that do not parse, or are made to hurt.


@pytest.mark.parametrize(
    ("source", "line", "message"),
    [
        ("x = (", 1, "invalid syntax: '(' was never closed"),
        ("x = = 1", 1, "invalid syntax"),
        ("if x:\npass", 2, "expected an indented block"),
        ("def f():\n    nonlocal x\n", 2, "no binding for nonlocal 'x' found"),
        ("def f(a, a): pass", 1, "duplicate argument 'a'"),
        ("return 1", 1, "'return' outside function"),
        ("break", 1, "'break' outside loop"),
        ("def f():\n    x = 1\n    global x\n", 3, "name 'x' is assigned to before global declaration"),
        ("await x", 1, "outside"),
        ("x = 0777", 1, "leading zeros"),
        ("x = '\ud800'", 1, "lone surrogate, U+D800"),
        ("x = 1\n\ny = '\udfff'", 3, "lone surrogate, U+DFFF"),
        ("x = '\0'", 0, "null byte"),
        ("x = 1" + "0" * 5000, 1, "Exceeds the limit"),
    ],
)
def test_sources_that_do_not_parse(source: str, line: int, message: str) -> None:
    problems = check(Program(source=source + "\n" + HANDLER))
    assert problems[0].code == "syntax-error"
    assert problems[0].line in (line, 0) if "null" in message else problems[0].line == line
    assert message in problems[0].message
    assert refusal(source + "\n" + HANDLER) == tuple(problems)


BOMBS = {
    "parentheses": "x = " + "(" * 5000 + ")" * 5000,
    "open parentheses": "(" * 500_000,
    "mixed brackets": "x = " + "[{(" * 3000,
    "minus": "x = " + "-" * 500_000 + "1",
    "not": "x = " + "not " * 200_000 + "1",
    "mixed prefixes": "x = " + "- ~ not " * 50_000 + "1",
    "sum": "x = " + "1+" * 300_000 + "1",
    "power": "x = " + "2**" * 100_000 + "1",
    "attributes": "x = a" + ".b" * 300_000,
    "calls": "x = a" + "()" * 300_000,
    "items": "x = a" + "[0]" * 300_000,
    "conditions": "x = " + "1 if 1 else " * 50_000 + "1",
    "lambdas": "x = " + "lambda: " * 50_000 + "1",
    "comparisons in brackets": "x = " + "(1 <" * 150 + "1" + ")" * 150,
    "elif": "if 1: pass\n" + "elif 1: pass\n" * 20_000,
    "loops": "".join(" " * n + "for x in y:\n" for n in range(99)) + " " * 99 + "pass\n",
    "comprehension": "x = [1 " + "for x in y " * 50_000 + "]",
    "starred": "x = [" + "*[" * 150 + "]" * 150 + "]",
    "walrus": "x = " + "(y := " * 150 + "1" + ")" * 150,
    "tuple": "x = (" + "1," * 500_000 + ")",
    "short functions": "def f():\n pass\n" * 60_000,
    "decorators": "@a\n" * 300_000 + "def f(): pass\n",
    "assignments": "a = " * 250_000 + "1",
    "f-strings": "x = " + "f'{" * 300 + "1" + "}'" * 300,
    "f-string formats": "x = f'" + "{1:" * 300 + "}" * 300 + "'",
    "f-string of many": 'x = f"' + "{a+a}" * 120_000 + '"',
    "f-string around code": 'x = f"{"a" + ' + "a + " * 100_000 + '"b"}"',
    "patterns": "match x:\n case " + "[" * 150 + "]" * 150 + ": pass\n",
    "or patterns": "match x:\n case " + "1|" * 300_000 + "1: pass\n",
    "annotations": "x: " + "a." * 300_000 + "a",
    "too large": "#" * (1024 * 1024 + 1),
    "too many bytes": "é" * (600 * 1024),
    "unclosed strings": '"""' + '\n\\"""' * 150_000,
    "indents": "".join(" " * n + "if 1:\n" for n in range(1000)) + " " * 1000 + "pass\n",
    "yields": "def f():\n x = " + "(yield " * 150 + "1" + ")" * 150,
}


def test_long_texts_are_no_bombs() -> None:
    text = "word, " * 100_000
    assert check(Program(source=f'# {text}\nx = """{text}"""\ny = f"{{x}} {{1}}"\n' + HANDLER)) != []  # too large
    text = text[:300_000]
    assert check(Program(source=f'# {text}\nx = """{text}"""\ny = f"{{x}} {{1}}"\nz = "{text}"\n' + HANDLER)) == []


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
def test_sources_that_are_made_to_hurt(bomb: str) -> None:
    problems = check(Program(source=bomb + "\n" + HANDLER))
    assert {problem.code for problem in problems} <= {"syntax-error", "nested-too-deeply", "source-too-large"}
    assert problems


@pytest.mark.parametrize(
    "source",
    [
        "x = 9 ** 99 ** 9999 if False else 1",
        "def f():\n    return 10 ** (10 ** 8)\n",
        "def f():\n    return 'x' * (1 << 40) + 'y'\n",
        "def f():\n    return (1, 2) * (1 << 40)\n",
        "def f():\n    return 1 << (1 << 40)\n",
        "def f():\n    return '%99999999999d' % 1\n",
        "def f():\n    return b'x' * 10 ** 12\n",
        "def f():\n    return -(2 ** 10 ** 9)\n",
    ],
)
def test_constants_are_not_computed_at_compile_time(source: str) -> None:
    assert check(Program(source=source + "\n" + HANDLER)) == []


def test_a_coding_cookie_means_nothing() -> None:
    assert call("# coding: utf-7\nx = 'é+AGE-'\ndef handler(e, c):\n    return x\n") == "é+AGE-"


def test_ordinary_size_is_no_bomb() -> None:
    table = "TABLE = {\n" + "".join(f"    'key-{n}': ({n}, 'value {n}'),\n" for n in range(5000)) + "}\n"
    text = "TEXT = '''" + "many words in one text, line by line\n" * 20_000 + "'''\n"
    chain = "if x == 0:\n    y = 0\n" + "".join(f"elif x == {n}:\n    y = {n}\n" for n in range(1, 60))
    total = "total = " + " + ".join(["1"] * 100)
    assert check(Program(source=f"x = 3\n{table}{text}{chain}{total}\n{HANDLER}")) == []


def test_warnings_of_the_compiler_are_no_refusals() -> None:
    assert check(Program(source="x = '\\d' is 1\nassert (1, 'always')\n" + HANDLER)) == []


def test_a_refusal_reads_well() -> None:
    with pytest.raises(LoadRefused) as caught:
        load(Program(source="def handler(event, context):\n    return event.__class__\n"), Host())
    assert render("greet", caught.value.problems) == (
        "greet refused: 1 problem\n"
        "  function.py:2:18  attribute names may not begin with '_'\n"
        "    2 |     return event.__class__\n"
        "      |                  ^^^^^^^^^\n"
        "      isinstance(value, SomeClass) asks what it is, type(value).__name__ gives the name of its class"
    )
