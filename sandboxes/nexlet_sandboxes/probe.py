"""The self-check: for each layer of each profile, whether it holds on this machine.

A throw-away worker, locked by a profile's layers up to the one in question, tries a harmless thing that this layer must
refuse (`kernel.trials`). `check_layers` does so for whole profiles and says what happened; `Standing` sums up what it
found for one of them. Nothing here knows what is permitted: that is for whoever asks.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from nexlet_sandboxes.kernel.trials import TRIAL_MEMORY, TRIALS, Finding
from nexlet_sandboxes.outcomes import SandboxError
from nexlet_sandboxes.profiles import PROFILES
from nexlet_sandboxes.zygote import Exit, LayerUnavailable, WorkerProcess, Zygote

__all__ = ["ADVICE", "LayerCheck", "Standing", "check_layers", "standings"]

_TRIAL_TIMEOUT: Final = 10.0
"""Seconds for a trial that takes milliseconds, on a slow and busy machine."""

_SIDE_BY_SIDE: Final = 8
"""Trials at a time: enough for every core to have one, and few enough for a small machine's memory."""

_LARGEST_ANSWER: Final = 65536

_CONTAINER: Final = "in a container, its runtime must let the call through (its own seccomp and AppArmor profiles)"

ADVICE: Final[dict[str, str]] = {
    "cgroup": "give the nexlet a folder of cgroup v2 that is delegated to its user, with the controllers memory, pids "
    "and cpu; unless it is root, the nexlet must run within that folder (systemd: Delegate=yes does both); or name "
    "none",
    "environment": "report this: it depends on nothing but this program",
    "descriptors": "report this: it depends on nothing but this program",
    "identity": "the nexlet is root but may not change its user: give it CAP_SETUID and CAP_SETGID, or run it as an "
    f"ordinary user; {_CONTAINER}",
    "namespaces": "allow user namespaces: sysctl user.max_user_namespaces above 0, and where there are these, "
    "kernel.unprivileged_userns_clone=1 (Debian) and kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu 24.04); "
    f"{_CONTAINER}",
    "session": "report this: every Linux has sessions",
    "parent-death": f"the kernel must know PR_SET_PDEATHSIG, as every Linux does; {_CONTAINER}",
    "not-dumpable": f"the kernel must know PR_SET_DUMPABLE, and /proc must be the kernel's own; {_CONTAINER}",
    "rlimits": "the kernel must keep RLIMIT_AS and RLIMIT_NOFILE, which gVisor does not all, and /proc/self/statm must "
    "be readable",
    "empty-root": "the worker must be allowed to mount in its own namespace (see namespaces), and the machine's root "
    f"must not be the initial RAM file system; {_CONTAINER}",
    "capabilities": f"the kernel must know capset, as every Linux does; {_CONTAINER}",
    "no-new-privs": f"the kernel must know PR_SET_NO_NEW_PRIVS (Linux 3.5); {_CONTAINER}",
    "landlock": "a kernel of 5.13 or later with CONFIG_SECURITY_LANDLOCK, and 'landlock' among the modules of lsm= on "
    f"its command line; {_CONTAINER}; gVisor has none",
    "seccomp": "a kernel with CONFIG_SECCOMP_FILTER, on x86_64 or aarch64; a container's runtime must let prctl "
    "through",
}
"""What to do where a layer is missing, by its name."""


@dataclass(frozen=True, slots=True)
class LayerCheck:
    """What came of trying one layer of one profile.

    Attributes:
        profile, layer: which.
        tried: what a throw-away worker tried.
        happened: what came of it.
        holds: whether the layer refused it.
        advice: what to do about it; "" where it holds.
    """

    profile: str
    layer: str
    tried: str
    happened: str
    holds: bool
    advice: str


@dataclass(frozen=True, slots=True)
class Standing:
    """One profile on this machine.

    Attributes:
        profile: its name.
        engaged: the layers that hold, in their order.
        missing: what was found about the others.
    """

    profile: str
    engaged: tuple[str, ...]
    missing: tuple[LayerCheck, ...] = ()

    @property
    def missing_names(self) -> tuple[str, ...]:
        """Names of the layers that do not hold."""
        return tuple(check.layer for check in self.missing)


def standings(checks: Iterable[LayerCheck]) -> dict[str, Standing]:
    """What was found, a profile at a time, in the order of `checks`."""
    grouped: dict[str, list[LayerCheck]] = {}
    for check in checks:
        grouped.setdefault(check.profile, []).append(check)
    return {
        profile: Standing(
            profile,
            tuple(check.layer for check in found if check.holds),
            tuple(check for check in found if not check.holds),
        )
        for profile, found in grouped.items()
    }


async def check_layers(zygote: Zygote, profiles: Sequence[str]) -> list[LayerCheck]:
    """Try every layer of `profiles`, in their order.

    A layer that cannot be had is left out when those behind it are tried, so that each is judged by itself. Profiles
    that begin alike share what was found.

    Raises:
        ZygoteError: the zygote ended, or has no process for a trial.
        KeyError: there is no such profile.
    """
    found = await _try_ahead(zygote, profiles)
    checks = []
    for profile in profiles:
        layers = PROFILES[profile].around(cgroup=zygote.cgroup is not None)
        missing: list[str] = []
        for index, layer in enumerate(layers):
            locked = tuple(each for each in layers[: index + 1] if each not in missing)
            if locked not in found:
                found[locked] = await _try(zygote, profile, layer, missing)
            finding = found[locked]
            if not finding.holds:
                missing.append(layer)
            advice = "" if finding.holds else ADVICE[layer]
            checks.append(LayerCheck(profile, layer, TRIALS[layer].tried, finding.happened, finding.holds, advice))
    return checks


async def _try_ahead(zygote: Zygote, profiles: Sequence[str]) -> dict[tuple[str, ...], Finding]:
    """All that there is to try where nothing is missing, side by side: whoever starts waits for it.

    Returns:
        What was found, by the layers that were applied, the last of which was tried.
    """
    stacks = {
        layers[: index + 1]: profile
        for profile in profiles
        for layers in [PROFILES[profile].layers]
        for index in range(len(layers))
    }
    turns = asyncio.Semaphore(_SIDE_BY_SIDE)

    async def one(stack: tuple[str, ...], profile: str) -> Finding:
        async with turns:
            return await _try(zygote, profile, stack[-1], ())

    async with asyncio.TaskGroup() as group:
        tries = {stack: group.create_task(one(stack, profile)) for stack, profile in stacks.items()}
    return {stack: task.result() for stack, task in tries.items()}


async def _try(zygote: Zygote, profile: str, layer: str, without: Sequence[str]) -> Finding:
    try:
        worker = await zygote.spawn(profile, TRIAL_MEMORY, probe=layer, without=without)
    except LayerUnavailable as missing:
        return _not_applied(layer, missing.reason)
    ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()

    def on_exit(how: Exit) -> None:
        if not ended.done():
            ended.set_result(how)

    worker.on_exit = on_exit
    if worker.exited is not None:
        on_exit(worker.exited)
    try:
        async with asyncio.timeout(_TRIAL_TIMEOUT):
            answer = await _read(worker)
            how = await ended
    except TimeoutError:
        return Finding(False, f"the trial did not end within {_TRIAL_TIMEOUT:g} seconds")
    finally:
        worker.kill()
        worker.close()
    return _judge(layer, answer, how)


def _judge(layer: str, answer: bytes, how: Exit) -> Finding:
    if how.out_of_memory and layer == "cgroup" and not answer:
        return Finding(True, "the kernel killed it when its group was at its limit")
    if how.code == -signal.SIGSYS and TRIALS[layer].kills == signal.SIGSYS and not answer:
        return Finding(True, "the kernel killed it: SIGSYS")
    if not answer:
        return Finding(False, f"the trial ended without a word: {how.reason()}")
    try:
        said = orjson.loads(answer)
    except orjson.JSONDecodeError:
        raise SandboxError(f"a trial of the layer {layer} said what is no answer") from None
    if "refused" in said:
        return _not_applied(layer, str(said["refused"]))
    return Finding(bool(said["holds"]), str(said["happened"]))


def _not_applied(layer: str, reason: str) -> Finding:
    return Finding(False, f"it could not be applied: {reason.removeprefix(f'{layer}: ')}")


async def _read(worker: WorkerProcess) -> bytes:
    loop = asyncio.get_running_loop()
    answer = b""
    while len(answer) < _LARGEST_ANSWER:
        try:
            data = await loop.sock_recv(worker.sock, _LARGEST_ANSWER)
        except ConnectionResetError:
            break
        if not data:
            break
        answer += data
    return answer
