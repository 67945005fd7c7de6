"""What context.env is made of: plain values, secrets, sealed values, and how each can be refused."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from pydantic import SecretStr

from nexlet_functions.functions.environment import MAX_ENVIRONMENT, open_environment, seal_environment, secret_values
from nexlet_functions.functions.keys import CurveKey
from nexlet_functions.functions.refusals import Refusal
from nexlet_functions.runner.secrets import SecretNotFound
from nexlet_models.start_request import SealedEnvironment, StartRequest, parse_start_request

KEY, SENDER = CurveKey.generate(), CurveKey.generate()


class Secrets:
    """A store of one namespace, which remembers what it was asked."""

    def __init__(self, **values: str) -> None:
        self.values = values
        self.asked: list[tuple[str, str]] = []

    async def get_namespace_secret(self, namespace: str, key: str) -> SecretStr:
        self.asked.append((namespace, key))
        if key not in self.values:
            raise SecretNotFound(f"no secret {key!r} of namespace {namespace!r}")
        return SecretStr(self.values[key])


def sealed(content: object, *, recipient: CurveKey = KEY) -> dict[str, str]:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    box = base64.b64encode(SENDER.seal(data, recipient.public)).decode()
    return {"encrypted_by": SENDER.public, "base64_encrypted_env": box}


def request(**keys: Any) -> StartRequest:
    return parse_start_request(json.dumps({"source": "x = 1", **keys}))


async def opened(secrets: Secrets | None = None, /, **keys: Any) -> dict[str, str]:
    values = await open_environment(request(**keys), "acme", secrets=secrets or Secrets(), key=KEY)
    return {name: value.get_secret_value() for name, value in values.items()}


async def problems(secrets: Secrets | None = None, /, **keys: Any) -> list[str]:
    with pytest.raises(Refusal) as refused:
        await opened(secrets, **keys)
    assert all(problem.advice for problem in refused.value.problems)
    return [f"{problem.location()}: {problem.message}" for problem in refused.value.problems]


async def test_all_three_kinds_make_one_table() -> None:
    secrets = Secrets(API_KEY="k3y")
    table = await opened(
        secrets,
        environment={"GREETING": "hello", "KEY": "secret://API_KEY", "EMPTY": ""},
        encrypted_environment=sealed({"TOKEN": "t0ken"}),
    )
    assert table == {"GREETING": "hello", "KEY": "k3y", "EMPTY": "", "TOKEN": "t0ken"}
    assert secrets.asked == [("acme", "API_KEY")]


async def test_what_is_secret_of_a_table_is_known() -> None:
    asked = request(
        environment={"GREETING": "hello", "KEY": "secret://API_KEY"},
        encrypted_environment=sealed({"TOKEN": "t0ken"}),
    )
    values = await open_environment(asked, "acme", secrets=Secrets(API_KEY="k3y"), key=KEY)
    table = {name: value.get_secret_value() for name, value in values.items()}
    assert secret_values(asked, table) == {"k3y", "t0ken"}


async def test_nothing_makes_an_empty_table() -> None:
    assert await opened() == {}
    assert await opened(encrypted_environment=sealed(b"{}")) == {}


async def test_what_was_sealed_is_taken_as_it_is() -> None:
    secrets = Secrets(API_KEY="k3y")
    assert await opened(secrets, encrypted_environment=sealed({"A": "secret://API_KEY"})) == {"A": "secret://API_KEY"}
    assert secrets.asked == []


async def test_every_secret_that_is_missing_is_named_at_once() -> None:
    found = await problems(Secrets(B="b"), environment={"A": "secret://A", "B": "secret://B", "C": "secret://C"})
    assert [text.partition(":")[0] for text in found] == ["environment.A", "environment.C"]
    assert "secret://C cannot be had: no secret 'C' of namespace 'acme'" in found[1]


async def test_a_name_that_stands_twice_is_refused_without_its_values() -> None:
    found = await problems(
        environment={"TOKEN": "plain-value"}, encrypted_environment=sealed({"TOKEN": "sealed-value"})
    )
    assert found == ["environment.TOKEN: 'TOKEN' is in encrypted_environment, too"]


async def test_what_was_sealed_to_another_key_names_ours() -> None:
    with pytest.raises(Refusal) as refused:
        await opened(encrypted_environment=sealed({"A": "b"}, recipient=CurveKey.generate()))
    (problem,) = refused.value.problems
    assert "another key" in problem.message
    assert KEY.public in problem.advice


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (["a"], "JSON object of texts"),
        ({"A": 1}, "JSON object of texts"),
        ({"A": "ok", "B": None}, "JSON object of texts"),
        (b"\xff", "JSON object of texts"),
        (b'{"A": "\\ud800"}', "JSON object of texts"),
        ({"not a name": "value"}, "a name in it is none"),
        ({"a b": "x", "c=d": "y"}, "2 of its names"),
    ],
)
async def test_what_was_sealed_has_to_be_an_environment(content: object, expected: str) -> None:
    (text,) = await problems(encrypted_environment=sealed(content))
    assert expected in text
    assert "value" not in text


async def test_too_much_is_refused() -> None:
    (text,) = await problems(Secrets(BIG="x" * MAX_ENVIRONMENT), environment={"A": "secret://BIG"})
    assert "larger than 1MiB" in text


async def test_everything_wrong_is_said_together() -> None:
    found = await problems(
        environment={"A": "secret://A"}, encrypted_environment=sealed({"B": "b"}, recipient=CurveKey.generate())
    )
    assert len(found) == 2


async def test_a_failing_store_is_not_taken_for_a_missing_secret() -> None:
    class Broken(Secrets):
        async def get_namespace_secret(self, namespace: str, key: str) -> SecretStr:
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        await opened(Broken(), environment={"A": "secret://A"})


async def test_sealed_anew_only_the_new_recipient_reads_it() -> None:
    other = CurveKey.generate()
    again = seal_environment({"TOKEN": SecretStr("t0ken")}, KEY, other.public)
    assert isinstance(again, SealedEnvironment)
    assert "t0ken" not in repr(again)
    for_other = request(encrypted_environment=again.model_dump())
    values = await open_environment(for_other, "acme", secrets=Secrets(), key=other)
    assert values["TOKEN"].get_secret_value() == "t0ken"
    with pytest.raises(Refusal):
        await open_environment(for_other, "acme", secrets=Secrets(), key=KEY)


async def test_no_text_shows_a_value() -> None:
    values = await open_environment(request(environment={"A": "hunter2"}), "acme", secrets=Secrets(), key=KEY)
    assert "hunter2" not in f"{values} {request(environment={'A': 'hunter2'})!r}"
