"""Who may do what: an operator's rules held against what a start request asks for, and against where a reply goes.

`Policy.check` names every rule that a request breaks. `Usage` is what a namespace has already. `within` says whether a
trigger lies inside what a namespace may listen to. `ReplyRule` decides, once for each message, whether its reply
subject may be answered: a function's words must not become commands to JetStream or Nex, nor messages to itself.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from nexlet_functions.grants.outwards import HostPattern, UrlRefused
from nexlet_models.durations import format_duration
from nexlet_models.problems import Problem
from nexlet_models.sizes import format_size
from nexlet_models.start_request import IntervalTrigger, StartRequest, StreamTrigger, TimedTrigger, Trigger
from nexlet_models.subjects import matches
from nexlet_sandboxes.profiles import PROFILES
from nexlet_sandboxes.program import Limits

if TYPE_CHECKING:
    from nexlet_functions.rules import NamespaceRules
    from nexlet_functions.settings import Settings

__all__ = ["Policy", "ProfilesHeld", "ReplyRule", "Rules", "Usage", "notices", "within"]

_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True, slots=True)
class Usage:
    """What functions have been granted: how many there are, and the workers and memory that they may take at most.

    Attributes:
        functions: of the namespace.
        workers: of these functions, by their `workers.max`.
        memory: of these workers, in bytes.
        everywhere: functions of all namespaces on this nexlet.
    """

    functions: int = 0
    workers: int = 0
    memory: int = 0
    everywhere: int = 0


class Rules(Protocol):
    """What a policy reads: `Settings` for a nexlet, and for who has none the rules that hold where nothing is said."""

    @property
    def default_profile(self) -> str: ...

    @property
    def max_workloads(self) -> int: ...

    def rules(self, namespace: str) -> NamespaceRules: ...

    def profiles(self, namespace: str) -> tuple[str, ...]: ...


class ProfilesHeld(Protocol):
    """What the machine's sandbox holds: `nexlet_functions.sandboxing.Sandboxing`."""

    def lacking(self, profile: str) -> tuple[str, ...]: ...


class Policy:
    """The operator's rules as they are in force at the moment of asking."""

    def __init__(self, current: Callable[[], Rules], sandboxing: ProfilesHeld) -> None:
        """Rules of what `current` returns, asked anew for each check, where the sandbox is what `sandboxing` says."""
        self._current = current
        self._sandboxing = sandboxing

    def check(self, namespace: str, request: StartRequest, limits: Limits, usage: Usage) -> list[Problem]:
        """Every rule that a start request of `namespace` breaks.

        Args:
            limits: what the request asks for, defaults filled in.
            usage: without this function.
        """
        return [
            *self._subjects(namespace, request),
            *self._grants(namespace, request),
            *self._ceilings(namespace, request, limits),
            *self._counts(namespace, limits, usage),
        ]

    def profile(self, request: StartRequest) -> str:
        """The sandbox profile a function gets: the one it asks for, else the operator's default."""
        return request.sandbox or self._current().default_profile

    def _subjects(self, namespace: str, request: StartRequest) -> list[Problem]:
        rules = self._current().rules(namespace)
        listen = rules.subjects or None
        # What failed is published in the namespace's name, as what a function publishes itself.
        publish = listen if rules.grants.publish is None else rules.grants.publish
        problems = []
        for number, trigger in enumerate(request.triggers):
            for key, verb, subject in _subjects_of(trigger):
                patterns = listen if verb == _LISTEN else publish
                if patterns is None:
                    continue
                allowed = [pattern.replace("{namespace}", namespace) for pattern in patterns]
                if not any(within(subject, pattern) for pattern in allowed):
                    problems.append(
                        Problem(
                            f"namespace '{namespace}' may not {verb} '{subject}'",
                            f"triggers[{number}].{key}",
                            advice=f"subjects allowed: {', '.join(allowed) or 'none'}",
                            code="subject-not-allowed",
                        )
                    )
        return problems

    def _grants(self, namespace: str, request: StartRequest) -> list[Problem]:
        rules = self._current().rules(namespace)
        ceilings, asked = rules.grants, request.grants
        problems: list[Problem] = []
        for key, said in (("publish", ceilings.publish), ("request", ceilings.request)):
            # Without a word of their own they go no further than triggers do: who may not listen may not tell, either.
            patterns = (rules.subjects or None) if said is None else said
            if patterns is None:
                continue
            allowed = [pattern.replace("{namespace}", namespace) for pattern in patterns]
            problems += [
                _not_grantable(f"grants.{key}[{number}]", namespace, f"{key} on '{subject}'", "subjects", allowed)
                for number, subject in enumerate(getattr(asked, key))
                if not any(within(subject, pattern) for pattern in allowed)
            ]
        for key, buckets in (("kv", ceilings.kv), ("objects", ceilings.objects)):
            if buckets is None:
                continue
            given = {pattern.replace("{namespace}", namespace): access for pattern, access in buckets.items()}
            problems += [
                _not_grantable(
                    f"grants.{key}.{bucket}" if bucket.isidentifier() else f'grants.{key}["{bucket}"]',
                    namespace,
                    f"{access} the {_STORES[key]} '{bucket}'",
                    "buckets",
                    [f"{pattern}: {most}" for pattern, most in given.items()],
                )
                for bucket, access in getattr(asked, key).items()
                if not any(
                    most in ("write", access) and fnmatch.fnmatchcase(bucket, pattern)
                    for pattern, most in given.items()
                )
            ]
        if asked.http is not None:
            problems += _no_hosts(asked.http.hosts)
        if asked.http is not None and ceilings.http_hosts is not None:
            problems += [
                _not_grantable(
                    f"grants.http.hosts[{number}]", namespace, f"ask '{host}' by HTTP", "hosts", ceilings.http_hosts
                )
                for number, host in enumerate(asked.http.hosts)
                if not any(_within_hosts(host, pattern) for pattern in ceilings.http_hosts)
            ]
        return problems

    def _ceilings(self, namespace: str, request: StartRequest, limits: Limits) -> list[Problem]:
        rules = self._current().rules(namespace)
        ceilings = rules.ceilings
        source = len(request.source or "") + sum(len(text) for text in request.files.values())
        problems = [
            *_over("limits.timeout", limits.timeout, ceilings.timeout, format_duration),
            *_over("limits.load_timeout", limits.load_timeout, ceilings.load_timeout, format_duration),
            *(
                _over("limits.queue_timeout", limits.queue_timeout, ceilings.timeout, format_duration)
                if request.limits.queue_timeout is not None
                else ()  # then it is the timeout, of which everything is said already
            ),
            *_over("limits.memory", limits.memory, ceilings.memory, format_size),
            *_over("limits.max_pending", limits.max_pending, ceilings.max_pending, str),
            *_over("limits.max_calls", limits.max_calls, ceilings.max_calls, str),
            *_over("limits.log_rate", limits.log_rate, ceilings.log_rate, format_size),
            *_over("limits.idle", limits.idle, ceilings.idle, format_duration),
            *_over("workers.min", limits.min_workers, ceilings.workers, str),
            *_over("workers.max", limits.max_workers, ceilings.workers, str),
            *_over("source", source, ceilings.source, format_size, code="too-large"),
            *_too_often(request, ceilings.interval),
        ]
        profile, profiles = self.profile(request), self._current().profiles(namespace)
        if profile not in profiles:
            problems.append(
                Problem(
                    f"the profile '{profile}' is not allowed for namespace '{namespace}'",
                    "sandbox",
                    advice=f"profiles allowed: {', '.join(profiles)}",
                    code="profile-not-allowed",
                )
            )
        elif PROFILES[profile].single_use and request.batch > 1:
            problems.append(
                Problem(
                    f"the profile '{profile}' runs each invocation in a process of its own, a batch several in one",
                    "batch",
                    advice="leave batch out, or choose another profile: sandbox: strict",
                    code="batch-in-oneshot",
                )
            )
        elif lacking := self._sandboxing.lacking(profile):
            usable = [name for name in profiles if not self._sandboxing.lacking(name)]
            problems.append(
                Problem(
                    f"the profile '{profile}' cannot be had on this nexlet's machine, which lacks {', '.join(lacking)}",
                    "sandbox",
                    advice=f"profiles that can: {', '.join(usable) or 'none'}; 'nexlet-functions doctor' tells its "
                    "operator what to do",
                    code="profile-unavailable",
                )
            )
        return problems

    def _counts(self, namespace: str, limits: Limits, usage: Usage) -> list[Problem]:
        settings = self._current()
        rules = settings.rules(namespace)
        problems = []
        if settings.max_workloads and usage.everywhere >= settings.max_workloads:
            problems.append(_full(f"this nexlet runs {usage.everywhere} functions, all it may"))
        if rules.max_functions is not None and usage.functions >= rules.max_functions:
            problems.append(
                _full(
                    f"namespace '{namespace}' has {usage.functions} functions here, "
                    f"of {rules.max_functions} that it may have"
                )
            )
        workers = usage.workers + limits.max_workers
        if rules.max_workers is not None and workers > rules.max_workers:
            problems.append(
                _full(
                    f"namespace '{namespace}' would have {workers} workers here, "
                    f"of {rules.max_workers} that it may have",
                    "workers.max",
                )
            )
        memory = usage.memory + limits.max_workers * limits.memory
        if rules.max_memory is not None and memory > rules.max_memory:
            problems.append(
                _full(
                    f"the workers of namespace '{namespace}' could take {format_size(memory)} here, "
                    f"of {format_size(rules.max_memory)} that they may take",
                    "limits.memory",
                )
            )
        return problems


_STORES = {"kv": "bucket", "objects": "object store"}


def _not_grantable(place: str, namespace: str, what: str, kind: str, allowed: Sequence[str]) -> Problem:
    return Problem(
        f"functions of namespace '{namespace}' may not {what}",
        place,
        advice=f"{kind} allowed: {', '.join(allowed) or 'none'}",
        code="grant-not-allowed",
    )


def _no_hosts(hosts: Sequence[str]) -> list[Problem]:
    """Entries that have the form of a host, and are none where calls are held to them: `0x7f.1`, `2130706433`."""
    problems = []
    for number, host in enumerate(hosts):
        try:
            HostPattern.parse(host)
        except UrlRefused as refused:
            problems.append(
                Problem(
                    f"'{host}' {refused}",
                    f"grants.http.hosts[{number}]",
                    advice="write a name, api.example.com, or an address in its usual form, 192.0.2.1 or [2001:db8::1]",
                    code="bad-host",
                )
            )
    return problems


def _within_hosts(host: str, allowed: str) -> bool:
    """Whether each host of a grant is one of those allowed. Without a port, a pattern is about the usual one."""
    if allowed in ("*", host):
        return True
    return allowed.startswith("*.") and host.endswith(allowed[1:]) and len(host) > len(allowed) - 1


def _subjects_of(trigger: object) -> list[tuple[str, str, str]]:
    """The keys of a trigger that name subjects, each with what is done there."""
    if isinstance(trigger, StreamTrigger):
        found = [("filter" if trigger.filter else "stream", _LISTEN, trigger.pattern)]
        return found + ([("dead_letter", _PUBLISH, trigger.dead_letter)] if trigger.dead_letter else [])
    if isinstance(trigger, Trigger):
        found = [("subject", _LISTEN, trigger.subject)]
        return found + ([("on_failure", _PUBLISH, trigger.on_failure)] if trigger.on_failure else [])
    return []


_LISTEN, _PUBLISH = "listen to", "send to"


def _over(
    place: str, asked: _Number, ceiling: _Number, shown: Callable[[_Number], str], code: str = "over-ceiling"
) -> list[Problem]:
    if asked <= ceiling:
        return []
    return [
        Problem(
            f"{shown(asked)} is more than the {shown(ceiling)} that the operator allows",
            place,
            advice=f"ask for at most {shown(ceiling)}, or ask the operator for more",
            code=code,
        )
    ]


def _too_often(request: StartRequest, least: float) -> list[Problem]:
    return [
        Problem(
            f"{format_duration(trigger.interval)} is less than the {format_duration(least)} that the operator allows "
            "between two runs",
            f"triggers[{number}].{'every' if isinstance(trigger, IntervalTrigger) else 'schedule'}",
            advice="have it run less often, or ask the operator for more",
            code="over-ceiling",
        )
        for number, trigger in enumerate(request.triggers)
        if isinstance(trigger, TimedTrigger) and trigger.interval < least
    ]


def _full(message: str, place: str = "") -> Problem:
    return Problem(
        message, place, advice="stop a function, ask for less, or ask the operator for more", code="quota-exceeded"
    )


def within(pattern: str, allowed: str) -> bool:
    """Whether every subject that `pattern` matches is matched by `allowed`, too."""
    asked, given = pattern.split("."), allowed.split(".")
    for number, part in enumerate(given):
        if part == ">":
            return len(asked) > number
        if number >= len(asked) or asked[number] == ">":
            return False
        if part not in ("*", asked[number]):
            return False
    return len(asked) == len(given)


_ASTERISK, _GREATER = b"*>"
"""As numbers: looking for one in bytes takes a tenth of what looking for a text of one character takes."""


class ReplyRule:
    """Where the answers of one function may go."""

    __slots__ = ("_literal", "_patterns")

    def __init__(self, triggers: Sequence[str]) -> None:
        """The rule for a function with these trigger subjects."""
        self._literal = frozenset(subject for subject in triggers if "*" not in subject and ">" not in subject)
        self._patterns = tuple(subject for subject in triggers if subject not in self._literal)

    def may_answer(self, subject: bytes) -> bool:
        """Whether a reply to `subject`, as it came over the wire, may be sent.

        Not to what begins with `$` (`$JS.API`, `$NEX`, `$SYS`, ...: NATS's and Nex's own), not to a trigger of the
        function itself, not to a wildcard, which no requester ever waits on, and not to nowhere.
        """
        if subject[:7] == b"_INBOX.":  # nearly always; and no trigger can lie there
            return _ASTERISK not in subject and _GREATER not in subject
        reply = subject.decode("utf-8", "replace")
        return (
            reply != ""
            and reply[0] != "$"
            and "*" not in reply
            and ">" not in reply
            and reply not in self._literal
            and not any(matches(pattern, reply) for pattern in self._patterns)
        )


def notices(settings: Settings) -> list[str]:
    """What the start log says about rules that an operator may not know to be missing."""
    if settings.defaults.credentials is not None:
        return []
    told, grants = [], settings.defaults.grants
    if not settings.defaults.subjects:
        told.append(
            "no subject patterns are set: any namespace whose credentials the server lets subscribe may listen to any "
            "subject, and be granted to publish on it; set defaults.subjects, such as ['{namespace}.>'], in the "
            "settings file"
        )
    if grants.kv is None or grants.objects is None:
        told.append(
            "no buckets are set for grants: functions of any namespace may be granted any bucket that its credentials "
            "reach; set defaults.grants.kv and defaults.grants.objects, such as {'{namespace}-*': write}, in the "
            "settings file"
        )
    return told
