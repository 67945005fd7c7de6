"""Whether a function may be started here, before anything is made for it: a request held to all that it has to keep.

`Admission.function` makes a `Function` of a request, or raises `Refusal`; it waits for nothing, so that what is granted
can be counted at once. `Admission.further_problems` is for a request that is refused anyway.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import structlog

from nexlet_functions.functions.environment import open_environment
from nexlet_functions.functions.function import Function
from nexlet_functions.functions.means import Means
from nexlet_functions.functions.permissions import Policy
from nexlet_functions.functions.refusals import Refusal
from nexlet_functions.functions.register import Register
from nexlet_functions.functions.requests import (
    KV_LIMIT,
    inline_program,
    limits_of,
    made_name,
    read_request,
    sound_part,
    triggers_of,
)
from nexlet_models.problems import Problem
from nexlet_models.subjects import valid_token
from nexlet_models.workloads import AgentStartWorkloadRequest, StartWorkloadRequest
from nexlet_sandboxes.checking import check
from nexlet_sandboxes.outcomes import SandboxError

__all__ = ["Admission"]

_log = structlog.stdlib.get_logger("nexlet_functions.functions")


class Admission:
    """What a request has to keep: its own form, and the operator's rules."""

    def __init__(self, means: Means, functions: Register) -> None:
        """Nothing is asked for yet.

        Args:
            means: with the settings, whose rules may change.
            functions: those that are here, which count.
        """
        self._means = means
        self._functions = functions
        self._policy = Policy(means.settings, means.sandboxing)

    def function(self, workload_id: str, request: AgentStartWorkloadRequest) -> Function:
        """The function that is asked for. It is not in the register, and nothing of it is made.

        Raises:
            Refusal: with everything that is wrong with the request.
        """
        asked = request.request
        name = asked.name or made_name(workload_id)
        settings = self._means.settings()
        start = read_request(workload_id, asked, settings.register_type)
        limits = limits_of(start, settings.rules(asked.namespace).ceilings)
        problems = self._policy.check(asked.namespace, start, limits, self._functions.usage(asked.namespace))
        if problems:
            raise Refusal(*problems)
        function = Function(
            workload_id,
            asked,
            name=name,
            start_request=start,
            creds=request.workload_creds,
            limits=limits,
            profile=self._policy.profile(start),
            triggers=triggers_of(start, workload_id, asked.namespace, name),
            means=self._means,
            on_change=self._means.services.heartbeat_soon,
            namesakes=self._functions.namesakes,
        )
        if len(asked.run_request) > KV_LIMIT and start.uri is None:
            _log.warning(
                "inline source may be too large for the node's state",
                workload_id=workload_id,
                namespace=asked.namespace,
                name=name,
                size=len(asked.run_request),
                limit=KV_LIMIT,
                advice="a node with --state kv forgets it when it restarts; deploy it as nats://BUCKET/OBJECT",
            )
        return function

    async def further_problems(
        self, asked: StartWorkloadRequest, known: Sequence[Problem], room: asyncio.Semaphore
    ) -> Sequence[Problem]:
        """What else is wrong with a request that is refused anyway: its author mends it all in one go.

        What is in order of it is held to the operator's rules, and to the secrets that there are. The source is looked
        at in a throw-away worker, and not run.

        Args:
            known: what it is refused for.
            room: for that worker.
        """
        part = sound_part(asked.run_request)
        if part is None:
            return ()
        settings = self._means.settings()
        limits = limits_of(part, settings.rules(asked.namespace).ceilings)
        found = self._policy.check(asked.namespace, part, limits, self._functions.usage(asked.namespace))
        problems = [problem for problem in found if problem not in known]
        if valid_token(asked.namespace) is None:
            try:
                await open_environment(part, asked.namespace, secrets=self._means.services, key=self._means.key)
            except Refusal as refusal:
                problems += refusal.problems
        program = inline_program(part)
        if program is not None:
            program = replace(program, modules=self._means.settings().modules)
            try:
                async with room:
                    problems += await check(self._means.zygote, program)
            except SandboxError as error:
                _log.warning("a source could not be checked", namespace=asked.namespace, error=str(error))
        return problems
