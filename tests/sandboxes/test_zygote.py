"""The nexlet's handle of the zygote, when that does not answer or this process has run out of something."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nexlet_sandboxes import zygote as module
from nexlet_sandboxes.launching import ARGUMENTS, SHORT_LIVED
from nexlet_sandboxes.zygote import Zygote, ZygoteError
from tests.support.polling import eventually
from tests.support.zygotes import open_zygote

MEMORY = 64 * 1024 * 1024


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@contextmanager
def room_for(more: int) -> Iterator[None]:
    """This process may open so many descriptors more than it has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
    taken: list[int] = []
    while (first_free := os.open("/dev/null", os.O_RDONLY)) <= highest:
        taken.append(first_free)  # the limit is on numbers, and not on how many there are
    os.close(first_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (first_free + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for one in taken:
            os.close(one)


def test_one_that_nobody_waits_for_any_more_ends_without_a_word() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, *ARGUMENTS, SHORT_LIVED], stdin=theirs.fileno(), stderr=subprocess.PIPE
        )
    ours.close()
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")


async def test_a_zygote_that_says_nothing_is_ended_and_another_one_serves_on(
    zygote: Zygote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOOK", 0.01)
    reasons: list[str] = []
    zygote.on_restart = reasons.append
    worker = await zygote.spawn("strict", MEMORY)
    first = zygote.pid
    assert first is not None
    os.kill(first, signal.SIGSTOP)
    with pytest.raises(ZygoteError, match="the zygote ended"):
        await asyncio.wait_for(zygote.spawn("strict", MEMORY), 20)
    await eventually(lambda: worker.exited)
    worker.close()
    other = await zygote.spawn("strict", MEMORY)
    assert zygote.pid != first
    assert len(reasons) == 1
    assert "said nothing for" in reasons[0]
    other.kill()
    await eventually(lambda: other.exited)
    other.close()


async def test_a_zygote_that_is_slow_but_not_silent_is_left_alone(
    zygote: Zygote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOOK", 3600.0)  # the looks are the test's
    assert zygote.pid is not None
    for _ in range(3):
        os.kill(zygote.pid, signal.SIGSTOP)
        spawning = asyncio.create_task(zygote.spawn("strict", MEMORY))
        await asyncio.sleep(0)
        for _ in range(module._SILENCE):
            zygote._look()
        os.kill(zygote.pid, signal.SIGCONT)
        worker = await spawning
        worker.kill()
        await eventually(lambda worker=worker: worker.exited)  # type: ignore[misc]
        worker.close()
    assert zygote.restarts == 0


@pytest.mark.parametrize("more", [0, 1, 2, 3])
async def test_without_room_for_descriptors_a_worker_is_refused_and_none_is_left_open(
    zygote: Zygote, more: int
) -> None:
    await asyncio.sleep(0)
    before = descriptors()
    with room_for(more), pytest.raises(ZygoteError, match="out of descriptors: the limit of this process"):
        await asyncio.wait_for(zygote.spawn("strict", MEMORY), 20)
    assert descriptors() == before
    worker = await zygote.spawn("strict", MEMORY)  # as soon as there is room again
    worker.kill()
    await eventually(lambda: worker.exited)
    worker.close()
    assert descriptors() == before
    assert zygote.restarts == 0


@pytest.mark.parametrize(
    ("number", "says"), [(11, "out of processes: the limit of this user"), (12, "out of memory for another process")]
)
async def test_a_fork_that_the_system_refuses_is_told_by_its_limit_and_is_tried_anew(number: int, says: str) -> None:
    """As `vm.overcommit_memory` or `pids.max` refuse it: only the first time, here."""
    change = f"""
import os
fork = os.fork
def refused():
    os.fork = fork
    raise OSError({number}, os.strerror({number}))
os.fork = refused
"""
    async with open_zygote(change) as zygote:
        with pytest.raises(ZygoteError, match=says):
            await zygote.spawn("strict", MEMORY)
        worker = await zygote.spawn("strict", MEMORY)
        worker.kill()
        await eventually(lambda: worker.exited)
        worker.close()
