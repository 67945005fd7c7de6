"""The start request: what the schema says and what the models say is the same, and every problem is named at once."""

from __future__ import annotations

import json
import time
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nexlet_models import start_request
from nexlet_models._forms import ACCESS, METHODS
from nexlet_models.durations import parse_duration
from nexlet_models.problems import Problem, render
from nexlet_models.sizes import parse_size
from nexlet_models.start_request import (
    PROFILES,
    GrantsRequest,
    HttpGrant,
    IntervalTrigger,
    LimitsRequest,
    ScheduleTrigger,
    SealedEnvironment,
    StartRequest,
    StartRequestRefused,
    StreamTrigger,
    Trigger,
    WorkersRequest,
    open_schema,
    parse_start_request,
    schema,
    trigger_kinds,
)

JUDGE = jsonschema_rs.Draft7Validator(schema())
OPEN_JUDGE = jsonschema_rs.Draft7Validator(json.loads(open_schema()))
SOURCE = "def handler(event, context):\n    return None\n"

# What the models refuse and a schema cannot: between keys, in Python's own words, in Unicode's categories.
BEYOND = {
    "duplicate-key", "duplicate-trigger", "overlapping-triggers", "comes-back", "bad-schedule", "bad-timezone",
    "bad-interval",
}  # fmt: skip


def problems_of(request: object) -> tuple[Problem, ...]:
    text = request if isinstance(request, str) else json.dumps(request)
    try:
        parse_start_request(text)
    except StartRequestRefused as refused:
        return refused.problems
    return ()


def refusal(request: object) -> dict[str, str]:
    """Place to code, of every problem."""
    return {problem.place: problem.code for problem in problems_of(request)}


# --- the schema ----------------------------------------------------------------------------------------------------


def test_the_schema_is_a_schema() -> None:
    assert jsonschema_rs.meta.is_valid(schema())
    assert jsonschema_rs.meta.is_valid(json.loads(open_schema()))


@pytest.mark.parametrize(
    ("model", "path"),
    [
        (StartRequest, ()),
        (SealedEnvironment, ("encrypted_environment",)),
        (GrantsRequest, ("grants",)),
        (HttpGrant, ("grants", "http")),
        (LimitsRequest, ("limits",)),
        (WorkersRequest, ("workers",)),
    ],
)
def test_the_models_have_the_schemas_keys(model: type, path: tuple[str, ...]) -> None:
    part = schema()
    for step in path:
        part = part["properties"][step]
    has_the_keys(model, part)


@pytest.mark.parametrize(
    ("kind", "model", "value"),
    [
        ("subject", Trigger, "a"),
        ("stream", StreamTrigger, "a"),
        ("schedule", ScheduleTrigger, "@daily"),
        ("every", IntervalTrigger, "30s"),
    ],
)
def test_so_have_the_kinds_of_triggers(kind: str, model: Any, value: str) -> None:
    part = trigger_kinds(schema())[kind]
    has_the_keys(model, part)
    made = model(**{kind: value})
    for name, entry in part["properties"].items():
        if "default" in entry:
            read = parse_start_request(
                json.dumps({"source": SOURCE, "triggers": [{kind: value, name: entry["default"]}]})
            )
            assert getattr(made, name) == getattr(read.triggers[0], name), name


def has_the_keys(model: Any, part: dict[str, Any]) -> None:
    assert set(part["properties"]) == set(model.model_fields)
    for name, entry in part["properties"].items():
        entry = schema()["definitions"][entry["$ref"].rpartition("/")[2]] if "$ref" in entry else entry
        assert entry["title"], name
        assert entry["description"].endswith("."), name
        assert "type" in entry, name


def test_the_models_have_the_schemas_defaults() -> None:
    limits = {
        name: entry["default"]
        for name, entry in schema()["properties"]["limits"]["properties"].items()
        if "default" in entry
    }
    made = LimitsRequest()
    for name, default in limits.items():
        value = getattr(made, name)
        if isinstance(default, int):
            assert value == default
        else:
            assert value == (parse_size(default) if default.endswith("iB") else parse_duration(default)), name
    assert {name for name in LimitsRequest.model_fields if getattr(made, name) is not None} == set(limits)
    assert made == parse_start_request(json.dumps({"source": SOURCE, "limits": limits})).limits
    workers = schema()["properties"]["workers"]["properties"]
    assert WorkersRequest().min == workers["min"]["default"]
    assert WorkersRequest().wait == parse_duration(workers["wait"]["default"])
    http = schema()["properties"]["grants"]["properties"]["http"]["properties"]
    assert tuple(http["methods"]["default"]) == HttpGrant(hosts=("a",)).methods
    assert tuple(http["methods"]["items"]["enum"]) == METHODS
    assert tuple(schema()["definitions"]["access"]["enum"]) == ACCESS
    assert schema()["properties"]["handler"]["default"] == StartRequest(source=SOURCE).handler
    assert tuple(schema()["properties"]["sandbox"]["enum"]) == PROFILES


def test_the_open_schema_keeps_types_and_descriptions() -> None:
    opened = json.loads(open_schema())
    whole = schema()
    assert set(opened["properties"]) == set(whole["properties"])
    for name, entry in whole["properties"].items():
        assert opened["properties"][name]["type"] == entry["type"]
        assert opened["properties"][name]["description"] == entry["description"]
    limits = opened["properties"]["limits"]["properties"]
    assert limits["timeout"]["type"] == "string"
    assert limits["timeout"]["default"] == "5s"
    # Go's regular expressions know no look-ahead, and a reference would be one more thing to resolve.
    for word in ('"pattern"', '"$ref"', '"required"', '"oneOf"', '"additionalProperties":false', '"enum"', '"if"'):
        assert word not in open_schema()


@pytest.mark.parametrize(
    "request_",
    [
        {}, {"sorce": SOURCE}, {"source": SOURCE, "uri": "file:///x"}, {"source_file": "function.py"},
        {"source": SOURCE, "triggers": ["a..b"]}, {"source": SOURCE, "limits": {"timeout": "soon", "max_wait": 1}},
        {"source": SOURCE, "sandbox": "none"}, {"source": SOURCE, "triggers": [{"subjekt": "a"}]},
    ],
)  # fmt: skip
def test_the_open_schema_leaves_the_refusal_to_us(request_: object) -> None:
    assert OPEN_JUDGE.is_valid(request_)
    assert problems_of(request_)


@pytest.mark.parametrize("request_", [[], {"source": 1}, {"triggers": "a"}, {"limits": {"timeout": 5}}, {"workers": 2}])
def test_the_open_schema_refuses_other_types(request_: object) -> None:
    assert not OPEN_JUDGE.is_valid(request_)


# --- the same verdict ----------------------------------------------------------------------------------------------

TEXTS = [
    "", "a", "handler", "_x", "class", "a.b", "a..b", ".a", "a.", "*", ">", "a.*", "a.>", "a.>.b", "a.b*", "*.a", "a b",
    "a\tb", "a\n", "$SYS.x", "$", "_INBOX", "_INBOX.a", "_INBOXES", "_R_.x", "größe.x", "0", "5", "5s", "-5s", "+5s",
    "0s", "1m30s", "1.5h", "300ms", "0.0s", "1x", "64MiB", "64", "64mb", "-1MiB", "0B", "0.5KiB", "900kB", "file:///a/b.py",
    "file://a", "file:///", "nats://b/o:t", "nats://b", "nats://b/", "nats://b.c/o", "http://x/y", "a" * 64, "A" * 64,
    "g" * 64, "prices.py", "function.py", "x y.py", "1a.py", ".py", "a.txt", "secret://KEY", "secret://", "secret://../x",
    "read", "write", "reed", "GET", "get", "api.example.com", "*.example.com", "*.*.com", "a:8443", "a:99999", "a:0",
    "[::1]:80",
    "A.com", "a..b:1", "-a", "user@a", "my_bucket-1", "my.bucket",
    "secret://a/b", "*/5 * * * *", "@daily", "0 0 30 2 *", "UTC", "Europe/Berlin", "once", "skip", "allow", "0.5s",
    "X" + "A" * 55, "eGt2MQ==", "eGt2MQ=", "strict", "isolated", "none", "a" * 256, "b" * 1025,
]  # fmt: skip
text = st.sampled_from(TEXTS) | st.text(st.characters(codec="utf-8"), max_size=8)
junk: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers(-3, 70000) | st.floats(-3, 3) | text | st.just([]) | st.just({})
)


def keyed(model: Any, values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    keys = st.sampled_from(sorted(model.model_fields)) | st.sampled_from(["sorce", "max", "subject", "timeout"])
    return st.dictionaries(keys, values, max_size=4)


trigger: st.SearchStrategy[Any] = (
    text
    | keyed(Trigger, text | junk)
    | keyed(StreamTrigger, text | junk | st.lists(text, max_size=2))
    | keyed(ScheduleTrigger, text | junk)
    | keyed(IntervalTrigger, text | junk)
    | junk
)
parts: dict[str, st.SearchStrategy[Any]] = {
    "source": st.just(SOURCE) | junk,
    "uri": text,
    "sha256": text,
    "files": st.dictionaries(text, text | junk, max_size=2) | junk,
    "handler": text | junk,
    "batch": st.integers(-1, 258) | junk,
    "triggers": st.lists(trigger, max_size=3) | junk,
    "environment": st.dictionaries(text, text | junk, max_size=2) | junk,
    "encrypted_environment": keyed(SealedEnvironment, text) | junk,
    "grants": st.fixed_dictionaries(
        {},
        optional={
            "publish": st.lists(text, max_size=2) | junk,
            "request": st.lists(text, max_size=2) | junk,
            "kv": st.dictionaries(text, text | junk, max_size=2) | junk,
            "objects": st.dictionaries(text, text | junk, max_size=2) | junk,
            "http": keyed(HttpGrant, st.lists(text, max_size=2) | junk) | junk,
            "publsh": junk,
        },
    )
    | junk,
    "limits": keyed(LimitsRequest, text | junk) | junk,
    "workers": keyed(WorkersRequest, st.integers(-1, 6) | text | junk) | junk,
    "sandbox": text | junk,
    "sorce": text,
}
requests = st.one_of(
    # Mostly one key beside a good source, so that its own verdict decides; sometimes many at once.
    *(st.fixed_dictionaries({"source": st.just(SOURCE), name: values}) for name, values in parts.items()),
    st.fixed_dictionaries({}, optional=parts),
    junk,
)


@settings(max_examples=600, deadline=None)
@given(requests)
def test_models_and_schema_give_the_same_verdict(request_: object) -> None:
    problems = problems_of(request_)
    if not problems:
        assert JUDGE.is_valid(request_)
    elif JUDGE.is_valid(request_):
        assert all(is_beyond_a_schema(problem) for problem in problems), render("x", problems)


def is_beyond_a_schema(problem: Problem) -> bool:
    if problem.code in BEYOND or (problem.code == "out-of-range" and problem.place == "workers"):
        return True
    if problem.code in ("bad-handler", "bad-file-name"):
        return "is not" in problem.message  # a word that Python keeps for itself
    if problem.code in ("bad-subject", "bad-queue-group", "bad-name"):
        return "invisible" in problem.message or "longer" in problem.message or "white space" in problem.message
    if problem.code == "bad-host":
        return "is no port" in problem.message
    return problem.code == "bad-duration" and "292 years" in problem.message


def texts_for_keys(value: object) -> bool:
    """Whether it can be JSON."""
    if not isinstance(value, dict):
        return True
    return all(isinstance(key, str) for key in value) and all(map(texts_for_keys, value.values()))


@pytest.mark.parametrize("name", sorted(set(parts) - {"sorce"}))
def test_hand_made_requests_have_the_same_verdict(name: str) -> None:
    """Every text of the list above in every place that takes one."""
    places: list[Any] = [lambda value: value]
    if name in ("limits", "workers", "encrypted_environment"):
        places = [lambda value, key=key: {key: value} for key in schema()["properties"][name]["properties"]]
    elif name == "triggers":
        places = [
            lambda value: [value],
            lambda value: [{"subject": value}],
            lambda value: [{"subject": "a", "queue_group": value}],
            lambda value: [{"subject": "a", "reply": value}],
            lambda value: [{"subject": "a", "on_failure": value}],
            *(lambda value, key=key: [{"stream": "S", key: value}] for key in StreamTrigger.model_fields),
            lambda value: [{"stream": "S", "backoff": [value]}],
            lambda value: [{"stream": "S", "subject": value}],
            lambda value: [{"schedule": value}],
            lambda value: [{"every": value}],
            *(
                lambda value, key=key: [{"schedule": "* * * * *", key: value}]
                for key in ("timezone", "name", "missed", "overlap", "every", "subject", "stream")
            ),
        ]
    elif name == "grants":
        places = [
            lambda value: {"publish": [value]},
            lambda value: {"request": value},
            lambda value: {"kv": {value: "read"}},
            lambda value: {"objects": {"a": value}},
            lambda value: {"http": {"hosts": [value]}},
            lambda value: {"http": {"hosts": ["a"], "methods": [value]}},
            lambda value: {"http": value},
        ]
    elif name in ("files", "environment"):
        places = [lambda value: {value: "x"}, lambda value: {"a.py": value}, lambda value: {"A": value}]
    for place in places:
        values: list[Any] = [*TEXTS, None, True, 0, 1, -1, 1.0, 1.5, [], {}]
        for value in values:
            try:
                built = place(value)
            except TypeError:
                continue  # a list cannot be a key
            if not texts_for_keys(built):
                continue
            request_ = {name: built} if name == "uri" else {"source": SOURCE, name: built}
            problems = problems_of(request_)
            if JUDGE.is_valid(request_):
                assert all(is_beyond_a_schema(problem) for problem in problems), (request_, problems)
            else:
                assert problems, request_


# --- what is read --------------------------------------------------------------------------------------------------


def test_a_whole_request() -> None:
    read = parse_start_request(
        json.dumps(
            {
                "source": SOURCE,
                "sha256": "A" * 64,
                "files": {"prices.py": "X = 1"},
                "handler": "main",
                "batch": 64.0,
                "triggers": ["orders.created", {"subject": "audit.>", "queue_group": "", "reply": False}],
                "environment": {"GREETING": "hello", "TOKEN": "secret://api-token"},
                "encrypted_environment": {"encrypted_by": "X" + "A" * 55, "base64_encrypted_env": "eGt2MQ=="},
                "grants": {
                    "publish": ["orders.created", "audit.>"],
                    "request": ["prices.get"],
                    "kv": {"settings": "read", "counters": "write"},
                    "objects": {"reports": "write"},
                    "http": {"hosts": ["api.example.com", "*.example.org:8443"], "methods": ["POST"]},
                },
                "limits": {"timeout": "300ms", "memory": "64MiB", "max_pending": 8, "idle": "0", "max_reply": "1MB"},
                "workers": {"min": 1, "max": 1.0, "wait": "20ms"},
                "sandbox": "isolated",
            }
        )
    )
    assert read.source == SOURCE
    assert read.uri is None
    assert read.sha256 == "a" * 64
    assert read.files == {"prices.py": "X = 1"}
    assert read.handler == "main"
    assert read.triggers == (
        Trigger(subject="orders.created"),
        Trigger(subject="audit.>", queue_group="", reply=False),
    )
    assert {name: value.get_secret_value() for name, value in read.environment.items()} == {
        "GREETING": "hello",
        "TOKEN": "secret://api-token",
    }
    assert read.encrypted_environment is not None
    assert json.loads(read.encrypted_environment.message().to_json())["base64_encrypted_env"] == "eGt2MQ=="
    assert read.grants.summary() == (
        "publish orders.created, audit.>; request prices.get; kv settings: read, counters: write; "
        "objects reports: write; http api.example.com, *.example.org:8443 (POST)"
    )
    assert (read.limits.timeout, read.limits.memory, read.limits.max_pending) == (0.3, 64 << 20, 8)
    assert (read.limits.idle, read.limits.max_reply, read.limits.queue_timeout) == (0.0, 1_000_000, None)
    assert (read.workers.min, read.workers.max, read.workers.wait, read.sandbox) == (1, 1, 0.02, "isolated")


def test_what_is_not_said_has_its_default() -> None:
    read = parse_start_request(json.dumps({"uri": "nats://functions/greet:1.2"}))
    assert (read.source, read.handler, read.triggers, read.sandbox) == (None, "handler", (), None)
    assert read.limits == LimitsRequest()
    assert not read.grants
    assert read.grants.summary() == ""
    assert read.workers == WorkersRequest()


def test_triggers_of_a_stream() -> None:
    whole = {
        "stream": "ORDERS", "filter": "orders.*.new", "durable": "billing", "deliver": "new", "ack_wait": "1m",
        "max_deliver": 3, "backoff": ["500ms", "0"], "max_ack_pending": 64, "batch": 16, "dead_letter": "dead.orders",
    }  # fmt: skip
    read = parse_start_request(json.dumps({"source": SOURCE, "triggers": [whole, "orders.ask", {"stream": "OTHER"}]}))
    assert read.triggers == (
        StreamTrigger(
            stream="ORDERS", filter="orders.*.new", durable="billing", deliver="new", ack_wait="1m", max_deliver=3,
            backoff=["500ms", "0"], max_ack_pending=64, batch=16, dead_letter="dead.orders",
        ),
        Trigger(subject="orders.ask"),
        StreamTrigger(stream="OTHER"),
    )  # fmt: skip
    assert read.subject_triggers == (Trigger(subject="orders.ask"),)


def test_neither_source_nor_environment_is_shown() -> None:
    read = parse_start_request(json.dumps({"source": "KEY = 'hidden'", "environment": {"A": "hidden"}}))
    assert "hidden" not in repr(read)
    assert "hidden" not in str(read)
    refused = problems_of({"source": "hidden", "environment": {"A": "secret://hidden/../x", "B": {"hidden": 1}}})
    assert "hidden" not in render("x", refused)
    refused = problems_of('{"source": "hidden", "environment": {"A": "hidden"')
    assert "hidden" not in render("x", refused)


# --- what is refused -----------------------------------------------------------------------------------------------


def test_all_problems_at_once() -> None:
    found = refusal(
        {
            "sorce": "x",
            "uri": "http://example.com/f.py",
            "handler": "_main",
            "batch": 257,
            "triggers": [
                "a..b", "a b", ">", "$SYS.>", "_INBOX.x", {"subject": "a.>.b"}, {"reply": True}, 7,
                {"subject": "*.x", "queue_grup": "q", "queue_group": "a b"},
            ],
            "files": {"function.py": "", "a b.py": "", "ok.py": 1},
            "environment": {"A B": "x", "PORT": 8080},
            "grants": {
                "publish": ["$JS.API.>", "a"],
                "request": "prices.get",
                "kv": {"a.b": "read", "settings": "reed", "more": None},
                "objects": ["reports"],
                "http": {"host": ["a"], "methods": ["get"]},
                "publsh": [],
            },
            "limits": {"timeout": "-5s", "memory": "lots", "max_pending": -1, "load_timeout": 5},
            "workers": {"min": 4, "max": 2},
            "sandbox": "stict",
            "timeout": "5s",
        }
    )  # fmt: skip
    assert found == {
        "uri": "bad-uri",
        "handler": "bad-handler",
        "batch": "out-of-range",
        "triggers[0]": "bad-subject",
        "triggers[1]": "bad-subject",
        "triggers[2]": "bad-subject",
        "triggers[3]": "bad-subject",
        "triggers[4]": "bad-subject",
        "triggers[5].subject": "bad-subject",
        "triggers[6].subject": "missing-key",
        "triggers[7]": "bad-type",
        "triggers[8].subject": "bad-subject",
        "triggers[8].queue_group": "bad-queue-group",
        "triggers[8].queue_grup": "unknown-key",
        'files["function.py"]': "bad-file-name",
        'files["a b.py"]': "bad-file-name",
        'files["ok.py"]': "bad-type",
        'environment["A B"]': "bad-variable",
        "environment.PORT": "bad-type",
        "grants.publish[0]": "bad-subject",
        "grants.request": "bad-type",
        'grants.kv["a.b"]': "bad-bucket",
        "grants.kv.settings": "bad-access",
        "grants.kv.more": "bad-type",
        "grants.objects": "bad-type",
        "grants.http.hosts": "missing-key",
        "grants.http.methods[0]": "bad-method",
        "grants.http.host": "unknown-key",
        "grants.publsh": "unknown-key",
        "limits.timeout": "bad-duration",
        "limits.memory": "bad-size",
        "limits.max_pending": "out-of-range",
        "limits.load_timeout": "bad-type",
        "workers": "out-of-range",
        "sandbox": "unknown-profile",
        "sorce": "unknown-key",
        "timeout": "unknown-key",
    }


@pytest.mark.parametrize(
    ("request_", "place", "said"),
    [
        ({"sorce": SOURCE}, "sorce", "did you mean source?"),
        ({"source": SOURCE, "Handler": "x"}, "Handler", "did you mean handler?"),
        ({"source": SOURCE, "env": {}}, "env", "did you mean environment?"),
        ({"source": SOURCE, "subject": "a"}, "subject", "did you mean triggers?"),
        ({"source": SOURCE, "memory": "1MiB"}, "memory", "it belongs under limits"),
        ({"source": SOURCE, "batch": 0}, "batch", "from 1 to 256"),
        ({"source": SOURCE, "batch": 257}, "batch", "the number 257 is more than 256"),
        ({"source": SOURCE, "batch": "64"}, "batch", "must be a whole number, not a text"),
        ({"source": SOURCE, "limits": {"handler": "x"}}, "limits.handler", "it belongs at the top"),
        ({"source": SOURCE, "limits": {"batch": 64}}, "limits.batch", "it belongs at the top"),
        ({"source": SOURCE, "triggers": [{"subject": "a", "batch": 64}]}, "triggers[0].batch", "belongs at the top"),
        ({"source": SOURCE, "limits": {"max-pending": 1}}, "limits.max-pending", "did you mean max_pending?"),
        ({"source": SOURCE, "grants": {"publsh": []}}, "grants.publsh", "did you mean publish?"),
        ({"source": SOURCE, "grants": {"http": {"hosts": ["a"], "method": []}}}, "grants.http.method", "methods?"),
        ({"source": SOURCE, "grants": {"publish": "a.b"}}, "grants.publish", "write it as [a.b]"),
        ({"source": SOURCE, "grants": {"kv": ["a"]}}, "grants.kv", "{BUCKET: read}"),
        ({"source": SOURCE, "grants": {"kv": {"a": "wrte"}}}, "grants.kv.a", "did you mean write?"),
        ({"source": SOURCE, "grants": {"http": {"hosts": ["https://a/b"]}}}, "grants.http.hosts[0]", "the name alone"),
        ({"source": SOURCE, "grants": {"http": {"hosts": ["a"], "methods": ["p"]}}}, "grants.http.methods[0]", "PUT,"),
        ({"source": SOURCE, "publish": ["a"]}, "publish", "it belongs under grants"),
        ({"source": SOURCE, "zzz": 1}, "zzz", "known here: batch, encrypted_environment, environment"),
        ({"source": SOURCE, "limits": {"timeout": 5}}, "limits.timeout", '"5s"'),
        ({"source": SOURCE, "limits": {"timeout": "5"}}, "limits.timeout", "5s or 5ms"),
        ({"source": SOURCE, "limits": {"memory": "64mb"}}, "limits.memory", "64MB"),
        ({"source": SOURCE, "environment": {"PORT": 8080}}, "environment.PORT", "put it in quotes"),
        ({"source": SOURCE, "sandbox": "isolate"}, "sandbox", "did you mean isolated?"),
        ({"source": SOURCE, "sandbox": "vm"}, "sandbox", "there are: strict"),
        ({"source": SOURCE, "triggers": "a"}, "triggers", "[orders.created]"),
        ({"source": SOURCE, "triggers": [{"schedul": "@daily"}]}, "triggers[0].schedul", "did you mean schedule?"),
        ({"source": SOURCE, "triggers": [{"cron": "@daily"}]}, "triggers[0].cron", "did you mean schedule?"),
        (
            {"source": SOURCE, "triggers": [{"schedule": "@daily", "subject": "a"}]},
            "triggers[0].subject", "belongs to a trigger with a subject",
        ),
        (
            {"source": SOURCE, "triggers": [{"schedule": "@daily", "timezone": "europe/berlin"}]},
            "triggers[0].timezone", "did you mean Europe/Berlin?",
        ),
        ({"source": SOURCE, "triggers": [{"every": "1m", "timezone": "UTC"}]}, "triggers[0].timezone", "a schedule"),
        ({"source": SOURCE, "triggers": [{"every": "100ms"}]}, "triggers[0].every", "1s, 30s or 5m"),
        ({"source": SOURCE, "triggers": [{"schedule": "0 0 30 2 *"}]}, "triggers[0].schedule", "*/5 * * * *"),
        ({"source": SOURCE, "triggers": [{"schedule": "* * * *"}]}, "triggers[0].schedule", "4 fields, not 5"),
        ({"source": SOURCE, "triggers": [{"schedule": "@often"}]}, "triggers[0].schedule", "@hourly"),
        ({"source": SOURCE, "handler": None}, "handler", "null"),
        ({"source": SOURCE, "sandbox": None}, "sandbox", "leave the key out"),
        ({"source": SOURCE, "triggers": [{"stream": "S", "queue_group": "q"}]}, "triggers[0].queue_group", "subject"),
        ({"source": SOURCE, "triggers": [{"stream": "S", "max_deliver_": 1}]}, "triggers[0].max_deliver_", "deliver?"),
        ({"source": SOURCE, "triggers": [{"stream": "S", "backoff": "1s"}]}, "triggers[0].backoff", "[1s, 10s, 1m]"),
        ({"source": SOURCE, "triggers": [{"stream": "S", "backoff": ["x"]}]}, "triggers[0].backoff[0]", "duration"),
        ({"source": SOURCE, "triggers": [{"stream": "S", "deliver": "latest"}]}, "triggers[0].deliver", "last"),
        ({"source": SOURCE, "triggers": [{"stream": "S.X"}]}, "triggers[0].stream", "nats stream ls"),
    ],
)  # fmt: skip
def test_the_next_step_is_named(request_: object, place: str, said: str) -> None:
    shown = {problem.place.replace('["', ".").replace('"]', ""): problem.text() for problem in problems_of(request_)}
    assert list(shown) == [place]
    assert said in shown[place]


@pytest.mark.parametrize("more", [{}, {"triggers": ["a"]}])
def test_an_unpacked_folder_says_to_pack_first(more: dict[str, Any]) -> None:
    problems = problems_of({"source_file": "function.py", **more})
    assert [problem.code for problem in problems] == ["not-packed"]
    assert "nexlet-functions pack DIR" in problems[0].advice


def test_source_and_uri() -> None:
    assert refusal({"source": SOURCE, "uri": "file:///f.py"}) == {"uri": "source-and-uri"}
    assert refusal({}) == {"start_request": "no-source"}
    assert refusal({"source": ""}) == {"source": "empty"}


def test_schedules_among_each_other() -> None:
    every = [{"every": "30s"}, {"every": "30s", "missed": "once"}, {"schedule": "@daily"}]
    assert refusal({"source": SOURCE, "triggers": every}) == {"triggers[1].every": "duplicate-trigger"}
    at_dawn = [{"schedule": "0 6 * * *", "timezone": zone} for zone in ("UTC", "Europe/Berlin", "UTC")]
    assert refusal({"source": SOURCE, "triggers": at_dawn}) == {"triggers[2].schedule": "duplicate-trigger"}


def test_triggers_among_each_other() -> None:
    everywhere = [{"subject": subject, "queue_group": ""} for subject in ("a.*", "b.x", "a.b")]
    assert refusal({"source": SOURCE, "triggers": everywhere}) == {"triggers[2].subject": "overlapping-triggers"}
    assert refusal({"source": SOURCE, "triggers": ["a.*", "a.b"]}) == {}
    assert refusal({"source": SOURCE, "triggers": ["a.*", {"subject": "a.b", "queue_group": ""}]}) == {}
    assert refusal({"source": SOURCE, "triggers": ["a.b", {"subject": "a.b", "queue_group": "q"}]}) == {
        "triggers[1].subject": "duplicate-trigger"
    }
    many = {f"a{n}": "read" for n in range(257)}
    assert refusal({"source": SOURCE, "grants": {"kv": many, "publish": list(many)}}) == {
        "grants.kv": "too-many-grants",
        "grants.publish": "too-many-grants",
    }
    assert refusal({"source": SOURCE, "triggers": [f"a{n}" for n in range(257)]}) == {"triggers": "too-many-triggers"}
    assert refusal({"source": SOURCE, "triggers": [{"stream": "S"}, {"stream": "S", "filter": "a"}]}) == {
        "triggers[1].stream": "duplicate-trigger"
    }
    assert refusal({"source": SOURCE, "triggers": [{"stream": "S"}, {"stream": "S", "durable": "other"}]}) == {}


def test_what_failed_does_not_come_back() -> None:
    def found(*triggers: object) -> dict[str, str]:
        return refusal({"source": SOURCE, "triggers": list(triggers)})

    assert found({"subject": "a.*", "on_failure": "a.failed"}) == {"triggers[0].on_failure": "comes-back"}
    assert found({"stream": "S", "dead_letter": "b"}, "b") == {"triggers[0].dead_letter": "comes-back"}
    assert found({"stream": "S", "filter": "a.>", "dead_letter": "a.dead"}) == {"triggers[0].dead_letter": "comes-back"}
    assert found({"stream": "S", "filter": "a.>", "dead_letter": "dead.a"}, {"subject": "b", "on_failure": "c"}) == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not JSON"), ("{", "is not JSON"), ("[]", "must be an object, not a list"), ("null", "not null"),
        ('"x"', "not a text"),
        ("NaN", "NaN is no value in JSON"), ('{"limits": {"max_pending": Infinity}}', "Infinity"),
        ("[" * 100_000, "nested too deeply"), ("1" * 5000, "too many digits"), ('{"source": "\\ud800"}', "surrogate"),
        ('{"source": "a", "source": "b"}', "given twice"),
        ('{"source": "a", "limits": {"idle": "0", "idle": "0"}}', "twice"),
    ],
)  # fmt: skip
def test_what_is_no_request(text: str, said: str) -> None:
    assert said in render("x", problems_of(text))


def test_what_is_repeated_is_cut() -> None:
    for problem in problems_of(
        {"source": SOURCE, "a" * 10_000: 1, "environment": {"b" * 10_000: 1, "c c" * 5000: "x"}}
    ):
        assert len(problem.text()) < 500


def test_nesting_is_no_way_in() -> None:
    for depth in (10, 300, 900, 3000, 50_000):
        text = '{"source":"x","files":' + '{"a":' * depth + "1" + "}" * depth + "}"
        assert problems_of(text)


def test_a_flood_of_keys_given_twice_is_cut_short() -> None:
    doubled = ",".join('{"a":1,"a":2}' for _ in range(5000))
    assert len(problems_of(f'{{"source":"x","triggers":[{doubled}]}}')) < 110


def test_a_flood_of_mistakes_is_cut_short_and_counted() -> None:
    begun = time.process_time()
    problems = problems_of({"source": SOURCE, **{f"key-{number}": number for number in range(20_000)}})
    assert len(problems) == 51
    assert "19950 problems more" in problems[-1].message
    assert time.process_time() - begun < 10  # quadratic would be minutes


@given(st.text(max_size=50) | requests.map(json.dumps))
def test_any_text_is_read_or_refused(text: str) -> None:
    for problem in problems_of(text):
        assert problem.code
        assert problem.place
        assert problem.message
        assert "\n" not in problem.message + problem.advice
        assert len(problem.text()) < 1000


def test_an_error_has_the_headline() -> None:
    with pytest.raises(StartRequestRefused, match="start request refused: 2 problems") as refused:
        parse_start_request("{}".replace("{}", '{"a": 1}'))
    assert refused.value.code == "start-request-refused"
    assert start_request.StartRequestRefused is type(refused.value)
