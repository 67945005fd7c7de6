"""A client of Nex's control API: what the `nex` command says to nodes, from Python, to a real node or the stand-in.

Nodes are asked all at once and each may answer or stay silent, so that most questions end with waiting for more
answers. Where the number of nodes is known, `nodes=` ends the waiting with the last of them.

- `ControlClient`: start, stop, clone and list workloads; ask for nodes.
- `ControlRefused`, `NoBid`, `NoAnswer`, `TooLarge`: how it can fail, beside a connection that is lost.
- `gather`: many answers to one request.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.nuid import NUID

from nexlet_functions.errors import NexletFunctionsError
from nexlet_functions.functions.keys import CurveKey
from nexlet_functions.natsio.errors import ConnectionLost
from nexlet_models import subjects
from nexlet_models.control import (
    AuctionRequest,
    AuctionResponse,
    CloneWorkloadRequest,
    NodeInfoRequest,
    NodeInfoResponse,
    NodePingRequest,
    NodePingResponse,
    PlacementTags,
)
from nexlet_models.durations import format_duration
from nexlet_models.registration import LameduckRequest, LameduckResponse
from nexlet_models.workloads import (
    AgentListWorkloadsRequest,
    AgentListWorkloadsResponse,
    StartWorkloadRequest,
    StartWorkloadResponse,
    StopWorkloadRequest,
    StopWorkloadResponse,
    WorkloadSummary,
)

__all__ = ["ControlClient", "ControlRefused", "NoAnswer", "NoBid", "TooLarge", "gather"]

ERROR_HEADER = "Nats-Service-Error"
CODE_HEADER = "Nats-Service-Error-Code"

_START_TIMEOUT = 65.0
"""Seconds for a deployment: a node gives its agent a minute."""


class ControlRefused(NexletFunctionsError):
    """A node or an agent answered with an error.

    Attributes:
        status: what it says of the kind; HTTP's numbers from nodes, 100 from Go nexlets.
        headline: one line.
        text: all of it, several lines allowed.
        error_id: to be found again in the node's log; "" where there is none.
    """

    code = "control-refused"

    def __init__(self, status: int, headline: str, text: str, error_id: str = "") -> None:
        self.status = status
        self.headline = headline
        self.text = text
        self.error_id = error_id
        # Several lines are an agent's whole refusal, which says by itself what it is about.
        complete = headline in text or "\n" in text
        super().__init__(text if complete else f"{headline}: {text}")


class NoBid(NexletFunctionsError):
    """No node can run it."""

    code = "no-bid"

    def __init__(self, agent_type: str, tags: Mapping[str, str] | None, lifecycle: str = "") -> None:
        wanted = f"type {agent_type!r}" + (f", lifecycle {lifecycle}" if lifecycle else "")
        wanted += f", tags {dict(tags)}" if tags else ""
        super().__init__(
            f"no node has a healthy agent for {wanted}; see what there is with `nex node ls` and `nex node info NODE`"
        )


class NoAnswer(NexletFunctionsError):
    """Nobody answered."""

    code = "no-answer"


class TooLarge(NexletFunctionsError):
    """The server takes no message of that size. Nothing was sent."""

    code = "payload-too-large"

    def __init__(self, size: int, most: int) -> None:
        super().__init__(
            f"the request has {size} bytes, and the server takes {most}\n"
            "  put the source into an object store: nexfn pack --push BUCKET"
        )


_LOST = (
    nats.errors.BadSubscriptionError,  # of a connection that was closed meanwhile
    nats.errors.ConnectionClosedError,
    nats.errors.ConnectionDrainingError,
    nats.errors.ConnectionReconnectingError,
    nats.errors.OutboundBufferLimitError,
    nats.errors.StaleConnectionError,
)


@contextmanager
def _asking(client: Client, subject: str, payload: bytes) -> Iterator[None]:
    """Around a question: what its client raises, as what it means.

    Raises:
        ConnectionLost, TooLarge: see there.
    """
    try:
        yield
    except nats.errors.MaxPayloadError:
        raise TooLarge(len(payload), client.max_payload) from None
    except _LOST as error:
        raise ConnectionLost(f"a question on '{subject}'") from error


async def gather(
    client: Client,
    subject: str,
    payload: bytes,
    *,
    wait: float,
    stall: float | None = None,
    count: int | None = None,
    until: Callable[[Msg], bool] | None = None,
) -> list[Msg]:
    """Ask once and take what comes.

    Args:
        wait: seconds, in all.
        stall: seconds since the latest answer after which no more is expected.
        count: answers after which no more is expected.
        until: no more is expected after an answer for which it holds.

    Returns:
        The answers in the order in which they came; none where nobody listens.

    Raises:
        ConnectionLost: before the last of them.
        TooLarge: it cannot be sent.
    """
    with _asking(client, subject, payload):
        return await _gathered(client, subject, payload, wait=wait, stall=stall, count=count, until=until)


async def _gathered(
    client: Client,
    subject: str,
    payload: bytes,
    *,
    wait: float,
    stall: float | None,
    count: int | None,
    until: Callable[[Msg], bool] | None,
) -> list[Msg]:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox)
    answers: list[Msg] = []
    try:
        await client.publish(subject, payload, reply=inbox)
        while count is None or len(answers) < count:
            left = deadline - loop.time()
            if stall is not None and answers:
                left = min(left, stall)
            if left <= 0:
                break
            try:
                message = await subscription.next_msg(timeout=left)
            except nats.errors.TimeoutError:
                break
            if not message.data and (message.headers or {}).get("Status") == "503":
                break  # nobody listens to that subject
            answers.append(message)
            if until is not None and until(message):
                break
    finally:
        # A connection that was closed meanwhile has taken its subscriptions along.
        if not client.is_closed:
            await subscription.unsubscribe()
    return answers


class ControlClient:
    """Speaks to the nodes behind a connection, on behalf of a namespace. The connection stays the caller's.

    Whatever is asked raises `ConnectionLost` where the server goes away before the answer, and `TooLarge` where it
    takes no message of that size.

    Attributes:
        namespace: `system` may act on all of them.
    """

    def __init__(
        self,
        client: Client,
        namespace: str = subjects.SYSTEM,
        *,
        nodes: int | None = None,
        wait: float = 5.0,
        stall: float = 1.0,
    ) -> None:
        """Nothing is asked yet.

        Args:
            nodes: how many there are, where that is known: nothing is waited for after that many answers.
            wait: seconds for all answers to a question.
            stall: seconds for one more after the latest. The `nex` command takes 1 for auctions and 2 for the rest.
        """
        self._client = client
        self.namespace = namespace
        self._nodes = nodes
        self._wait = wait
        self._stall = stall

    @property
    def client(self) -> Client:
        """What it asks over."""
        return self._client

    # --- workloads -------------------------------------------------------------------------------------------------

    async def auction(
        self, agent_type: str, *, tags: Mapping[str, str] | None = None, namespace: str | None = None
    ) -> list[AuctionResponse]:
        """The bids of all nodes that have a healthy agent of that type and all those tags. Each is good for 10 s.

        Raises:
            ControlRefused: a node found something wrong with the request.
        """
        request = AuctionRequest(
            agent_type=agent_type, auction_id=NUID().next().decode(), tags=dict(tags) if tags is not None else None
        )
        # Those that cannot are silent, and there is no telling silence from slowness: one pause is all it gets.
        answers = await self._gather(subjects.auction(namespace or self.namespace), request.to_json(), wait=self._stall)
        return [AuctionResponse.from_json(answer.data) for answer in _good(answers)]

    async def deploy(self, bid: AuctionResponse, request: StartWorkloadRequest) -> StartWorkloadResponse:
        """Start a workload at the node that made the bid.

        Raises:
            ControlRefused: by the node or its agent; the text is the agent's own.
            NoAnswer: the bid is not, or no longer, known to anybody.
        """
        if request.tags is None:  # Nex's own client never sends null here
            request = request.model_copy(update={"tags": {}})
        answer = await self._ask(
            subjects.deploy(request.namespace, bid.bidder_id), request.to_json(), timeout=_START_TIMEOUT
        )
        if answer is None:
            raise NoAnswer("the node that made the bid did not answer; a bid is good for 10 s: ask for a new one")
        return StartWorkloadResponse.from_json(answer.data)

    async def start(self, request: StartWorkloadRequest) -> StartWorkloadResponse:
        """Auction and deployment in one, at one of those who bid.

        Raises:
            NoBid: no node can run it.
            ControlRefused: see `deploy`.
            NoAnswer: see `deploy`.
        """
        return await self.deploy(await self.bid(request), request)

    async def bid(self, request: StartWorkloadRequest) -> AuctionResponse:
        """One of the bids of those that can run it. It is good for 10 s.

        Raises:
            NoBid: no node can run it.
            ControlRefused: a node found something wrong with the request.
        """
        bids = await self.auction(request.workload_type, tags=request.tags, namespace=request.namespace)
        able = [bid for bid in bids if request.workload_lifecycle in bid.supported_lifecycles]
        if not able:
            raise NoBid(request.workload_type, request.tags, request.workload_lifecycle if bids else "")
        return _any_of(able)

    async def stop(self, workload_id: str, *, namespace: str | None = None) -> StopWorkloadResponse:
        """Stop a workload, wherever it runs; `stopped` says whether it did run.

        Args:
            namespace: whose it is; the client's own when absent. From `system`, it is looked up first.

        Raises:
            ControlRefused: a node refused.
        """
        owner = namespace or self.namespace
        if owner == subjects.SYSTEM:
            found = {summary.namespace for summary in await self.workloads([workload_id]) if summary.id == workload_id}
            owner = next((name for name in found if name), owner)
        answers = await self._gather(
            subjects.undeploy(owner, workload_id),
            StopWorkloadRequest(namespace=owner).to_json(),
            until=lambda answer: not _failed(answer) and StopWorkloadResponse.from_json(answer.data).stopped,
        )
        responses = [StopWorkloadResponse.from_json(answer.data) for answer in _good(answers)]
        not_found = StopWorkloadResponse(id=workload_id, workload_type="", stopped=False, message="workload not found")
        return next((response for response in responses if response.stopped), not_found)

    async def clone(self, workload_id: str, *, tags: Mapping[str, str] | None = None) -> StartWorkloadResponse:
        """Start a running workload once more, at one of those who bid for it.

        Raises:
            NoAnswer: nobody runs it, or it belongs to another namespace.
            NoBid: no node can run it.
            ControlRefused: see `deploy`.
        """
        # The first look tells the type to auction for. A sealed environment of it is readable by nobody.
        request = await self._fetch(workload_id, CurveKey.generate().public)
        bids = await self.auction(request.workload_type, tags=tags, namespace=request.namespace)
        able = [bid for bid in bids if request.workload_lifecycle in bid.supported_lifecycles]
        if not able:
            raise NoBid(request.workload_type, tags, request.workload_lifecycle if bids else "")
        bid = _any_of(able)
        request = await self._fetch(workload_id, bid.xkey)
        return await self.deploy(bid, request.model_copy(update={"tags": dict(tags or {})}))

    async def _fetch(self, workload_id: str, target_xkey: str) -> StartWorkloadRequest:
        asked = CloneWorkloadRequest(namespace=self.namespace, new_target_xkey=target_xkey)
        answers = await self._gather(
            subjects.clone(self.namespace, workload_id), asked.to_json(), until=lambda answer: not _failed(answer)
        )
        for answer in _good(answers):
            return StartWorkloadRequest.from_json(answer.data)
        raise NoAnswer(f"workload {workload_id} is not known in namespace {self.namespace}; see `nex workload ls`")

    async def workloads(self, filter: Sequence[str] = ()) -> list[WorkloadSummary]:  # noqa: A002  # the field's name
        """What runs in the namespace, or in all of them for `system`.

        Args:
            filter: ids or names; everything when empty.

        Raises:
            ControlRefused: every node that answered refused; a node without agents does.
        """
        request = AgentListWorkloadsRequest(namespace=self.namespace, filter=tuple(filter) or None)
        answers = await self._gather(subjects.list_workloads(self.namespace), request.to_json())
        return [
            summary
            for answer in _good(answers)
            for summary in AgentListWorkloadsResponse.from_json(answer.data).items()
        ]

    # --- nodes -----------------------------------------------------------------------------------------------------

    async def nodes(self, filter: Mapping[str, str] | None = None) -> list[NodePingResponse]:  # noqa: A002  # the field's name
        """The nodes that have all those tags."""
        request = NodePingRequest(filter=dict(filter) if filter is not None else None)
        answers = await self._gather(subjects.node_ping(), request.to_json())
        return [NodePingResponse.from_json(answer.data) for answer in _good(answers)]

    async def ping(self, node: str) -> NodePingResponse:
        """That node.

        Raises:
            NoAnswer: it is not there.
        """
        answer = await self._ask_node(node, subjects.node_ping_one(node), NodePingRequest(filter=None).to_json())
        return NodePingResponse.from_json(answer.data)

    async def info(self, node: str) -> NodeInfoResponse:
        """That node and its agents.

        Raises:
            NoAnswer: it is not there.
        """
        answer = await self._ask_node(node, subjects.node_info(node), NodeInfoRequest().to_json())
        return NodeInfoResponse.from_json(answer.data)

    async def placement_tags(self) -> dict[str, str]:
        """The placement tags of all nodes together; of several values, one."""
        answers = await self._gather(subjects.placement_tags(), NodeInfoRequest().to_json())
        return {
            name: value
            for answer in _good(answers)
            for name, value in PlacementTags.from_json(answer.data).root.items()
        }

    async def agent_id(self, node: str, name: str) -> str:
        """The id of that node's agent of that name.

        Raises:
            NoAnswer: there is none; the node is silent then.
        """
        return (await self._ask_node(node, subjects.agent_id(node), name.encode())).data.decode()

    async def lameduck(self, node: str, delay: float, *, tag: Mapping[str, str] | None = None) -> LameduckResponse:
        """Have a node and its agents take no new work, and end after `delay` seconds.

        Raises:
            NoAnswer: it is not there, or has not that tag.
            ControlRefused: it refused.
        """
        request = LameduckRequest(delay=format_duration(delay), tag=dict(tag) if tag is not None else None)
        answer = await self._ask_node(node, subjects.node_lameduck(node), request.to_json())
        return LameduckResponse.from_json(answer.data)

    # --- asking ----------------------------------------------------------------------------------------------------

    async def _gather(
        self,
        subject: str,
        payload: bytes,
        *,
        wait: float | None = None,
        until: Callable[[Msg], bool] | None = None,
    ) -> list[Msg]:
        return await gather(
            self._client,
            subject,
            payload,
            wait=self._wait if wait is None else wait,
            stall=self._stall,
            count=self._nodes,
            until=until,
        )

    async def _ask(self, subject: str, payload: bytes, *, timeout: float) -> Msg | None:
        """One answer; None where nobody gave one.

        Raises:
            ControlRefused: it is an error.
            ConnectionLost, TooLarge: see `gather`.
        """
        # Not the client's own request, which goes on waiting when the connection is closed.
        answers = await gather(self._client, subject, payload, wait=timeout, count=1)
        return _good(answers)[0] if answers else None

    async def _ask_node(self, node: str, subject: str, payload: bytes) -> Msg:
        answer = await self._ask(subject, payload, timeout=self._wait)
        if answer is None:
            raise NoAnswer(f"node {node} did not answer; see which there are with `nex node ls`")
        return answer


def _failed(answer: Msg) -> bool:
    return CODE_HEADER in (answer.headers or {})


def _good(answers: Sequence[Msg]) -> list[Msg]:
    """The answers that are no errors.

    Raises:
        ControlRefused: all that came are errors; it is the first of them.
    """
    good = [answer for answer in answers if not _failed(answer)]
    if answers and not good:
        raise _refusal(answers[0])
    return good


def _refusal(answer: Msg) -> ControlRefused:
    headers = answer.headers or {}
    headline, status = headers.get(ERROR_HEADER, ""), headers.get(CODE_HEADER, "")
    try:
        body = json.loads(answer.data)
    except ValueError:
        body = None
    fields = body if isinstance(body, dict) else {}
    text = str(fields.get("error") or headline or f"an error without a text, code {status}")
    return ControlRefused(
        int(status) if status.isdecimal() else 500, headline, text, error_id=str(fields.get("error_id") or "")
    )


def _any_of(bids: Sequence[AuctionResponse]) -> AuctionResponse:
    # Spreads the load as the `nex` command does; nothing secret hangs on it.
    return random.choice(bids)  # noqa: S311
