"""Values that answer as they like, where trusted code takes them: what is used of them is what they hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from nexlet_sandboxes.frames import Splitter
from nexlet_sandboxes.language import modules
from nexlet_sandboxes.texts import plain_int, text_of
from nexlet_sandboxes.worker.context import Context, Environment, Log, Metrics
from nexlet_sandboxes.worker.event import Event, HeaderRefused, Reject, Reply, encode_headers
from nexlet_sandboxes.worker.grants import Calls
from nexlet_sandboxes.worker.output import Output
from tests.support.authored import RecordingHost
from tests.support.language import Host, call, problems_of

CLASSES = """
class S(str):
    def join(self, other): return 1
    def __add__(self, other): return 2
    def __radd__(self, other): return 3
    def encode(self, *args): return b"4"
    def lower(self): return "5"
    def __format__(self, spec): return "6"
    def __mod__(self, other): return 7
class Told(S):
    def __str__(self): return S("told")
class N(int):
    def __int__(self): return 1
    def __index__(self): return 2
    def __le__(self, other): return True
    __ge__ = __lt__ = __gt__ = __le__
"""


def made(expression: str) -> Any:
    return call(f"{CLASSES}\ndef handler(event, context):\n    return {expression}\n")


def test_texts_and_numbers_are_what_they_hold() -> None:
    for expression, text in (("S('a')", "a"), ("Told('a')", "told"), ("'a'", "a"), ("N(5)", "5")):
        taken = text_of(made(expression))
        assert (type(taken), taken) == (str, text)
    assert (type(plain_int(made("N(5)"))), plain_int(made("N(5)"))) == (int, 5)


def test_what_is_printed_is_what_separators_hold() -> None:
    host = Host()
    source = f"{CLASSES}\ndef handler(event, context):\n    print(S('a'), Told('b'), sep=S('-'), end=Told('!'))\n"
    call(source, host=host)
    assert host.written == [("stdout", "a-told" + "told")]
    assert type(host.written[0][1]) is str


def test_what_is_logged_is_what_a_message_holds() -> None:
    host = Host()
    source = (
        f"import logging\n{CLASSES}\ndef handler(event, context):\n    logging.info(S('%s'), 1, extra={{S('a'): 2}})\n"
    )
    call(source, host=host)
    assert host.logged == [("info", "1", {"a": 2})]


def test_a_rejection_is_what_its_parts_hold() -> None:
    reject = Reject(made("N(422)"), made("Told('x')"))
    assert (type(reject.code), reject.code, type(reject.text), reject.text) == (int, 422, str, "told")
    with pytest.raises(ValueError, match="from 400 to 599"):
        Reject(made("N(200)"), "")


def test_headers_are_what_their_names_hold() -> None:
    assert encode_headers({made("S('X-A')"): made("S('b')")}) == b"X-A: b\r\n"
    with pytest.raises(HeaderRefused, match="written by the nexlet"):
        encode_headers({made("S('Nats-Msg-Id')"): "b"})


def logged(*, message: object = "m", **fields: object) -> dict[str, Any]:
    sent: list[bytes] = []
    output = Output(sent.append, rate=1 << 20, max_line=8192)
    output.call = 1
    Log(output.log).info(message, **fields)
    ((_, _, _, _, buffer, start, end),) = Splitter().feed(sent[0])
    line = buffer[start:end]
    read: dict[str, Any] = orjson.loads(line)
    assert line.count(b'"invocation_id"') == 1
    return read


def test_a_line_has_each_name_once() -> None:
    name = call(
        "class S(str):\n    def __eq__(self, other): return False\n    def __hash__(self): return 1\n"
        "def handler(event, context):\n    return S('invocation_id')\n"
    )
    assert logged(**{name: "forged"})["invocation_id"] == "1"


@pytest.mark.parametrize("value", [2**70, "\ud800", [2**70], {(): 1}], ids=["long", "surrogate", "list", "key"])
def test_a_line_is_not_lost_for_what_json_cannot_hold(value: object) -> None:
    assert logged(value=value)["message"] == "m"
    assert logged(value=value)["value"] == str(value).encode("utf-8", "replace").decode()


def context(environment: dict[str, str]) -> Context:
    def never(*args: object) -> None:
        raise AssertionError("not asked for")

    return Context(
        workload_id="W",
        name="n",
        namespace="ns",
        environment=environment,
        log=Log(never),
        metrics=Metrics(never),
        remaining=float,
        calls=Calls(None, lambda event: 0, lambda value: b""),
    )


class TestEnvironment:
    def test_it_reads_as_a_mapping(self) -> None:
        env = context({"A": "1", "B": "2"}).env
        assert (env["A"], env.get("C"), "B" in env, list(env), len(env)) == ("1", None, True, ["A", "B"], 2)
        assert env == {"A": "1", "B": "2"}
        assert isinstance(env, Environment)
        assert env.copy() == {**env} == {"A": "1", "B": "2"}
        assert env | {"C": "3"} == {"A": "1", "B": "2", "C": "3"}

    def test_its_text_tells_no_values(self) -> None:
        assert "secret" not in f"{context({'A': 'secret'}).env!r}"

    @pytest.mark.parametrize("way", ["env == E()", "E() == env", "env | E()", "env != E()"])
    def test_nothing_it_meets_is_given_what_is_behind_it(self, way: str) -> None:
        given = context({"A": "1"})
        source = f"""
class E:
    def take(self, other):
        try:
            other["A"] = "2"
        except TypeError:
            pass
        return True
    __eq__ = __ne__ = __ror__ = take
def handler(event, context):
    env = context.env
    try:
        {way}
    except TypeError:
        pass
"""
        call(source, context=given)
        assert dict(given.env) == {"A": "1"}


def test_no_text_of_what_a_function_is_given_names_our_modules() -> None:
    host = RecordingHost()
    given: list[Any] = [Event, Reply, Reject, Context, context({}), context({}).log, context({}).metrics.count]
    for module in modules.ALLOWED:
        proxy = modules.proxy(module, host)
        given += [getattr(proxy, name) for name in modules.names(module) or ()]
    texts: tuple[Callable[[object], str], ...] = (str, repr)
    assert [text(value) for value in given for text in texts if "nexlet_sandboxes" in text(value)] == []


def test_a_file_may_begin_with_a_byte_order_mark() -> None:
    assert problems_of("\ufeffdef handler(event, context):\n    return 1\n") == []
    (problem,) = problems_of("\ufeffimport os\n")
    assert (problem.line, problem.column, problem.source_line) == (1, 1, "import os")


def test_a_metric_is_bounded() -> None:
    sent: list[bytes] = []
    metrics = Metrics(sent.append)
    metrics.count("orders", 2, currency="EUR")
    assert orjson.loads(sent[0]) == {"name": "orders", "kind": "counter", "value": 2, "labels": {"currency": "EUR"}}
    for name, label in (("x" * 8193, ""), ("x", "y" * 8192)):
        with pytest.raises(ValueError, match="at most 8192 characters"):
            metrics.count(name, 1, label=label)
    assert len(sent) == 1
