"""An operator's rules: what a namespace may listen to, ceilings, counts, and where answers may go."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexlet_functions.errors import SettingsRefused
from nexlet_functions.functions.permissions import Policy, ReplyRule, Usage, notices, within
from nexlet_functions.functions.refusals import Refusal, refused, status_of
from nexlet_functions.functions.requests import fit_reply, limits_of, triggers_of
from nexlet_functions.rules import Ceilings
from nexlet_functions.sandboxing import Sandboxing
from nexlet_functions.settings import Settings
from nexlet_models.problems import Problem
from nexlet_models.start_request import StartRequest, parse_start_request
from nexlet_models.subjects import matches

MIB = 1024 * 1024


def request(**keys: Any) -> StartRequest:
    return parse_start_request(json.dumps({"source": "x = 1", **keys}))


def check(rules: dict[str, Any], usage: Usage | None = None, /, namespace: str = "acme", **keys: Any) -> list[Problem]:
    known = {name: value for name, value in rules.items() if name in Settings.model_fields}
    defaults = {name: value for name, value in rules.items() if name not in known}
    settings = Settings.read({"defaults": defaults, **known})
    start = request(**keys)
    limits = limits_of(start, settings.rules(namespace).ceilings, cores=4)
    return Policy(lambda: settings, Sandboxing.assumed()).check(namespace, start, limits, usage or Usage())


TOKENS = st.sampled_from(["a", "b", "*"])
PATTERNS = st.builds(
    lambda parts, rest: ".".join([*parts, *rest]),
    st.lists(TOKENS, min_size=1, max_size=4),
    st.sampled_from([[], [">"]]),
)
SUBJECTS = st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=6).map(".".join)


@given(PATTERNS, PATTERNS, SUBJECTS)
def test_what_lies_within_a_pattern_reaches_nothing_outside_it(pattern: str, allowed: str, subject: str) -> None:
    if within(pattern, allowed) and matches(pattern, subject):
        assert matches(allowed, subject)


@given(PATTERNS)
def test_everything_lies_within_itself_and_within_all(pattern: str) -> None:
    assert within(pattern, pattern)
    assert within(pattern, ">")


@pytest.mark.parametrize(
    ("pattern", "allowed", "expected"),
    [
        ("orders.created", "orders.>", True),
        ("orders", "orders.>", False),
        ("orders.>", "orders.*", False),
        ("orders.*", "orders.>", True),
        ("orders.*.x", "orders.*.*", True),
        ("orders.created.x", "orders.created", False),
        ("orders.created", "orders.created.x", False),
        ("ordersx.created", "orders.>", False),
        ("orders.>", "orders.>", True),
        ("orders.>", "orders.*.>", False),
    ],
)
def test_within(pattern: str, allowed: str, expected: bool) -> None:
    assert within(pattern, allowed) is expected


class TestSubjects:
    def test_without_patterns_any_free_subject_may_be_listened_to(self) -> None:
        assert check({}, triggers=["orders.created", "other.>"]) == []

    def test_each_trigger_outside_is_named_with_what_is_allowed(self) -> None:
        rules = {"subjects": ["{namespace}.>", "shared.events"]}
        problems = check(rules, triggers=["acme.orders", {"subject": "evil.orders"}, "shared.>", "shared.events"])
        assert [problem.place for problem in problems] == ["triggers[1].subject", "triggers[2].subject"]
        assert "namespace 'acme' may not listen to 'evil.orders'" in problems[0].message
        assert problems[0].advice == "subjects allowed: acme.>, shared.events"
        assert status_of(problems) == 403

    def test_a_function_on_its_own_id_needs_no_pattern(self) -> None:
        # The id comes from the node, not from whoever deploys.
        assert check({"subjects": ["{namespace}.>"]}) == []


class TestGrants:
    ALL = {  # noqa: RUF012  # read, never written
        "publish": ["acme.orders", "other.>"],
        "request": ["acme.prices"],
        "kv": {"acme-settings": "read", "counters": "write"},
        "objects": {"acme-reports": "write"},
        "http": {"hosts": ["api.example.com", "*.example.org", "api.example.com:8443"]},
    }

    def places(self, rules: dict[str, Any], grants: dict[str, Any] | None = None) -> list[str]:
        problems = check(rules, grants=self.ALL if grants is None else grants)
        assert {problem.code for problem in problems} <= {"grant-not-allowed"}
        assert not problems or status_of(problems) == 403
        return [problem.place for problem in problems]

    def test_without_a_word_the_credentials_decide(self) -> None:
        assert self.places({}) == []

    def test_whoever_is_confined_in_what_it_hears_is_so_in_what_it_says(self) -> None:
        assert self.places({"subjects": ["{namespace}.>"]}) == ["grants.publish[1]"]
        assert self.places({"subjects": ["{namespace}.>"], "grants": {"publish": [">"]}}) == []

    def test_nothing_may_be_granted(self) -> None:
        nothing: dict[str, Any] = {"publish": [], "request": [], "kv": {}, "objects": {}, "http_hosts": []}
        assert self.places({"grants": nothing}) == [
            "grants.publish[0]",
            "grants.publish[1]",
            "grants.request[0]",
            'grants.kv["acme-settings"]',
            "grants.kv.counters",
            'grants.objects["acme-reports"]',
            "grants.http.hosts[0]",
            "grants.http.hosts[1]",
            "grants.http.hosts[2]",
        ]
        assert self.places({"grants": nothing}, {}) == []

    def test_buckets_by_pattern_and_access(self) -> None:
        assert self.places({"grants": {"kv": {"{namespace}-*": "write"}}}) == ["grants.kv.counters"]
        assert self.places({"grants": {"kv": {"*": "read"}}}) == ["grants.kv.counters"]
        assert self.places({"grants": {"kv": {"*": "read", "counters": "write"}}}) == []
        assert self.places({"grants": {"objects": {"{namespace}-*": "read"}}}) == ['grants.objects["acme-reports"]']

    def test_hosts_by_pattern(self) -> None:
        assert self.places({"grants": {"http_hosts": ["*"]}}) == []
        assert self.places({"grants": {"http_hosts": ["*.example.org", "api.example.com"]}}) == ["grants.http.hosts[2]"]
        # Neither the domain itself nor one that only ends like it is below it.
        assert self.places({"grants": {"http_hosts": ["*.example.com"]}}, {"http": {"hosts": ["example.com"]}})
        assert self.places({"grants": {"http_hosts": ["*.example.com"]}}, {"http": {"hosts": ["anexample.com"]}})

    def test_a_host_that_no_call_could_be_held_to_is_none(self) -> None:
        hosts = ["api.example.com", "0x7f.1", "2130706433", "127.1", "[fe80::1:2:3:4:5:6:7:8]", "192.0.2.1"]
        problems = check({}, grants={"http": {"hosts": hosts}})
        assert [problem.place for problem in problems] == [f"grants.http.hosts[{number}]" for number in (1, 2, 3, 4)]
        assert {problem.code for problem in problems} == {"bad-host"}
        assert status_of(problems) == 400

    def test_a_refusal_says_what_is_allowed(self) -> None:
        (problem,) = check({"grants": {"kv": {"{namespace}-*": "read"}}}, grants={"kv": {"counters": "write"}})
        assert problem.message == "functions of namespace 'acme' may not write the bucket 'counters'"
        assert problem.advice == "buckets allowed: acme-*: read"

    def test_a_namespace_changes_single_ceilings(self) -> None:
        rules: dict[str, Any] = {
            "defaults": {"grants": {"kv": {}, "http_hosts": []}},
            "namespaces": {"acme": {"grants": {"kv": {"*": "write"}}}},
        }
        settings = Settings.read(rules)
        assert settings.rules("acme").grants.kv == {"*": "write"}
        assert settings.rules("acme").grants.http_hosts == ()

    @pytest.mark.parametrize(
        ("grants", "said"),
        [
            ({"kvs": {}}, "did you mean 'kv'?"),
            ({"kv": {"a.b": "read"}}, "no pattern of buckets"),
            ({"kv": {"a": "all"}}, "'read' or 'write'"),
            ({"http_hosts": ["https://a"]}, "no pattern of hosts"),
            ({"publish": ["a..b"]}, "is no subject"),
        ],
    )
    def test_a_slip_of_the_operator_is_no_rule(self, grants: dict[str, Any], said: str) -> None:
        with pytest.raises(SettingsRefused) as refused:
            Settings.read({"defaults": {"grants": grants}})
        assert said in str(refused.value)


class TestCeilings:
    @pytest.mark.parametrize(
        ("keys", "place", "said"),
        [
            ({"limits": {"timeout": "6m"}}, "limits.timeout", "6m0s is more than the 5m0s"),
            ({"limits": {"load_timeout": "31s"}}, "limits.load_timeout", "31s is more than the 30s"),
            ({"limits": {"queue_timeout": "6m"}}, "limits.queue_timeout", "6m0s is more than the 5m0s"),
            ({"limits": {"memory": "2GiB"}}, "limits.memory", "2GiB is more than the 1GiB"),
            ({"limits": {"max_pending": 65537}}, "limits.max_pending", "65537 is more than the 65536"),
            ({"limits": {"max_calls": 100001}}, "limits.max_calls", "100001 is more than the 100000"),
            ({"limits": {"log_rate": "2MiB"}}, "limits.log_rate", "2MiB is more than the 1MiB"),
            ({"limits": {"idle": "25h"}}, "limits.idle", "25h0m0s is more than the 24h0m0s"),
            ({"workers": {"max": 33}}, "workers.max", "33 is more than the 32"),
        ],
    )
    def test_more_than_the_ceiling_is_refused(self, keys: dict[str, Any], place: str, said: str) -> None:
        (problem,) = check({}, **keys)
        assert (problem.place, problem.code) == (place, "over-ceiling")
        assert said in problem.message
        assert "ask" in problem.advice
        assert status_of([problem]) == 403

    def test_all_of_them_at_once(self) -> None:
        problems = check({}, limits={"timeout": "1h", "memory": "1TiB"}, workers={"min": 40, "max": 50})
        assert [problem.place for problem in problems] == [
            "limits.timeout",
            "limits.memory",
            "workers.min",
            "workers.max",
        ]

    def test_a_ceiling_lowers_what_was_not_asked_for(self) -> None:
        rules = {"ceilings": {"timeout": "1s", "load_timeout": "2s", "memory": "64MiB", "max_pending": 7, "workers": 2,
                              "log_rate": "1KiB", "idle": "1m"}}  # fmt: skip
        assert check(rules) == []
        limits = limits_of(request(), Settings.read({"defaults": rules}).rules("acme").ceilings, cores=8)
        assert (limits.timeout, limits.queue_timeout, limits.load_timeout) == (1.0, 1.0, 2.0)
        assert (limits.memory, limits.max_pending, limits.max_workers) == (64 * MIB, 7, 2)
        assert (limits.log_rate, limits.idle) == (1024, 60.0)

    def test_a_source_that_is_too_large_counts_its_helpers(self) -> None:
        (problem,) = check({"ceilings": {"source": "10B"}}, files={"helper.py": "x" * 6})
        assert problem.place == "source"
        assert status_of([problem]) == 413

    @pytest.mark.parametrize("weak", ["process", "unsafe-dev"])
    def test_a_profile_that_is_weaker_than_the_default_is_allowed_by_name_alone(self, weak: str) -> None:
        (problem,) = check({}, sandbox=weak)
        assert (problem.place, problem.code) == ("sandbox", "profile-not-allowed")
        assert problem.advice == "profiles allowed: strict, isolated, oneshot"
        assert check({"profiles": [weak]}, sandbox=weak) == []
        assert check({}, sandbox="isolated") == check({}, sandbox="oneshot") == []

    def test_a_profile_that_the_operator_made_the_default_is_allowed_where_nothing_is_said(self) -> None:
        settings = Settings.model_validate({"default_profile": "process"})
        assert settings.profiles("acme") == ("process", "strict", "isolated", "oneshot")
        said = {"default_profile": "process", "defaults": {"profiles": ["strict"]}}
        assert Settings.model_validate(said).profiles("acme") == ("strict",)


class TestCounts:
    @pytest.mark.parametrize(
        ("rules", "usage", "place"),
        [
            ({"max_functions": 2}, Usage(functions=2), ""),
            ({"max_workers": 10}, Usage(workers=8), "workers.max"),
            ({"max_memory": "1GiB"}, Usage(memory=700 * MIB), "limits.memory"),
            ({"max_workloads": 5}, Usage(everywhere=5), ""),
        ],
    )
    def test_a_namespace_that_is_full(self, rules: dict[str, Any], usage: Usage, place: str) -> None:
        (problem,) = check(rules, usage, workers={"max": 4})
        assert (problem.place, problem.code) == (place, "quota-exceeded")
        assert status_of([problem]) == 429

    @pytest.mark.parametrize(
        ("rules", "usage"),
        [
            ({"max_functions": 2}, Usage(functions=1)),
            ({"max_workers": 10}, Usage(workers=6)),
            ({"max_memory": "1GiB"}, Usage(memory=512 * MIB)),
            ({"max_workloads": 5}, Usage(everywhere=4)),
        ],
    )
    def test_the_last_place_can_be_had(self, rules: dict[str, Any], usage: Usage) -> None:
        assert check(rules, usage, workers={"max": 4}) == []


class TestReplyRule:
    RULE = ReplyRule(["orders.created", "stats.*.day", "logs.>"])

    @pytest.mark.parametrize("reply", ["_INBOX.abc.1", "my.inbox", "orders.created.answer", "stats.x", "_R_.abc"])
    def test_a_requester_is_answered(self, reply: str) -> None:
        assert self.RULE.may_answer(reply.encode())

    @pytest.mark.parametrize(
        "reply",
        [
            "",
            "$JS.API.STREAM.DELETE.ORDERS",
            "$JS.ACK.ORDERS.c.1.2.3.4.5",
            "$NEX.SVC.node.agent.SETLAMEDUCK",
            "$SYS.REQ.SERVER.PING",
            "orders.created",
            "stats.may.day",
            "logs.a.b.c",
            "orders.*",
            ">",
            "_INBOX.>",
        ],
    )
    def test_nothing_else_is(self, reply: str) -> None:
        assert not self.RULE.may_answer(reply.encode())


def test_an_operator_who_set_no_patterns_is_told() -> None:
    subjects, buckets = notices(Settings())
    assert "any subject" in subjects
    assert "any bucket" in buckets
    rules: dict[str, Any] = {"subjects": ["{namespace}.>"]}
    assert notices(Settings.read({"defaults": rules})) == [buckets]
    assert notices(Settings.read({"defaults": {"grants": {"kv": {}, "objects": {}}}})) == [subjects]
    assert notices(Settings.read({"defaults": {**rules, "grants": {"kv": {}, "objects": {}}}})) == []


class TestRequests:
    def test_queue_groups_stay_within_the_namespace(self) -> None:
        start = request(triggers=["a", {"subject": "b", "queue_group": "g"}, {"subject": "c", "queue_group": ""}])
        groups = [trigger.queue_group for trigger in triggers_of(start, "W1", "acme", "greet")]
        assert groups == ["acme.greet", "acme.g", ""]

    def test_without_triggers_it_listens_on_its_id(self) -> None:
        (trigger,) = triggers_of(request(), "W1", "acme", "greet")
        assert (trigger.subject, trigger.queue_group, trigger.reply) == ("W1", "acme.greet", True)

    @pytest.mark.parametrize(
        ("workers", "cores", "expected"),
        [
            ({}, 8, (0, 4)),
            ({}, 2, (0, 2)),
            ({"min": 6}, 2, (6, 6)),
            ({"max": 1}, 8, (0, 1)),
            ({"min": 2, "max": 3}, 8, (2, 3)),
        ],
    )
    def test_workers(self, workers: dict[str, int], cores: int, expected: tuple[int, int]) -> None:
        limits = limits_of(request(workers=workers), Ceilings(), cores=cores)
        assert (limits.min_workers, limits.max_workers) == expected

    def test_how_long_may_be_waited_for_them(self) -> None:
        assert limits_of(request(), Ceilings()).wait == 0.005
        assert limits_of(request(workers={"wait": "0s"}), Ceilings()).wait == 0.0
        assert limits_of(request(workers={"wait": "1m"}), Ceilings()).wait == 60.0

    def test_what_is_asked_for_is_taken(self) -> None:
        asked = {"timeout": "90s", "load_timeout": "1s", "memory": "1MiB", "max_pending": 3, "queue_timeout": "2s",
                 "log_rate": "1KiB", "idle": "0s"}  # fmt: skip
        limits = limits_of(request(limits=asked), Ceilings())
        assert (limits.timeout, limits.load_timeout, limits.queue_timeout, limits.idle) == (90.0, 1.0, 2.0, 0.0)
        assert (limits.memory, limits.max_pending, limits.log_rate) == (MIB, 3, 1024)

    def test_a_reply_leaves_room_for_headers(self) -> None:
        start = request()
        assert fit_reply(limits_of(start, Ceilings()), start, MIB).max_reply == MIB - 4096
        assert fit_reply(limits_of(start, Ceilings()), start, 1000).max_reply == 500

    def test_a_reply_larger_than_the_server_takes_is_refused(self) -> None:
        start = request(limits={"max_reply": "1MiB"})
        with pytest.raises(Refusal, match=r"limits.max_reply .* less headers"):
            fit_reply(limits_of(start, Ceilings()), start, MIB)
        small = request(limits={"max_reply": "1KiB"})
        assert fit_reply(limits_of(small, Ceilings()), small, MIB).max_reply == 1024


class TestRefusals:
    def test_problems_of_one_kind_give_its_status(self) -> None:
        quota = Problem("full", code="quota-exceeded")
        assert status_of([quota, quota]) == 429
        assert status_of([quota, Problem("wrong", code="bad-subject")]) == 400
        assert status_of([Problem("unheard of", code="new")]) == 400

    def test_the_text_is_what_a_person_reads(self) -> None:
        error = refused("greet", [Problem("it is wrong", "limits.timeout", advice="mend it")])
        assert error.text == "greet refused: 1 problem\n  limits.timeout  it is wrong\n      mend it"
        assert error.status == 400
