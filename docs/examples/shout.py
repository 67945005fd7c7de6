"""A nexlet in thirty lines: its workloads answer every message in capitals. `python shout.py nats://127.0.0.1:4222`"""

import asyncio
import json
import signal
import sys

from nexlet_functions.natsio import Credentials
from nexlet_functions.runner import Runner, Services
from nexlet_functions.runner.serving import ServedTriggers, TriggerMessage, serve_triggers
from nexlet_functions.runner.simple import SimpleAgent
from nexlet_models.workloads import AgentStartWorkloadRequest


async def shout(message: TriggerMessage) -> bytes:
    return message.data.upper()


async def start(services: Services, workload_id: str, request: AgentStartWorkloadRequest) -> ServedTriggers:
    subject = json.loads(request.request.run_request).get("subject", workload_id)
    namespace = request.request.namespace
    return await serve_triggers(services, workload_id, namespace, request.workload_creds, [subject], shout)


async def main() -> None:
    runner = Runner(
        lambda services: SimpleAgent(services, start, register_type="shout", version="1.0.0"),
        credentials=Credentials((sys.argv[1],)),
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, runner.stop_soon)
    await runner.run()


asyncio.run(main())
