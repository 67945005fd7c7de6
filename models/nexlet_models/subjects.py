"""Every NATS subject of Nex, one function each, and the rules by which subjects are told apart.

What is put into a subject is checked to be one token: an id with a dot or a wildcard in it would make the subject
another one. Where a subject is subscribed to, `*` may stand for any. What a nexlet only publishes on takes no wildcard.

`NEXUS` is the name of a group of nodes, `NODE` a node's public key (N...), `AGENT` an agent's id, `NS` a namespace,
`WID` a workload's id.
"""

from __future__ import annotations

import re
import unicodedata

from nexlet_models.errors import InvalidToken, ModelError

__all__ = [
    "MAX_SUBJECT",
    "SYSTEM",
    "agent_events",
    "agent_id",
    "all_events",
    "all_logs",
    "all_metrics",
    "auction",
    "clone",
    "deploy",
    "event",
    "get_workload",
    "heartbeat",
    "ingress",
    "list_workloads",
    "logs",
    "matches",
    "metrics",
    "node_heartbeat",
    "node_info",
    "node_lameduck",
    "node_ping",
    "node_ping_one",
    "overlaps",
    "ping_agent",
    "ping_agents",
    "ping_workload",
    "placement_tags",
    "query_workloads",
    "register",
    "remote_register",
    "set_lameduck",
    "start_workload",
    "stop_workload",
    "tokens",
    "undeploy",
    "valid_name",
    "valid_subject",
    "valid_token",
    "valid_trigger",
]

_ANY, _REST = "*", ">"

SYSTEM = "system"
"""The administrators' namespace: it may act on any other."""

MAX_SUBJECT = 1024
"""Longest subject, in bytes. A server reads at most 4096 for a whole protocol line by default, and on it stand the
reply subject, the queue group and numbers too."""


# --- an agent and its node ---------------------------------------------------------------------------------------


def remote_register(nexus: str) -> str:
    """`$NEX.SVC.NEXUS.agent.RREGISTER`, served by nodes that take remote agents."""
    return f"{_agent_api(nexus)}.RREGISTER"


def register(node: str, agent: str = "*") -> str:
    """`$NEX.SVC.NODE.agent.REGISTER.AGENT`, served by the node."""
    return f"{_agent_api(node)}.REGISTER.{_any(agent)}"


def heartbeat(node: str, agent: str = "*") -> str:
    """`$NEX.SVC.NODE.agent.HEARTBEAT.AGENT`, which the node listens to and does not answer."""
    return f"{_agent_api(node)}.HEARTBEAT.{_any(agent)}"


def start_workload(node: str, agent: str, workload: str = "*") -> str:
    """`$NEX.SVC.NODE.agent.AGENT.STARTWORKLOAD.WID`, served by the agent."""
    return f"{_agent_api(node)}.{_any(agent)}.STARTWORKLOAD.{_any(workload)}"


def stop_workload(node: str, workload: str = "*") -> str:
    """`$NEX.SVC.NODE.agent.STOPWORKLOAD.WID`, served by every agent of the node."""
    return f"{_agent_api(node)}.STOPWORKLOAD.{_any(workload)}"


def get_workload(node: str, workload: str = "*") -> str:
    """`$NEX.SVC.NODE.agent.GETWORKLOAD.WID`, served by every agent of the node; silence where it is unknown."""
    return f"{_agent_api(node)}.GETWORKLOAD.{_any(workload)}"


def query_workloads(node: str) -> str:
    """`$NEX.SVC.NODE.agent.QUERYWORKLOADS`, served by every agent of the node."""
    return f"{_agent_api(node)}.QUERYWORKLOADS"


def ping_agent(node: str, agent: str) -> str:
    """`$NEX.SVC.NODE.agent.AGENT.PING`, served by the agent."""
    return f"{_agent_api(node)}.{_any(agent)}.PING"


def ping_agents(node: str) -> str:
    """`$NEX.SVC.NODE.agent.PING`, served by every agent of the node."""
    return f"{_agent_api(node)}.PING"


def set_lameduck(node: str) -> str:
    """`$NEX.SVC.NODE.agent.SETLAMEDUCK`, served by every agent of the node."""
    return f"{_agent_api(node)}.SETLAMEDUCK"


def ping_workload(nexus: str, workload: str = "*") -> str:
    """`$NEX.SVC.NEXUS.agent.PINGWORKLOAD.WID`, served by agents whose workloads listen on ports."""
    return f"{_agent_api(nexus)}.PINGWORKLOAD.{_any(workload)}"


# --- feeds ---------------------------------------------------------------------------------------------------------


def agent_events(agent: str) -> str:
    """`$NEX.FEED.AGENT.events`, which an agent that listens to events subscribes to."""
    return f"$NEX.FEED.{_one(agent)}.events"


def logs(namespace: str, workload: str, stream: str) -> str:
    """`$NEX.FEED.NS.logs.WID.stdout` or `.stderr`: raw bytes, a line or a traceback each."""
    if stream not in ("stdout", "stderr"):
        raise InvalidToken(stream, "names no stream of a log, which is stdout or stderr")
    return f"$NEX.FEED.{_one(namespace)}.logs.{_one(workload)}.{stream}"


def metrics(namespace: str, workload: str) -> str:
    """`$NEX.FEED.NS.metrics.WID`: JSON."""
    return f"$NEX.FEED.{_one(namespace)}.metrics.{_one(workload)}"


def event(source: str, name: str) -> str:
    """`$NEX.FEED.FROM.events.NAME`, FROM being a namespace for workload events, else a node's or an agent's id."""
    return f"$NEX.FEED.{_one(source)}.events.{_one(name)}"


def ingress(agent: str) -> str:
    """`$NEX.FEED.AGENT.events.INGRESS`: ports that came or went."""
    return event(agent, "INGRESS")


def all_logs(namespace: str = "*") -> str:
    """`$NEX.FEED.NS.logs.>`: what a client watches."""
    return f"$NEX.FEED.{_any(namespace)}.logs.>"


def all_metrics(namespace: str = "*") -> str:
    """`$NEX.FEED.NS.metrics.*`: what a client watches."""
    return f"$NEX.FEED.{_any(namespace)}.metrics.*"


def all_events(source: str = "*") -> str:
    """`$NEX.FEED.FROM.events.*`: what a client watches."""
    return f"$NEX.FEED.{_any(source)}.events.*"


# --- what clients ask a node ---------------------------------------------------------------------------------------


def auction(namespace: str) -> str:
    """`$NEX.SVC.NS.control.AUCTION`: which node can run this? Silence from those that cannot."""
    return f"{_control(namespace)}.AUCTION"


def deploy(namespace: str, bid: str = "*") -> str:
    """`$NEX.SVC.NS.control.ADEPLOY.BID`: run it there. Silence where the bid is not known."""
    return f"{_control(namespace)}.ADEPLOY.{_any(bid)}"


def undeploy(namespace: str, workload: str = "*") -> str:
    """`$NEX.SVC.NS.control.UNDEPLOY.WID`: stop it, wherever it runs."""
    return f"{_control(namespace)}.UNDEPLOY.{_any(workload)}"


def clone(namespace: str, workload: str = "*") -> str:
    """`$NEX.SVC.NS.control.CLONE.WID`: the request it was started with. Silence where it is unknown."""
    return f"{_control(namespace)}.CLONE.{_any(workload)}"


def list_workloads(namespace: str) -> str:
    """`$NEX.SVC.NS.control.WPING`: what runs, one answer a node."""
    return f"{_control(namespace)}.WPING"


def node_ping() -> str:
    """`$NEX.SVC.system.control.PING`: which nodes are there?"""
    return f"{_control(SYSTEM)}.PING"


def node_ping_one(node: str) -> str:
    """`$NEX.SVC.system.control.PING.NODE`: is that node there?"""
    return f"{_control(SYSTEM)}.PING.{_any(node)}"


def node_info(node: str) -> str:
    """`$NEX.SVC.system.control.INFO.NODE`: the node and its agents."""
    return f"{_control(SYSTEM)}.INFO.{_any(node)}"


def node_lameduck(node: str) -> str:
    """`$NEX.SVC.system.control.LAMEDUCK.NODE`: the node is to end after a delay."""
    return f"{_control(SYSTEM)}.LAMEDUCK.{_any(node)}"


def placement_tags() -> str:
    """`$NEX.SVC.system.control.PTAGS`: a node's placement tags."""
    return f"{_control(SYSTEM)}.PTAGS"


def agent_id(node: str) -> str:
    """`$NEX.SVC.system.control.AGENTID.NODE`: an agent's name as bare bytes in, its id as bare bytes out."""
    return f"{_control(SYSTEM)}.AGENTID.{_any(node)}"


def node_heartbeat(node: str = "*") -> str:
    """`$NEX.SVC.system.control.HEARTBEAT.NODE`: every ten seconds, the agents that the node knows."""
    return f"{_control(SYSTEM)}.HEARTBEAT.{_any(node)}"


def _agent_api(owner: str) -> str:
    return f"$NEX.SVC.{_any(owner)}.agent"


def _control(namespace: str) -> str:
    return f"$NEX.SVC.{_any(namespace)}.control"


def _one(token: str) -> str:
    reason = valid_token(token)
    if reason is not None:
        raise InvalidToken(token, reason)
    return token


def _any(token: str) -> str:
    return token if token == _ANY else _one(token)


# --- what a subject is ---------------------------------------------------------------------------------------------


def valid_token(text: str) -> str | None:
    """None if `text` can be one literal token of a subject (an id, a namespace, a name), else the reason why not."""
    if not text:
        return "is empty"
    if "." in text:
        return "has a '.' in it"
    return valid_subject(text, wildcards=False)


def valid_subject(text: str, *, wildcards: bool) -> str | None:
    """None if `text` is a subject, else the reason why not, as the end of a sentence that begins with the subject.

    Args:
        wildcards: whether it may be a pattern: `*` for one token, `>` for the rest.
    """
    if not text:
        return "is empty"
    for character in text:
        if character.isspace():
            return f"has white space in it ({_named(character)})"
        if unicodedata.category(character)[0] in "CZ":
            return f"has an invisible or control character in it ({_named(character)})"
    if len(text.encode()) > MAX_SUBJECT:
        return f"is longer than {MAX_SUBJECT} bytes"
    parts = text.split(".")
    if "" in parts:
        if len(parts) > 2 and "" in parts[1:-1]:
            return "has an empty token ('..')"
        return f"{'begins' if not parts[0] else 'ends'} with '.'"
    for number, token in enumerate(parts):
        if "*" not in token and ">" not in token:
            continue
        if len(token) > 1:
            return f"has a wildcard within the token '{token}': '*' and '>' stand for whole tokens"
        if not wildcards:
            return f"has the wildcard '{token}', which is not allowed here"
        if token == _REST and number < len(parts) - 1:
            return "has '>' before its last token: it stands for all that follows"
    return None


_NAMED = re.compile(r"[A-Za-z0-9_.-]*")


def valid_name(text: str) -> str | None:
    """None if a workload may be called `text`, else the reason why not (see `valid_subject`).

    Its queue group is made of it, and tools show and take it as an argument: on top of being a subject it has the
    characters of a service's name (ADR-32 of nats-architecture-and-design), and '.'.
    """
    reason = valid_subject(text, wildcards=False)
    if reason is not None:
        return reason
    if text.startswith("-"):
        return "begins with '-'"
    good = _NAMED.match(text)
    assert good is not None  # nothing at all is a match, too
    return None if good.end() == len(text) else f"has {text[good.end()]!r} in it"


_RESERVED = {"_INBOX": "replies", "_R_": "the server's replies", "_GR_": "the server's gateways"}


def valid_trigger(text: str) -> str | None:
    """None if a function may be triggered by `text`, else the reason why not (see `valid_subject`).

    On top of being a subject or pattern, it must belong neither to NATS nor to Nex, and its first token must be
    literal: a function that hears everything would hear everybody's replies and the system's own talk.
    """
    reason = valid_subject(text, wildcards=True)
    if reason is not None:
        return reason
    first = text.partition(".")[0]
    if first in ("*", ">"):
        return f"begins with the wildcard '{first}': the first token must be literal"
    if first.startswith("$"):
        return f"begins with '$': '{first}' belongs to NATS or Nex"
    if first in _RESERVED:
        return f"begins with '{first}', which is kept for {_RESERVED[first]}"
    return None


def _named(character: str) -> str:
    return f"U+{ord(character):04X} {unicodedata.name(character, '').lower()}".rstrip()


def overlaps(a: str, b: str) -> bool:
    """Whether some subject is matched by both patterns."""
    left, right = a.split("."), b.split(".")
    for one, other in zip(left, right, strict=False):
        if one == ">" or other == ">":
            return True
        if one != other and one != "*" and other != "*":
            return False
    return len(left) == len(right)


def matches(pattern: str, subject: str) -> bool:
    """Whether a message published on `subject` reaches a subscription to `pattern`."""
    if pattern == subject:
        return True
    wanted, given = pattern.split("."), subject.split(".")
    for number, token in enumerate(wanted):
        if number >= len(given):
            return False
        if token == _REST:
            return True
        if token not in (_ANY, given[number]):
            return False
    return len(wanted) == len(given)


def tokens(pattern: str, subject: str) -> list[str]:
    """What the wildcards of `pattern` matched in `subject`: one text a `*`, and one for all that `>` stands for.

    Raises:
        ModelError: `subject` does not match `pattern`.
    """
    if not matches(pattern, subject):
        raise ModelError(f"subject {subject!r} does not match {pattern!r}")
    given = subject.split(".")
    found = []
    for number, token in enumerate(pattern.split(".")):
        if token == _ANY:
            found.append(given[number])
        elif token == _REST:
            found.append(".".join(given[number:]))
    return found
