from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexlet_models import subjects
from nexlet_models.errors import InvalidToken, ModelError
from nexlet_models.subjects import matches, overlaps, tokens, valid_name, valid_subject, valid_token, valid_trigger

# Few letters, so that subjects and patterns meet often.
token = st.sampled_from(["a", "b", "c"])
subject = st.lists(token, min_size=1, max_size=5).map(".".join)
pattern = st.tuples(
    st.lists(st.one_of(token, st.just("*")), min_size=0, max_size=4), st.sampled_from([["a"], ["*"], [">"]])
).map(lambda parts: ".".join(parts[0] + parts[1]))


def builders() -> list[Callable[..., str]]:
    return [
        function
        for name, function in vars(subjects).items()
        if inspect.isfunction(function)
        and name in subjects.__all__
        and name not in ("valid_name", "valid_subject", "valid_token", "valid_trigger", "overlaps", "matches", "tokens")
    ]


@pytest.mark.parametrize("build", builders(), ids=lambda build: build.__name__)
def test_each_subject_says_its_pattern(build: Callable[..., str]) -> None:
    names = {
        "nexus": "NEXUS", "node": "NODE", "agent": "AGENT", "workload": "WID", "namespace": "NS", "bid": "BID",
        "stream": "stdout", "source": "FROM", "name": "NAME",
    }  # fmt: skip
    built = build(*(names[name] for name in inspect.signature(build).parameters))
    assert build.__doc__ is not None
    assert f"`{built}`" in build.__doc__


@pytest.mark.parametrize("build", builders(), ids=lambda build: build.__name__)
def test_what_is_not_one_token_builds_no_subject(build: Callable[..., str]) -> None:
    parameters = list(inspect.signature(build).parameters)
    for number in range(len(parameters)):
        for bad in ("a.b", "", "a b", ">", "a*", "a\r\n", "\x00"):
            given = ["stdout" if name == "stream" else "x" for name in parameters]
            given[number] = bad
            with pytest.raises(InvalidToken):
                build(*given)


@pytest.mark.parametrize(
    "call",
    [
        lambda: subjects.logs("*", "w", "stdout"), lambda: subjects.logs("ns", "*", "stdout"),
        lambda: subjects.metrics("ns", "*"), lambda: subjects.event("*", "X"), lambda: subjects.ingress("*"),
    ],
)  # fmt: skip
def test_nothing_is_published_on_a_wildcard(call: Callable[[], str]) -> None:
    with pytest.raises(InvalidToken, match="wildcard"):
        call()


def test_a_log_has_two_streams() -> None:
    with pytest.raises(InvalidToken, match="stdout or stderr"):
        subjects.logs("ns", "w", "metrics")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"), ("a..b", "empty token"), (".a", "begins with '.'"), ("a.", "ends with '.'"),
        (".", "begins with '.'"),
        ("a b", "U+0020"), ("a\tb", "white space"), ("a\r\nb", "white space"), ("a\x00b", "control character"),
        ("a\u200bb", "invisible"), ("a\u202eb", "right-to-left override"), ("a\u00a0b", "white space"),
        ("a\ud800", "U+D800"),
        ("a.>.b", "before its last token"), ("a.b*", "within the token 'b*'"), ("a.>>", "within the token"),
        ("a" * 1025, "longer than 1024 bytes"), ("é" * 513, "longer than 1024 bytes"),
    ],
)  # fmt: skip
def test_subjects_refused(text: str, reason: str) -> None:
    said = valid_subject(text, wildcards=True)
    assert said is not None
    assert reason in said


def test_wildcards_where_there_may_be_none() -> None:
    assert valid_subject("a.*.b", wildcards=True) is None
    assert "not allowed here" in (valid_subject("a.*.b", wildcards=False) or "")
    assert "not allowed here" in (valid_subject("a.>", wildcards=False) or "")
    assert valid_subject("größe.b-c_d.1", wildcards=False) is None
    assert valid_token("größe") is None
    assert valid_token("a.b") is not None


@pytest.mark.parametrize("name", ["greet", "order-totals", "orders.eu", "A_1", "1"])
def test_names(name: str) -> None:
    assert valid_name(name) is None


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "is empty"), ("my demo", "white space"), ("demo!", "has '!' in it"), ("größe", "has 'ö' in it"),
        ("a/b", "has '/' in it"), ("*", "wildcard"), ("a..b", "empty token"), ("-a", "begins with '-'"),
        ("demo\n", "white space"),
    ],
)  # fmt: skip
def test_names_refused(name: str, reason: str) -> None:
    assert reason in (valid_name(name) or "")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (">", "first token must be literal"), ("*", "first token must be literal"),
        ("*.a", "first token must be literal"),
        ("$SYS.>", "'$SYS' belongs to NATS or Nex"), ("$NEX.x", "belongs"), ("$", "belongs"), ("_INBOX.a", "replies"),
        ("_INBOX.>", "replies"), ("_R_.a", "server"), ("a..b", "empty token"),
    ],
)  # fmt: skip
def test_triggers_refused(text: str, reason: str) -> None:
    said = valid_trigger(text)
    assert said is not None
    assert reason in said


@pytest.mark.parametrize("text", ["a", "orders.created", "orders.*", "orders.>", "a.*.c.>", "_INBOXES.a", "a.$b", "_x"])
def test_triggers(text: str) -> None:
    assert valid_trigger(text) is None


@given(st.text(max_size=40))
def test_any_text_is_a_subject_or_refused_with_a_reason(text: str) -> None:
    reason = valid_subject(text, wildcards=True)
    if reason is None:
        assert all(text.split("."))
        assert "\r" not in text
        assert "\n" not in text
    else:
        assert reason.split()[0] in ("is", "has", "begins", "ends")


@given(pattern, subject)
def test_matching_is_what_the_wildcards_say(pattern: str, subject: str) -> None:
    wanted, given = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        expected = len(given) >= len(wanted)
        wanted = wanted[:-1]
        given = given[: len(wanted)]
    else:
        expected = len(given) == len(wanted)
    expected = expected and all(a in ("*", b) for a, b in zip(wanted, given, strict=False))
    assert matches(pattern, subject) is expected


@given(pattern, pattern, subject)
def test_patterns_that_share_a_subject_overlap(one: str, other: str, subject: str) -> None:
    assert overlaps(one, other) == overlaps(other, one)
    if matches(one, subject) and matches(other, subject):
        assert overlaps(one, other)


@given(pattern, pattern)
def test_patterns_that_overlap_share_a_subject(one: str, other: str) -> None:
    if not overlaps(one, other):
        return
    left, right = one.split("."), other.split(".")
    length = max(len(left), len(right))
    pick = []
    for number in range(length):
        a = left[number] if number < len(left) else ">"
        b = right[number] if number < len(right) else ">"
        pick.append(next((token for token in (a, b) if token not in ("*", ">")), "x"))
    assert matches(one, ".".join(pick))
    assert matches(other, ".".join(pick))


@given(pattern, subject)
def test_tokens_fill_the_pattern(pattern: str, subject: str) -> None:
    if not matches(pattern, subject):
        with pytest.raises(ModelError, match="does not match"):
            tokens(pattern, subject)
        return
    found = iter(tokens(pattern, subject))
    assert ".".join(next(found) if part in ("*", ">") else part for part in pattern.split(".")) == subject
    assert list(found) == []
