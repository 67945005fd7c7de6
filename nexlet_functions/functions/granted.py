"""A function's calls to what it was granted, made ready: with the workload's connection, and a way out for its HTTP.

What the calls are, and how each is done, is in `nexlet_functions.grants`. Here is what a function's start has of it:
what is to be closed with the function, and what its author or operator can do where it cannot be had.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack

from nexlet_functions.functions.means import Means
from nexlet_functions.functions.refusals import Refusal
from nexlet_functions.grants.calls import Calls
from nexlet_functions.grants.http import Hosts, HttpMissing, NoHosts
from nexlet_functions.natsio.connection import Connection
from nexlet_functions.natsio.errors import NatsioError, SubscriptionRefused
from nexlet_models.problems import Problem
from nexlet_models.start_request import GrantsRequest, HttpGrant
from nexlet_sandboxes.asking import Ask

__all__ = ["open_calls"]


async def open_calls(
    grants: GrantsRequest,
    connection: Connection,
    hold: AsyncExitStack,
    *,
    means: Means,
    namespace: str,
    name: str,
    identity: Callable[[Ask], str],
) -> Calls:
    """The answerer of a function's pool, ready to be asked.

    Args:
        connection: the workload's, with its credentials.
        hold: what is opened is closed with it, also where this is refused.
        namespace, name: of the function.
        identity: of who asks; see `Calls`.

    Raises:
        Refusal: what was granted cannot be used here.
    """
    calls = Calls(
        grants,
        connection,
        identity=identity,
        room=means.room,
        owner=namespace,
        max_size=means.settings().max_call_size,
        more=[await _hosts(grants.http, hold, means=means, namespace=namespace, name=name)],
    )
    hold.push_async_callback(calls.close)
    try:
        await calls.open()
    except NatsioError as error:
        refused = isinstance(error, SubscriptionRefused)
        advice = "ask the operator to let its credentials subscribe to '_INBOX.>'" if refused else "try again"
        text = f"what was granted cannot be used: {error}"
        raise Refusal(
            Problem(text, "grants", advice=advice, code="grants-unusable" if refused else "unreachable")
        ) from None
    return calls


async def _hosts(
    grant: HttpGrant | None, hold: AsyncExitStack, *, means: Means, namespace: str, name: str
) -> Hosts | NoHosts:
    """Where the function may do HTTP."""
    if grant is None:
        return NoHosts()
    try:
        hosts = await means.outside.hosts(
            grant, lambda: means.settings().rules(namespace).http, namespace=namespace, name=name
        )
    except HttpMissing as missing:
        advice = "ask the operator of the nexlet to install 'nexlet-functions[http]'"
        raise Refusal(Problem(str(missing), "grants.http", advice=advice, code="grants-unusable")) from None
    hold.push_async_callback(hosts.close)
    return hosts
