"""The profiles: the table itself, a worker for each call, namespaces of one's own, a layer that cannot be had."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from nexlet_models._forms import PROFILES as NAMES
from nexlet_sandboxes.frames import MARKER_SIZE
from nexlet_sandboxes.kernel.locks import LAYERS
from nexlet_sandboxes.launching import launch_early
from nexlet_sandboxes.outcomes import Outcome
from nexlet_sandboxes.profiles import DEFAULT, PROFILES
from nexlet_sandboxes.zygote import WorkerProcess, Zygote
from tests.support.polling import eventually
from tests.support.pools import Sandbox, call, limits, open_pool, run

COUNTING = "seen = []\ndef handler(event, context):\n    seen.append(event.text)\n    return seen\n"
ECHO = "def handler(event, context):\n    return event.data\n"
SLEEPY = "import time\ndef handler(event, context):\n    time.sleep(float(event.text))\n    return event.data\n"

NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")


# --- the table -------------------------------------------------------------------------------------------------------


def test_the_profiles_are_those_a_start_request_may_name() -> None:
    assert tuple(PROFILES) == NAMES
    assert DEFAULT == "strict"


def test_every_layer_is_known_and_used_once_a_profile() -> None:
    for profile in PROFILES.values():
        assert set(profile.layers) <= set(LAYERS), profile.name
        assert len(set(profile.layers)) == len(profile.layers), profile.name
        assert profile.around(cgroup=True) == ("cgroup", *profile.layers)
        assert profile.around(cgroup=False) == profile.layers
    assert {layer for profile in PROFILES.values() for layer in profile.around(cgroup=True)} == set(LAYERS)


def test_layers_stand_in_an_order_in_which_each_is_still_allowed() -> None:
    order = list(LAYERS)
    for profile in PROFILES.values():
        layers = profile.around(cgroup=True)
        assert list(layers) == sorted(layers, key=order.index), profile.name
    # A change of uid clears the parent-death signal; maps cannot be written by a process that is not dumpable; the
    # file system is left behind once the address space was read from /proc; the filter allows none of the others.
    for earlier, later in (
        ("identity", "namespaces"),
        ("identity", "parent-death"),
        ("namespaces", "parent-death"),
        ("namespaces", "not-dumpable"),
        ("rlimits", "empty-root"),
        ("parent-death", "empty-root"),
        ("empty-root", "capabilities"),
        ("no-new-privs", "landlock"),
        ("no-new-privs", "seccomp"),
    ):
        assert order.index(earlier) < order.index(later)
    assert order[-1] == "seccomp"


def test_what_the_stronger_profiles_add() -> None:
    strict = set(PROFILES["strict"].layers)
    assert set(PROFILES["isolated"].layers) - strict == {"namespaces", "empty-root"}
    assert PROFILES["oneshot"].layers == PROFILES["strict"].layers
    assert set(PROFILES["process"].layers) == strict - {"landlock", "seccomp"}
    assert "seccomp" not in PROFILES["unsafe-dev"].layers
    assert [name for name, profile in PROFILES.items() if profile.single_use] == ["oneshot"]


# --- oneshot: a fresh worker for each invocation ---------------------------------------------------------------------


async def test_a_single_use_worker_sees_one_call(zygote: Zygote) -> None:
    async with open_pool(Sandbox(zygote, "oneshot"), COUNTING, limits()) as pool:
        results = await run(pool, *[b"%d" % n for n in range(12)])
        assert [json.loads(result.body) for result in results] == [[str(n)] for n in range(12)]
        assert pool.stats().deaths == {}
        assert not pool.unwell


async def test_single_use_workers_of_one_at_a_time_keep_the_order_and_leave_nothing(zygote: Zygote) -> None:
    async with open_pool(Sandbox(zygote, "oneshot"), SLEEPY, limits(max_workers=1)) as pool:
        begun = [await run(pool, b"0") for _ in range(3)]
        assert all(result.outcome is Outcome.OK for (result,) in begun)
        calls = [call(b"0.02") for _ in range(5)]
        await run(pool, *calls)
        order = pool.sink.order[-5:]  # type: ignore[attr-defined]  # a KeepingSink
        assert order == [one.id for one in calls]
        # The spare, and nothing else: those that served are gone.
        assert zygote.pid is not None
        children = Path(f"/proc/{zygote.pid}/task/{zygote.pid}/children")
        await eventually(lambda: len(children.read_text().split()) == 1)


async def test_single_use_workers_run_side_by_side_and_a_spare_waits(zygote: Zygote) -> None:
    async with open_pool(Sandbox(zygote, "oneshot"), SLEEPY, limits(max_workers=3, timeout=20.0)) as pool:
        calls = [call(b"10") for _ in range(2)]
        for one in calls:
            pool.submit(one)
        await eventually(lambda: pool.stats().busy == 2)
        await eventually(lambda: pool.stats().workers == 3)  # two that work, and one prepared ahead
        (quick,) = await run(pool, b"0")
        assert quick.outcome is Outcome.OK
        assert pool.stats().workers + pool.stats().starting <= 3


async def test_single_use_never_exceeds_the_workers_allowed(zygote: Zygote) -> None:
    most = 0
    async with open_pool(Sandbox(zygote, "oneshot"), SLEEPY, limits(max_workers=2)) as pool:
        running = asyncio.ensure_future(run(pool, *[b"0.01"] * 20))
        while not running.done():
            most = max(most, pool.stats().workers)
            await asyncio.sleep(0)
        assert {result.outcome for result in running.result()} == {Outcome.OK}
    assert most == 2


# --- isolated: namespaces of its own ---------------------------------------------------------------------------------


async def test_an_isolated_worker_shares_no_namespace_with_anyone(zygote: Zygote) -> None:
    sandbox = Sandbox(zygote, "isolated")
    async with open_pool(sandbox, ECHO, limits()) as one, open_pool(sandbox, ECHO, limits()) as other:
        # Its own processes are not dumpable, so only root may look; an ordinary user is told so.
        if os.geteuid() != 0:
            pytest.skip("only root may read the namespaces of a process that is not dumpable")
        pids = [os.getpid(), *(pool._links[0].process.pid for pool in (one, other))]
        seen = [{name: os.readlink(f"/proc/{pid}/ns/{name}") for name in NAMESPACES} for pid in pids]
        for name in set(NAMESPACES) - {"cgroup"}:
            assert len({each[name] for each in seen}) == 3, name
        for pid in pids[1:]:
            status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
            assert int(status["PPid"]) == zygote.pid
            assert status["NSpid"].split() == [str(pid), "1"]
            assert {status[name].strip("0\n") for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {""}
            assert os.listdir(f"/proc/{pid}/root/") == []
            mounts = Path(f"/proc/{pid}/mounts").read_text().splitlines()
            assert [line.split()[1:3] for line in mounts] == [["/", "tmpfs"]]
            assert mounts[0].split()[3].startswith("ro,nosuid,nodev,noexec")
            assert [
                line.split(":")[0].strip() for line in Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
            ] == ["lo"]


async def test_a_leashed_worker_dies_with_the_zygote_and_leaves_nobody(zygote: Zygote) -> None:
    async with open_pool(Sandbox(zygote, "isolated"), SLEEPY, limits(timeout=60.0)) as pool:
        worker, before = pool._links[0].process.pid, zygote.pid
        assert before is not None
        running = call(b"30")
        pool.submit(running)
        await eventually(lambda: pool._links[0].process.running_call == running.id)
        os.kill(before, signal.SIGKILL)
        await eventually(lambda: not _alive(worker))
        (result,) = await run(pool, b"0")
        assert result.outcome is Outcome.OK


async def test_many_leashed_workers_at_once(zygote: Zygote) -> None:
    spawned = await asyncio.gather(*(zygote.spawn("isolated", 64 << 20) for _ in range(8)))
    assert len({worker.pid for worker in spawned}) == 8
    for worker in spawned:
        worker.kill()
    await eventually(lambda: all(worker.exited is not None for worker in spawned))
    assert {worker.exited.code for worker in spawned if worker.exited} == {-signal.SIGKILL}
    for worker in spawned:
        worker.close()


async def test_a_start_that_is_given_up_leaves_no_leashed_worker(zygote: Zygote) -> None:
    assert zygote.pid is not None
    for _ in range(3):
        asked = asyncio.ensure_future(zygote.spawn("isolated", 64 << 20))
        await asyncio.sleep(0)
        asked.cancel()
    (await zygote.spawn("strict", 64 << 20)).close()
    children = Path(f"/proc/{zygote.pid}/task/{zygote.pid}/children")
    await eventually(lambda: children.read_text().split() == [])


async def test_a_worker_that_comes_as_nobody_waits_any_more_is_ended(
    zygote: Zygote, monkeypatch: pytest.MonkeyPatch
) -> None:
    came: list[WorkerProcess] = []
    on_spawned = zygote._on_spawned

    def cancel_at_once(message: dict[str, object], descriptors: list[int]) -> None:
        on_spawned(message, descriptors)
        came.extend(zygote._workers.values())
        asked.cancel()

    monkeypatch.setattr(zygote, "_on_spawned", cancel_at_once)
    asked = asyncio.ensure_future(zygote.spawn("strict", 64 << 20))
    with pytest.raises(asyncio.CancelledError):
        await asked
    (worker,) = came
    assert worker.sock.fileno() == -1
    await eventually(lambda: worker.exited is not None)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_nexlet_that_is_killed_takes_the_zygote_along_without_a_word() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        zygote = subprocess.Popen(
            [sys.executable, *Zygote.arguments], stdin=theirs.fileno(), stderr=subprocess.PIPE, env={"TZ": "UTC"}
        )
    with ours:
        ours.settimeout(30)
        assert json.loads(ours.recv(4096)) == {"ready": zygote.pid}
        end, other_end = socket.socketpair()
        with end, other_end, os.fdopen(os.memfd_create("marker"), "wb") as marker:
            marker.truncate(MARKER_SIZE)
            socket.send_fds(ours, [b"1 67108864 strict "], [end.fileno(), marker.fileno()])
        assert select.select([ours], [], [], 30)[0]  # and what it says is never read
    _, said = zygote.communicate(timeout=30)
    assert (zygote.returncode, said) == (0, b"")


def test_a_short_lived_zygote_has_loaded_what_every_other_has() -> None:
    code = """
import sys
from nexlet_sandboxes.language import preload
from nexlet_sandboxes.worker.rehearsal import rehearse
times = int(sys.argv[1])
preload(times=times)
rehearse(times=times)
print(*sorted(sys.modules))
"""
    # A worker reads no files: what its zygote did not load it never can.
    once, often = (
        subprocess.run([sys.executable, "-I", "-c", code, times], capture_output=True, text=True, check=True).stdout
        for times in ("1", "8")
    )
    assert once == often
    assert "_strptime" in once.split()


async def test_a_short_lived_zygote_that_was_launched_early_is_taken_over() -> None:
    launched = launch_early()
    assert launched is not None
    zygote = await Zygote.start(short_lived=True, launched=launched)
    try:
        assert zygote.pid == launched.process.pid
        source = "import statistics\ndef handler(event, context):\n    return statistics.mean([1, 2])\n"
        async with open_pool(Sandbox(zygote, DEFAULT), source, limits()) as pool:
            assert [result.body for result in await run(pool, b"")] == [b"1.5"]
    finally:
        await zygote.close()


async def test_one_that_was_launched_for_something_else_is_ended() -> None:
    launched = launch_early()
    assert launched is not None
    zygote = await Zygote.start(launched=launched)
    try:
        assert zygote.pid != launched.process.pid
        assert launched.process.returncode is not None
    finally:
        await zygote.close()


def test_what_every_worker_is_a_copy_of_is_small() -> None:
    code = """
import sys
sys.modules["nexlet_sandboxes.zygote_process"] = process = type(sys)("process")
process.main = lambda modules, short_lived: None
from nexlet_sandboxes.zygote_main import main
main()
del sys.modules["nexlet_sandboxes.zygote_process"]
import nexlet_sandboxes.zygote_process
print(*sys.modules)
"""
    loaded = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "nexlet_sandboxes.worker.loop" in loaded
    # Each page costs time in every fork: the event loop and TLS alone were seven megabytes.
    assert not {"asyncio", "ssl", "subprocess", "pydantic", "nats", "concurrent.futures"} & set(loaded)
