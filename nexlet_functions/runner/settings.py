"""The times and bounds of a runner."""

from __future__ import annotations

from dataclasses import dataclass, field

from nexlet_functions.natsio.life import Options
from nexlet_functions.runner.heartbeat import HEARTBEAT_INTERVAL

__all__ = ["RunnerSettings"]


@dataclass(frozen=True, slots=True)
class RunnerSettings:
    """Times in seconds.

    Attributes:
        heartbeat_interval: see `heartbeat.HEARTBEAT_INTERVAL`.
        remote_register_timeout, register_timeout: for the node's answers; three and sixty are the Go runner's.
        retry_first, retry_max: pauses between attempts to register, doubling, varied by chance.
        node_silence: a node that has not been heard for so long is taken for gone; it sends a heartbeat every ten.
        probe_interval: how often a node that cannot be heard is asked whether it knows us.
        neighbours_timeout: for other nexlets of the node to say what they run, before what it replays is started.
        grace: for what runs, when we are stopped without another word about it.
        restore_at_once: how many workloads are restored side by side.
        max_requests: how many requests are served at once.
        ingress_host: address of this machine for an ingress; "" for none.
        connection: how connections behave.
    """

    heartbeat_interval: float = HEARTBEAT_INTERVAL
    remote_register_timeout: float = 3.0
    register_timeout: float = 60.0
    retry_first: float = 0.25
    retry_max: float = 5.0
    node_silence: float = 35.0
    probe_interval: float = 60.0
    neighbours_timeout: float = 0.5
    grace: float = 30.0
    restore_at_once: int = 32
    max_requests: int = 512
    ingress_host: str = ""
    connection: Options = field(default_factory=Options)
