"""Becoming an agent of a node: the two requests of a registration, and what a node hands to agents it starts itself.

- `ask_for_id`: RREGISTER, for a nexlet that was started beside the node.
- `register`: REGISTER, for both kinds.
- `LocalRegistration`, `local_registration`: what the node put into our environment.
- `Registration`: who we are from then on.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import SecretStr

from nexlet_functions.errors import NexletFunctionsError
from nexlet_functions.natsio.connection import Connection, Reply
from nexlet_functions.natsio.credentials import Credentials, split_servers
from nexlet_functions.natsio.errors import ConnectFailed, NatsioError, NoResponders, PublishRefused
from nexlet_functions.natsio.life import Options
from nexlet_functions.runner.credentials import unusable
from nexlet_models import subjects
from nexlet_models.connection import NatsConnectionData
from nexlet_models.control import ErrorBody
from nexlet_models.errors import MalformedMessage
from nexlet_models.registration import (
    RegisterAgentRequest,
    RegisterAgentResponse,
    RegisterRemoteAgentRequest,
    RegisterRemoteAgentResponse,
)
from nexlet_models.workloads import AgentStartWorkloadRequest

__all__ = [
    "LocalRegistration",
    "Registration",
    "RegistrationFailed",
    "ask_for_id",
    "check_offer",
    "local_registration",
    "offer_digest",
    "register",
]

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_SEMVER = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?", re.ASCII)


class RegistrationFailed(NexletFunctionsError):
    """The node did not take us.

    Attributes:
        status: the node's code, as HTTP has them; 401 and 403 also where the server did not let us ask; 0 where
            nobody answered.
    """

    code = "registration-failed"

    def __init__(self, text: str, *, status: int = 0) -> None:
        super().__init__(text)
        self.status = status

    @property
    def already_known(self) -> bool:
        """Whether a repeated registration was turned down because the node knows the id, as it should.

        The node has no word of its own for it: it is one of its 500s, and the others cannot strike at what was
        registered once (`handleRegisterAgent` in Nex's handlers.go).
        """
        return self.status == 500


@dataclass(frozen=True, slots=True)
class LocalRegistration:
    """What a node tells an agent that it starts.

    Attributes:
        node_id, agent_id: who registers with whom.
        connection_data: with what.
    """

    node_id: str
    agent_id: str
    connection_data: NatsConnectionData


@dataclass(frozen=True, slots=True)
class Registration:
    """Who we are to the node.

    Attributes:
        connection_data: what to connect with.
        registration_creds: what may repeat the registration; None where our own credentials do.
        existing: what ran before, by workload id.
    """

    node_id: str
    agent_id: str
    connection_data: NatsConnectionData
    registration_creds: NatsConnectionData | None = None
    existing: Mapping[str, AgentStartWorkloadRequest] = field(default_factory=dict)


def local_registration(environ: Mapping[str, str]) -> LocalRegistration | None:
    """Read what a node puts into the environment of an agent that it starts; None where it did not start us.

    Raises:
        RegistrationFailed: half of it is there, or it is damaged.
    """
    node, agent = environ.get("NEX_AGENT_NODE_ID", ""), environ.get("NEX_AGENT_ASSIGNED_ID", "")
    if not node and not agent:
        return None
    for name, value in (("NEX_AGENT_NODE_ID", node), ("NEX_AGENT_ASSIGNED_ID", agent)):
        if subjects.valid_token(value) is not None:
            raise RegistrationFailed(f"{name} {subjects.valid_token(value)}; a node that starts a nexlet sets it")
    try:
        jwt = base64.b64decode(environ.get("NEX_AGENT_NATS_B64_JWT", ""), validate=True).decode("ascii")
    except (binascii.Error, UnicodeDecodeError):
        raise RegistrationFailed("NEX_AGENT_NATS_B64_JWT is not base64") from None
    return LocalRegistration(
        node,
        agent,
        NatsConnectionData(
            nats_servers=split_servers((environ.get("NEX_AGENT_NATS_SERVERS", ""),)),
            nats_user_seed=SecretStr(environ.get("NEX_AGENT_NATS_USER_SEED", "")),
            nats_user_jwt=SecretStr(jwt),
            nats_user_nkey=environ.get("NEX_AGENT_NATS_USER_NKEY", ""),
            nats_user_name=environ.get("NEX_AGENT_NATS_USER", ""),
            nats_user_password=SecretStr(environ.get("NEX_AGENT_NATS_PASSWORD", "")),
        ),
    )


def check_offer(offer: RegisterAgentRequest) -> None:
    """See that an agent offers itself in a form that a node and its micro service take.

    Raises:
        RegistrationFailed: it does not; this is a bug or a wrong setting, and trying again will not help.
    """
    if _NAME.fullmatch(offer.name) is None:
        raise RegistrationFailed(f"the agent's name {offer.name!r} must be letters, digits, '-' and '_'", status=400)
    if _SEMVER.fullmatch(offer.version) is None:
        raise RegistrationFailed(f"the agent's version {offer.version!r} must be one such as 1.2.3", status=400)
    if not offer.register_type:
        raise RegistrationFailed("the agent's register type is empty", status=400)


def offer_digest(offer: RegisterAgentRequest) -> str:
    """What is the same exactly where the same is offered, as far as a node acts upon it.

    Version and description are shown and no more, and the version is in every heartbeat: another one is no reason for
    another id, which would leave the former one dead on the node for good.
    """
    return hashlib.sha256(offer.model_copy(update={"version": "", "description": ""}).to_json()).hexdigest()


async def ask_for_id(connection: Connection, nexus: str, *, timeout: float) -> RegisterRemoteAgentResponse:
    """RREGISTER on our own connection.

    Args:
        timeout: seconds.

    Raises:
        RegistrationFailed: no node answers, or the one that does refuses.
    """
    try:
        reply = await connection.request(
            subjects.remote_register(nexus), RegisterRemoteAgentRequest().to_json(), timeout=timeout
        )
    except NoResponders:
        raise RegistrationFailed(
            f"no node of nexus {nexus!r} takes remote agents: is one running, "
            "started with --allow-remote-agent-registration?"
        ) from None
    except NatsioError as error:
        raise RegistrationFailed(f"asking nexus {nexus!r} for an id failed: {error}") from None
    _raise_for_error(reply)
    try:
        response = RegisterRemoteAgentResponse.from_json(reply.payload)
    except MalformedMessage as error:
        raise RegistrationFailed(f"the node's answer cannot be read: {error}") from None
    for what, value in (("id", response.assigned_agent_id), ("node", response.respond_to)):
        reason = subjects.valid_token(value)
        if reason is not None:
            raise RegistrationFailed(f"the node's answer cannot be used: its {what} {reason}")
    return response


async def register(
    credentials: Credentials,
    node_id: str,
    agent_id: str,
    offer: RegisterAgentRequest,
    *,
    timeout: float,
    options: Options,
) -> RegisterAgentResponse:
    """REGISTER, on a connection for that alone.

    Args:
        timeout: seconds to wait for the node's answer.

    Raises:
        RegistrationFailed: no connection with these credentials, no answer, or a refusal.
    """
    try:
        connection = await Connection.open(credentials, name="nexlet-registration", options=options, passing=True)
    except NatsioError as error:
        turned_down = isinstance(error, ConnectFailed) and error.refused
        text = unusable("the registration", credentials, error)
        raise RegistrationFailed(text, status=401 if turned_down else 0) from None
    try:
        reply = await connection.request(subjects.register(node_id, agent_id), offer.to_json(), timeout=timeout)
    except NoResponders:
        raise RegistrationFailed(f"node {node_id} is not there") from None
    except PublishRefused as error:
        raise RegistrationFailed(f"registering with node {node_id} is not permitted: {error}", status=403) from None
    except NatsioError as error:
        raise RegistrationFailed(f"registering with node {node_id} failed: {error}") from None
    finally:
        await connection.close(flush_timeout=0)
    _raise_for_error(reply)
    try:
        response = RegisterAgentResponse.from_json(reply.payload)
    except MalformedMessage as error:
        raise RegistrationFailed(f"the node's answer cannot be read: {error}") from None
    if not response.success:
        raise RegistrationFailed(f"node {node_id} refused: {response.message or 'without a reason'}", status=403)
    return response


def _raise_for_error(reply: Reply) -> None:
    text = reply.headers.get("Nats-Service-Error")
    if text is None:
        return
    code = reply.headers.get("Nats-Service-Error-Code", "")
    try:
        body = ErrorBody.from_json(reply.payload)
        text = f"{text}: {body.error} (error id {body.error_id} in the node's log)"
    except MalformedMessage:
        pass  # the header says it all
    raise RegistrationFailed(f"the node refused: {text}", status=int(code) if code.isdecimal() else 500)
