"""Plays a recorded scenario again: says the client's and the agent's part, and holds the node's part to the recording.

Ids, keys, times and durations are other ones in each run. A recorded one stands for what the node says in its place the
first time, and has to stand for the same from then on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from nexlet_models import subjects
from tests.support.frames import Frame, scenarios
from tests.support.scripted_agent import VERBS, Answer, Asked, ScriptedAgent
from tests.support.settle import settle

__all__ = ["Replay"]

_NODE = r"N[A-Z2-7]{55}"
_KINDS = {
    "node": _NODE,
    "curve key": r"X[A-Z2-7]{55}",
    "id": r"[0-9A-Za-z]{22}",
    "time": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)",
    "duration": r"((\d+h)?\d+m)?\d+(\.\d+)?(ns|µs|ms|s)",
    "url": r"nats://127\.0\.0\.1:\d+",
    "node name": r"[a-z]+-node-\d+",
}
_PASSING = {"time", "duration", "node name"}  # two that are equal need not stay so
_IDS = re.compile(rf"{_NODE}|X[A-Z2-7]{{55}}|[0-9A-Za-z]{{22}}")
_OF_THE_MACHINE = {"nex.arch", "nex.cpucount", "nex.os", "version"}
_SHORTENED = '{"type":"object"}'  # what the recording has in place of a long schema
_CLIENT = re.compile(r"\$NEX\.SVC\.[^.]+\.control\.(?!HEARTBEAT)")


class Replay:
    """One node under test, and what stands for what so far.

    Attributes:
        agent: plays the nexlet's part; registers in the scenarios that show it, or is handed in.
    """

    def __init__(self, url: str, node_id: str, client: Client, events: Subscription) -> None:
        self._url = url
        self._client = client
        self._events = events
        self._node_id = node_id
        self._stands_for: dict[str, str] = {}
        self._failed: list[BaseException] = []
        self.agent: ScriptedAgent | None = None

    @classmethod
    async def over(cls, url: str, node_id: str) -> Replay:
        """Begin to listen, before the node says anything."""
        client = await nats.connect(url)
        # What the node announces by itself: its events, and its heartbeat.
        events = await client.subscribe("$NEX.>")
        await settle(client)
        return cls(url, node_id, client, events)

    async def close(self) -> None:
        if self.agent is not None:
            await self.agent.close()
        await self._client.close()

    async def scenario(self, name: str, *, before: Callable[[], Awaitable[None]] | None = None) -> None:
        """Play one scenario to its end.

        Args:
            before: done once everything that can be said beforehand is said; brings about what the node does by itself.
        """
        frames = scenarios()[name]
        for frame in frames:
            for recorded in re.findall(_NODE, json.dumps([frame.subject, frame.body])):
                self._stands_for[recorded] = self._node_id
        registered = next((frame for frame in frames if ".agent.REGISTER." in frame.subject), None)
        if registered is not None:
            await self._register(frames)
            return
        self._script(frames)
        inboxes: dict[str, Subscription] = {}
        if before is not None:
            await before()
        for frame in frames:
            if _CLIENT.match(frame.subject):
                inboxes[frame.subject] = await self._ask(frame)
                if not frame.is_json:
                    del inboxes[frame.subject]  # the recording leaves out answers that are bare bytes
            elif _CLIENT.match(frame.asked):
                await self._expect_answer(frame, inboxes.pop(frame.asked))
            elif frame.subject.startswith("$NEX.FEED.N") or ".control.HEARTBEAT." in frame.subject:
                await self._expect_announced(frame)
            elif ".agent.HEARTBEAT." in frame.subject and self.agent is not None:
                await self.agent.heartbeat()
            self._raise_failed(frame)
        for subject, inbox in inboxes.items():
            await self._expect_silence(subject, inbox)

    # --- the agent's part ------------------------------------------------------------------------------------------

    async def _register(self, frames: list[Frame]) -> None:
        """The exchange of a registration, by hand, so that each answer is seen."""
        request, answer, register, registered = frames[:4]
        seen = await self._client.request(request.subject, _encoded(request.body), timeout=5)
        self.unify(answer.body, json.loads(seen.data), f"{answer}")
        said = self.substituted(register.body)
        # The id that was assigned is used up by a registration of our own, whose answer is held to the recording.
        seen = await self._client.request(self.substituted(register.subject), _encoded(said), timeout=5)
        self.unify(registered.body, json.loads(seen.data), f"{registered}")
        assigned = register.subject.rpartition(".")[2]
        self.agent = await ScriptedAgent.resume(
            self._url, self._node_id, self._stands_for[assigned], register_type=said["register_type"]
        )
        await self.agent.heartbeat()

    def _script(self, frames: list[Frame]) -> None:
        """Have the agent answer what it answered then, and hold what it is asked to what it was asked."""
        for verb in VERBS:
            asked = [
                frame
                for frame in frames
                if frame.is_request and ".agent." in frame.subject and verb in frame.subject.split(".")
            ]
            if asked and self.agent is not None:
                self.agent.script(verb, self._canned(asked, frames))

    def _canned(self, asked: list[Frame], frames: list[Frame]) -> Callable[[Asked], Answer | None]:
        left = list(asked)

        def answer(seen: Asked) -> Answer | None:
            try:
                frame = left.pop(0)
                recorded_id = frame.subject.rpartition(".")[2]
                if seen.workload:
                    self.unify(recorded_id, seen.workload, f"{frame} subject")
                self.unify(frame.body, json.loads(seen.data), f"{frame}")
                said = next((other for other in frames if other.asked == frame.subject), None)
            except BaseException as error:  # handed to the test, which waits elsewhere
                self._failed.append(error)
                return None
            return Answer(_encoded(self.substituted(said.body)), self.substituted(said.headers)) if said else None

        return answer

    # --- the client's part -----------------------------------------------------------------------------------------

    async def _ask(self, frame: Frame) -> Subscription:
        inbox = self._client.new_inbox()
        subscription = await self._client.subscribe(inbox)
        payload = _encoded(self.substituted(frame.body)) if frame.is_json else self.substituted(frame.body).encode()
        await self._client.publish(self.substituted(frame.subject), payload, reply=inbox)
        return subscription

    # --- the node's part -------------------------------------------------------------------------------------------

    async def _expect_answer(self, frame: Frame, inbox: Subscription) -> None:
        try:
            seen = await inbox.next_msg(timeout=10)
        except nats.errors.TimeoutError:
            self._raise_failed(frame)
            raise AssertionError(f"{frame}: no answer") from None
        headers = dict(seen.headers or {})
        wanted = self.substituted(frame.headers)
        assert headers == wanted, f"{frame}: headers {headers}, recorded are {wanted}"
        self.unify(frame.body, json.loads(seen.data), f"{frame}", failed=frame.failed)

    async def _expect_announced(self, frame: Frame) -> None:
        subject = self.substituted(frame.subject)

        async def announced() -> Msg:
            while True:
                message = await self._events.next_msg(timeout=20)
                if message.subject == subject:
                    return message

        try:
            seen = await announced()
        except nats.errors.TimeoutError:
            raise AssertionError(f"{frame}: nothing was announced on {subject}") from None
        self.unify(frame.body, json.loads(seen.data), f"{frame}")

    async def _expect_silence(self, subject: str, inbox: Subscription) -> None:
        # An answer to what was asked later means that this question has been looked at.
        await self._client.request(subjects.node_ping_one(self._node_id), b'{"filter":null}', timeout=5)
        assert inbox.pending_msgs == 0, f"an answer on {subject}, where the recorded node was silent"

    def _raise_failed(self, frame: Frame) -> None:
        if self._failed:
            raise AssertionError(f"{frame}: the agent was asked something else than then") from self._failed[0]

    # --- the same but for ids --------------------------------------------------------------------------------------

    def substituted(self, recorded: Any) -> Any:
        """What was recorded, with our ids."""
        if isinstance(recorded, dict):
            return {name: self.substituted(value) for name, value in recorded.items()}
        if isinstance(recorded, list):
            return [self.substituted(value) for value in recorded]
        if isinstance(recorded, str):
            return _IDS.sub(lambda found: self._stands_for.get(found[0], found[0]), recorded)
        return recorded

    def unify(self, recorded: Any, seen: Any, place: str, *, failed: bool = False) -> None:
        """Fail where the two differ in more than ids, keys, times, durations and what is the machine's own."""
        if isinstance(recorded, dict) and isinstance(seen, dict):
            rename = {name: self._stands_for.get(name, name) for name in recorded}
            unknown = [name for name, ours in rename.items() if ours not in seen and re.fullmatch(_KINDS["id"], name)]
            ours_left = [name for name in seen if name not in rename.values()]
            for name, ours in zip(unknown, ours_left, strict=False):
                self._same_string(name, ours, f"{place}.{name}")
                rename[name] = ours
            assert set(rename.values()) == set(seen), f"{place}: fields {sorted(seen)}, recorded are {sorted(recorded)}"
            for name, ours in rename.items():
                if name in _OF_THE_MACHINE or (failed and name in ("error", "error_id")):
                    assert isinstance(seen[ours], str), f"{place}.{name}"
                    assert seen[ours], f"{place}.{name} is empty"
                    continue
                self.unify(recorded[name], seen[ours], f"{place}.{name}")
        elif isinstance(recorded, list) and isinstance(seen, list):
            assert len(recorded) == len(seen), f"{place}: {len(seen)} entries, recorded are {len(recorded)}"
            for number, (one, other) in enumerate(zip(recorded, seen, strict=True)):
                self.unify(one, other, f"{place}[{number}]")
        elif isinstance(recorded, str) and isinstance(seen, str):
            self._same_string(recorded, seen, place)
        else:
            assert type(recorded) is type(seen), f"{place}: {seen!r}, recorded is {recorded!r}"
            assert recorded == seen, f"{place}: {seen!r}, recorded is {recorded!r}"

    def _same_string(self, recorded: str, seen: str, place: str) -> None:
        if recorded == seen or (recorded == _SHORTENED and json.loads(seen)["type"] == "object"):
            return
        for kind, form in _KINDS.items():
            if re.fullmatch(form, recorded) and re.fullmatch(form, seen):
                if kind in _PASSING:
                    return
                stands_for = self._stands_for.setdefault(recorded, seen)
                assert stands_for == seen, f"{place}: {kind} {seen}, where {recorded} has been {stands_for}"
                return
        # Texts with ids, or times of day, within.
        form = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME", self.substituted(recorded))
        ours = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME", seen)
        if all(re.fullmatch(r"\S+ \[\S+\](, \S+ \[\S+\])*", text) for text in (form, ours)):
            return
        assert form == ours, f"{place}: {seen!r}, recorded is {recorded!r}"


def _encoded(body: Any) -> bytes:
    return json.dumps(body).encode()
