"""What newer versions of Python added to the language: understood and let through, or refused in so many words."""

from __future__ import annotations

import sys

import pytest

from nexlet_sandboxes.language import check
from nexlet_sandboxes.program import Program
from tests.support.authored import run

HANDLER = "\ndef handler(event, context):\n    return 1\n"

REFUSED_SINCE: dict[str, tuple[tuple[int, int], str, str]] = {
    "type statement": ((3, 12), "type Number = int\n", "type statements are not available"),
    "function": ((3, 12), "def first[T](items: list[T]) -> T:\n    return items[0]\n", "type parameters are not"),
    "class": ((3, 12), "class Box[T]:\n    pass\n", "type parameters are not available"),
    "bound": ((3, 12), "def f[T: int](x: T) -> T:\n    return x\n", "type parameters are not available"),
    "parameters": ((3, 12), "def f[**P](*a: P.args) -> None:\n    pass\n", "type parameters are not available"),
    "tuple": ((3, 12), "def f[*Ts](*a: *Ts) -> None:\n    pass\n", "type parameters are not available"),
    "default": ((3, 13), "class Box[T = int]:\n    pass\n", "type parameters are not available"),
}


@pytest.mark.parametrize(("since", "source", "message"), REFUSED_SINCE.values(), ids=REFUSED_SINCE.keys())
def test_type_parameters_are_refused_with_what_to_write_instead(
    since: tuple[int, int], source: str, message: str
) -> None:
    problems = check(Program(source=source + HANDLER))
    if sys.version_info < since:
        assert {problem.code for problem in problems} == {"syntax-error"}
        return
    assert {problem.code for problem in problems} == {"construct-refused"}
    assert all(message in problem.message and problem.advice and problem.line == 1 for problem in problems)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="an f-string takes its own quotes from Python 3.12 on")
class TestQuotesWithinFStrings:
    def test_they_work(self) -> None:
        source = (
            'def main():\n    d = {"a": [1, 2]}\n    return f"{d["a"][0]:>{len("xxx")}} {f"{d["a"]!r}"} {"\\n"!r}"\n'
        )
        assert run(source) == "  1 [1, 2] '\\n'"

    @pytest.mark.parametrize("inner", ['d["a"].__class__', 'f"{d["a"]._x}"', '"x".format.__self__', '__import__("os")'])
    def test_what_is_in_them_is_judged_at_its_place(self, inner: str) -> None:
        (problem, *_) = check(Program(source=f'd = {{"a": 1}}\nx = f"{{{inner}}}"\n' + HANDLER))
        assert (problem.code, problem.line) in {("attribute-refused", 2), ("name-refused", 2)}
        assert problem.column > 6
