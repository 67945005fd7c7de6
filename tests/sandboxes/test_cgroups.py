"""Control groups: workers are born in theirs, limited by it, and leave nothing; what cannot be used is refused.

The kernel's own cgroup v2 wherever a folder can be made in one. What a controller does is tried where one is delegated;
what is written to its files, and what is said to be wrong with a folder, is looked at in any case.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from nexlet_sandboxes.cgroup import Cgroup, CgroupUnusable
from nexlet_sandboxes.kernel import landlock
from nexlet_sandboxes.kernel.cgroups import CONTROLLERS, TABLE, Group, clear, fork_into, ran_out_of_memory, remove
from nexlet_sandboxes.outcomes import LoadRefused, Outcome
from nexlet_sandboxes.pool import Pool
from nexlet_sandboxes.probe import check_layers
from nexlet_sandboxes.profiles import PROFILES
from nexlet_sandboxes.program import Program
from nexlet_sandboxes.zygote import Zygote
from tests.support.cgroups import Unavailable, delegated_folder
from tests.support.polling import eventually
from tests.support.pools import MIB, KeepingSink, Sandbox, limits, open_pool, run
from tests.support.zygotes import arguments, doing_nothing, without_calls

ECHO = "def handler(event, context):\n    return event.data\n"
BOMB = "def handler(event, context):\n    return 'x' * int(event.text)\n"

HERE = [name for name, profile in PROFILES.items() if "landlock" not in profile.layers or landlock.abi_version()]
"""Profiles whose workers this machine can lock."""

WITHOUT_CLONE3 = without_calls("clone3")
"""A kernel, or a container, that does not know the call: the worker moves into its group by itself."""


Start = Callable[[], AbstractAsyncContextManager[tuple[Zygote, Cgroup]]]


@pytest.fixture
def folder() -> Iterator[Path]:
    try:
        with delegated_folder() as made:
            yield made
    except Unavailable as why:
        pytest.skip(str(why))


@pytest.fixture
def controllers(folder: Path) -> tuple[str, ...]:
    """What `folder` can limit."""
    return tuple(name for name in CONTROLLERS if name in (folder / "cgroup.controllers").read_text().split())


@pytest.fixture
def start(folder: Path) -> Start:
    """How a zygote is started that gives each worker a group, and where."""

    @asynccontextmanager
    async def started() -> AsyncIterator[tuple[Zygote, Cgroup]]:
        zygote = await Zygote.start(cgroup=folder)
        try:
            assert zygote.cgroup is not None
            yield zygote, zygote.cgroup
        finally:
            await zygote.close()
        assert below(folder) == []

    return started


@pytest.fixture(params=("", WITHOUT_CLONE3), ids=("clone3", "without-clone3"))
async def grouped(
    start: Start, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Zygote, Cgroup]]:
    """A zygote that gives each worker a group, in both ways there are."""
    if request.param:
        monkeypatch.setattr(Zygote, "arguments", arguments(request.param))
    async with start() as started:
        yield started


def needs(controllers: tuple[str, ...], *names: str) -> None:
    missing = sorted(set(names) - set(controllers))
    if missing:
        pytest.skip(f"cgroup v2 has no controller {', '.join(missing)} to give on this machine")


def below(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir() if entry.is_dir()]


def groups(cgroup: Cgroup) -> list[str]:
    return sorted(entry.name for entry in cgroup.own.iterdir() if entry.is_dir())


def group_of(pid: int) -> str:
    (line,) = [line for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines() if line.startswith("0::")]
    return line.rpartition("/")[2]


class TestWorkers:
    async def test_each_is_in_a_group_of_its_own_that_goes_with_it(self, grouped: tuple[Zygote, Cgroup]) -> None:
        zygote, cgroup = grouped
        assert zygote.pid is not None
        for profile in HERE:
            process = await zygote.spawn(profile, 64 * MIB)
            other = await zygote.spawn(profile, 64 * MIB)
            assert groups(cgroup) == sorted([str(process.number), str(other.number)])
            await eventually(lambda: group_of(process.pid) == str(process.number))  # noqa: B023  # at once
            await eventually(lambda: group_of(other.pid) == str(other.number))  # noqa: B023
            assert group_of(zygote.pid) not in groups(cgroup)
            process.kill()
            await eventually(lambda: groups(cgroup) == [str(other.number)])  # noqa: B023
            other.kill()
            await eventually(lambda: groups(cgroup) == [])
            process.close()
            other.close()

    async def test_they_work_as_without(self, grouped: tuple[Zygote, Cgroup]) -> None:
        zygote, cgroup = grouped
        async with open_pool(Sandbox(zygote, HERE[0]), ECHO, limits()) as pool:
            (result,) = await run(pool, b"hello")
            assert (result.outcome, result.body) == (Outcome.OK, b"hello")
            assert len(groups(cgroup)) == 1
        await eventually(lambda: groups(cgroup) == [])

    async def test_what_the_kernel_kills_for_memory_ends_as_memory_and_the_next_call_is_served(
        self, start: Start, controllers: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        needs(controllers, "memory")
        # The address space is not limited here, so that the group is what is met.
        monkeypatch.setattr(Zygote, "arguments", arguments(doing_nothing("rlimits")))
        async with (
            start() as (zygote, _),
            open_pool(Sandbox(zygote, "process"), BOMB, limits(memory=16 * MIB)) as pool,
        ):
            (result,) = await run(pool, b"500000000")
            assert (result.outcome, result.code, result.error) == (Outcome.MEMORY, 507, "over its memory limit")
            (result,) = await run(pool, b"5")
            assert result.body == b"xxxxx"
            assert not pool.unwell

    async def test_a_module_that_is_killed_for_memory_is_refused_as_one_that_noticed_is(
        self, start: Start, controllers: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        needs(controllers, "memory")
        monkeypatch.setattr(Zygote, "arguments", arguments(doing_nothing("rlimits")))
        program = Program("text = 'x' * 500_000_000\n" + ECHO)
        async with start() as (zygote, _):
            with pytest.raises(LoadRefused) as refused:
                await Pool(zygote, program, limits(memory=16 * MIB), KeepingSink(), profile="process").start()
        assert [problem.code for problem in refused.value.problems] == ["load-memory"]

    async def test_a_zygote_that_is_killed_leaves_no_group_behind(self, grouped: tuple[Zygote, Cgroup]) -> None:
        zygote, cgroup = grouped
        process = await zygote.spawn(HERE[0], 64 * MIB)
        assert groups(cgroup) == [str(process.number)]
        assert zygote.pid is not None
        os.kill(zygote.pid, 9)
        await eventually(lambda: zygote.restarts == 1)
        assert groups(cgroup) == []
        process.close()
        again = await zygote.spawn(HERE[0], 64 * MIB)
        assert groups(cgroup) == [str(again.number)]
        again.close()

    async def test_a_group_that_cannot_be_made_is_a_layer_that_is_missing(self, start: Start, folder: Path) -> None:
        async with start() as (zygote, cgroup):
            (folder / "cgroup.max.descendants").write_text("1")
            (check, *_) = await check_layers(zygote, ["unsafe-dev"])
            assert (check.layer, check.holds) == ("cgroup", False)
            assert check.happened == "it could not be applied: Resource temporarily unavailable"
            process = await zygote.spawn("unsafe-dev", MIB, without=["cgroup"])
            assert groups(cgroup) == []
            process.close()


class TestTheTrial:
    async def test_it_holds_as_far_as_something_is_limited(
        self, grouped: tuple[Zygote, Cgroup], controllers: tuple[str, ...]
    ) -> None:
        zygote, cgroup = grouped
        checks = {check.layer: check for check in await check_layers(zygote, ["process"])}
        assert list(checks) == ["cgroup", *PROFILES["process"].layers]
        found = checks.pop("cgroup")
        assert [check for check in checks.values() if not check.holds] == []
        if "memory" in controllers:
            expected = "the kernel killed it when its group was at its limit"
        elif controllers:
            expected = f"limited, as far as that is delegated: {', '.join(controllers)}"
        else:
            expected = "its group limits nothing: none of memory, pids, cpu is delegated"
        assert (found.happened, found.holds) == (expected, bool(controllers))
        await eventually(lambda: groups(cgroup) == [])

    async def test_a_worker_outside_of_its_group_is_noticed(
        self, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Zygote, "arguments", arguments(WITHOUT_CLONE3 + doing_nothing("cgroup")))
        async with start() as (zygote, _):
            (found, *_) = await check_layers(zygote, ["unsafe-dev"])
            assert (found.holds, found.happened) == (False, "it is not in its group")

    @pytest.mark.parametrize("file", ["memory.max", "pids.max"])
    async def test_a_limit_that_is_not_kept_is_noticed(
        self, start: Start, controllers: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, file: str
    ) -> None:
        needs(controllers, file.partition(".")[0])
        change = f"""
from nexlet_sandboxes.kernel import cgroups
cgroups.TABLE = tuple(row for row in cgroups.TABLE if row.file != {file!r})
"""
        monkeypatch.setattr(Zygote, "arguments", arguments(change))
        async with start() as (zygote, _):
            (found, *_) = await check_layers(zygote, ["unsafe-dev"])
            assert not found.holds, found

    async def test_without_a_folder_there_is_no_such_layer(self, zygote: Zygote) -> None:
        checks = await check_layers(zygote, ["unsafe-dev"])
        assert [check.layer for check in checks] == list(PROFILES["unsafe-dev"].layers)


class TestTheFolder:
    def test_what_is_delegated_is_handed_on_and_what_is_not_is_named(
        self, folder: Path, controllers: tuple[str, ...]
    ) -> None:
        cgroup = Cgroup.open(folder)
        assert cgroup.controllers == controllers
        assert set(cgroup.missing) == set(CONTROLLERS) - set(controllers)
        for place in (folder, cgroup.own):
            assert set((place / "cgroup.subtree_control").read_text().split()) == set(controllers)
        cgroup.close()

    def test_nothing_is_left_of_one_that_is_closed(self, folder: Path) -> None:
        made = Cgroup.open(folder)
        (made.own / "7").mkdir()
        made.close()
        assert below(folder) == []

    def test_what_a_killed_one_left_is_removed_and_what_a_living_one_has_is_not(self, folder: Path) -> None:
        left = folder / "workers-00000000"
        (left / "3").mkdir(parents=True)
        with subprocess.Popen(["sleep", "1000"]) as survivor:
            (left / "3" / "cgroup.procs").write_text(str(survivor.pid))
            living = Cgroup.open(folder)
            assert survivor.wait() == -9
        assert not left.exists()
        second = Cgroup.open(folder)
        assert living.own.is_dir()
        second.close()
        living.close()

    def test_a_nexlet_that_is_alone_in_it_moves_aside(self, folder: Path) -> None:
        code = f"""
import os
from pathlib import Path
from nexlet_sandboxes.cgroup import Cgroup
folder = Path({str(folder)!r})
(folder / "cgroup.procs").write_text(str(os.getpid()))
made = Cgroup.open(folder)
print(Path("/proc/self/cgroup").read_text().rpartition("/")[2].strip())
made.close()
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (0, "nexlet\n", "")

    def test_processes_of_others_are_not_moved(self, folder: Path) -> None:
        with subprocess.Popen(["sleep", "1000"]) as other:
            try:
                (folder / "cgroup.procs").write_text(str(other.pid))
                with pytest.raises(CgroupUnusable, match=rf"other processes than this one are in it \({other.pid}\)"):
                    Cgroup.open(folder)
                assert below(folder) == []
            finally:
                other.kill()

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
    def test_one_that_is_not_delegated_to_this_user_is_refused(self, folder: Path) -> None:
        child = os.fork()
        if child == 0:
            os.setresuid(65534, 65534, 65534)
            try:
                Cgroup.open(folder)
            except CgroupUnusable as error:
                os._exit(0 if "Permission denied" in str(error) and "Delegate=yes" in str(error) else 2)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    def test_a_threaded_one_is_refused(self, folder: Path) -> None:
        (folder / "cgroup.type").write_text("threaded")
        with pytest.raises(CgroupUnusable, match="its type is 'threaded'"):
            Cgroup.open(folder)

    def test_any_other_folder_is_refused_with_what_it_is(self, tmp_path: Path) -> None:
        with pytest.raises(CgroupUnusable, match="it is no folder of cgroup v2") as refused:
            Cgroup.open(tmp_path)
        assert (refused.value.folder, refused.value.code) == (tmp_path, "cgroup-unusable")
        (tmp_path / "cgroup.procs").touch()
        with pytest.raises(CgroupUnusable, match="it is of cgroup v1"):
            Cgroup.open(tmp_path)


class TestTheGroup:
    @pytest.fixture
    def plain(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
        """Folders whose files the kernel seems to have made; given names of files, those are there."""

        def make(*files: str) -> Path:
            path = tmp_path / "group"

            def mkdir(self: Path, mode: int) -> None:
                real(self, mode)
                for file in files:
                    (self / file).touch()

            real = Path.mkdir
            monkeypatch.setattr(Path, "mkdir", mkdir)
            return path

        return make

    def test_its_limits_are_those_of_the_table(self, plain: Callable[..., Path]) -> None:
        path = plain(*(row.file for row in TABLE))
        group = Group.make(path, CONTROLLERS, memory=64 * MIB, processes=2)
        written = {file.name: file.read_text() for file in path.iterdir()}
        assert 0 < int(written.pop("memory.max")) - 64 * MIB < 1024 * MIB  # and what this process has
        assert written == {
            "memory.swap.max": "0",
            "memory.oom.group": "1",
            "pids.max": "2",
            "cpu.max": "100000 100000",
        }
        group.alone()
        assert (path / "pids.max").read_text() == "1"

    def test_only_controllers_that_are_there_are_used_and_old_kernels_lack_some_files(
        self, plain: Callable[..., Path]
    ) -> None:
        path = plain("memory.max", "pids.max")
        group = Group.make(path, ("memory",), memory=MIB, processes=1)
        assert (path / "pids.max").read_text() == ""
        assert int((path / "memory.max").read_text()) > MIB
        (path / "pids.max").unlink()
        group.alone()

    def test_a_limit_that_must_be_there_and_is_not_is_an_error(self, plain: Callable[..., Path]) -> None:
        path = plain()
        with pytest.raises(FileNotFoundError):
            Group.make(path, ("pids",), memory=MIB, processes=1)
        assert not path.exists()

    @pytest.mark.parametrize(
        ("events", "expected"),
        [
            ("low 0\nhigh 0\nmax 12\noom 1\noom_kill 1\noom_group_kill 0\n", True),
            ("low 0\nhigh 0\nmax 12\noom 0\noom_kill 0\n", False),
            ("low 0\nhigh 0\nmax 0\noom 0\noom_kill 1\n", False),
            ("", False),
        ],
        ids=("at-its-limit", "pressed", "the-machine-was-out-of-memory", "nothing-said"),
    )
    def test_only_its_own_limit_counts_as_out_of_memory(self, tmp_path: Path, events: str, expected: bool) -> None:
        (tmp_path / "memory.events").write_text(events)
        assert ran_out_of_memory(tmp_path) is expected

    def test_without_the_controller_nothing_ran_out_of_memory(self, tmp_path: Path) -> None:
        assert not ran_out_of_memory(tmp_path)

    def test_what_is_still_in_it_is_killed_and_then_it_goes(self, folder: Path) -> None:
        path = folder / "group"
        path.mkdir()
        with subprocess.Popen(["sleep", "1000"]) as left:
            (path / "cgroup.procs").write_text(str(left.pid))
            remove(path)  # it may be gone at once, or have to wait for whom it killed
            assert left.wait() == -9
        assert remove(path)
        assert not path.exists()
        assert clear(path)


class TestBeingBornInOne:
    def test_the_child_is_as_after_a_fork(self, folder: Path) -> None:
        """As libc's and Python's own fork see to: numbers, locks, what was registered to be run after one."""
        path = folder / "group"
        path.mkdir()
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        code = f"""
import os, random, signal, subprocess, sys, threading
from nexlet_sandboxes.kernel.cgroups import fork_into
random.seed(7)
expected = random.Random(7).random()
parent = os.getpid()
heard = []
signal.signal(signal.SIGUSR1, lambda number, stack: heard.append(number))
pid, inside = fork_into({descriptor})
if pid == 0:
    told = open("/proc/self/cgroup").read().rpartition("/")[2].strip()
    done = []
    thread = threading.Thread(target=done.append, args=(1,))
    thread.start()
    thread.join()
    signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)  # libc knows our number
    sane = (
        inside and told == "group" and os.getppid() == parent and done == [1]
        and threading.get_native_id() == os.getpid() and heard == [signal.SIGUSR1]
        and random.random() != expected  # it is seeded anew, as after any fork
        and subprocess.run([sys.executable, "-c", ""]).returncode == 0
    )
    os._exit(0 if sane else 1)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), random.random() == expected)
"""
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, pass_fds=(descriptor,)
        )
        os.close(descriptor)
        assert (done.stdout, done.stderr) == ("0 True\n", "")

    def test_what_is_no_group_is_refused_and_nothing_is_born(self, tmp_path: Path) -> None:
        descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
        threads = threading.active_count()
        try:
            with pytest.raises(OSError, match="clone3"):
                fork_into(descriptor)
        finally:
            os.close(descriptor)
        assert threading.active_count() == threads
