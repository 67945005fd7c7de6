"""The state folder by itself: what it reads back, what it sets aside, what it owes when the disk does not take it."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nexlet_functions.runner.state import VERSION, KeptRegistration, State, StateUnusable
from nexlet_models.connection import NatsConnectionData
from nexlet_models.workloads import AgentStartWorkloadRequest, StartWorkloadRequest, WorkloadLifecycle

REGISTRATION = KeptRegistration(
    nexus="nexus", node_id="N1", agent_id="A1", offer="digest", connection_data=NatsConnectionData(conn_name="it")
)


def request(name: str = "greet") -> AgentStartWorkloadRequest:
    return AgentStartWorkloadRequest(
        request=StartWorkloadRequest(
            name=name,
            namespace="demo",
            description="",
            workload_type="python",
            workload_lifecycle=WorkloadLifecycle.FUNCTION,
            run_request=json.dumps({"source": "def handler(event, context): ..."}),
            tags={},
        ),
        workload_creds=NatsConnectionData(conn_name="w"),
    )


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    state = State.open(tmp_path / "state")
    yield state
    state.close()


def again(state: State, folder: Path) -> State:
    """The same folder, as the next process finds it."""
    state.close()
    return State.open(folder)


def only_workload(folder: Path) -> Path:
    (file,) = (folder / "workloads").glob("*.json")
    return file


async def test_what_is_kept_comes_back_and_is_its_owners_alone(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o755)  # as systemd makes it
    before = os.umask(0)
    try:
        state = State.open(folder)
        await state.keep_registration(REGISTRATION)
        await state.keep_workload("w1", request())
        await state.keep_workload("w2", request("other"))
        await state.forget_workload("w2")
        await state.forget_workload("never heard of")
    finally:
        os.umask(before)
    state = again(state, folder)
    assert state.registration() == REGISTRATION
    assert state.workloads() == {"w1": request()}
    state.close()
    for path in folder.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    assert not list(folder.rglob(".new-*"))


async def test_what_stands_there_already_is_not_written_again(tmp_path: Path) -> None:
    state = State.open(tmp_path / "state")
    await state.keep_workload("w1", request())
    file = only_workload(tmp_path / "state")
    before = file.stat().st_ino
    state = again(state, tmp_path / "state")
    assert state.workloads() == {"w1": request()}
    await state.keep_workload("w1", request())
    assert file.stat().st_ino == before
    await state.keep_workload("w1", request("changed"))
    assert state.workloads() == {"w1": request("changed")}
    await state.forget_workload("w1")
    await state.keep_workload("w1", request("changed"))
    assert state.workloads() == {"w1": request("changed")}
    state.close()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no JSON"),
        (b"\0\0\0\0", "no JSON"),
        (b'{"version": 1, "nexus": "nex', "no JSON"),
        (b"[1]", "does not say its version"),
        (b'{"nexus": "nexus"}', "does not say its version"),
        (b'{"version": "1"}', "does not say its version"),
        (b'{"version": true}', "does not say its version"),
        (b'{"version": 0, "who": "an older one"}', "its version is 0, and this program reads version 1"),
        (b'{"version": 2, "everything": "is different"}', "its version is 2, and this program reads version 1"),
        (b'{"version": 1}', "field nexus: Field required"),
        (b'{"version": 1, "nexus": 7}', "field nexus: Input should be a valid string"),
    ],
)
def test_what_cannot_be_used_is_set_aside_with_a_word(
    state: State, tmp_path: Path, content: bytes, reason: str
) -> None:
    file = tmp_path / "state" / "registration.json"
    file.write_bytes(content)
    with structlog.testing.capture_logs() as logs:
        assert state.registration() is None
    (line,) = logs
    assert (line["event"], line["log_level"]) == ("a state file is not used", "warning")
    assert reason in line["reason"]
    assert not file.exists()
    assert Path(line["kept_as"]).read_bytes() == content


async def test_one_damaged_workload_does_not_take_the_others_along(state: State, tmp_path: Path) -> None:
    await state.keep_workload("w1", request())
    file = only_workload(tmp_path / "state")
    await state.keep_workload("w2", request("other"))
    file.write_bytes(file.read_bytes()[:-40])
    assert list(state.workloads()) == ["w2"]
    # A file that was copied to another name would come back as a second one of the same id.
    shutil.copy(only_workload(tmp_path / "state"), file)
    with structlog.testing.capture_logs() as logs:
        assert list(state.workloads()) == ["w2"]
    assert "it is about workload 'w2'" in logs[0]["reason"]


SOUND: dict[str, Any] = json.loads(REGISTRATION.to_json())
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
damaged = (
    st.binary(max_size=200)
    | st.integers(0, len(REGISTRATION.to_json())).map(lambda end: REGISTRATION.to_json()[:end])
    | anything.map(lambda value: json.dumps(value).encode())
    | st.tuples(st.sampled_from(sorted(SOUND)), anything).map(
        lambda change: json.dumps({**SOUND, change[0]: change[1]}).encode()
    )
    | st.integers(1, 200_000).map(lambda depth: b"[" * depth)
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=damaged)
def test_no_content_of_a_file_breaks_the_start(state: State, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "state" / "registration.json"
    aside = file.with_suffix(".set-aside")
    aside.unlink(missing_ok=True)
    file.write_bytes(content)
    with structlog.testing.capture_logs():
        kept = state.registration()
    if kept is None:
        assert aside.read_bytes() == content, "nothing is lost"
    else:
        assert kept.version == VERSION


async def test_what_the_disk_does_not_take_is_owed_until_it_does(state: State, tmp_path: Path) -> None:
    folder = tmp_path / "state"
    await state.keep_workload("gone", request("gone"))
    (folder / "workloads").rename(folder / "elsewhere")
    with structlog.testing.capture_logs() as logs:
        await state.keep_workload("w1", request())
        await state.keep_workload("w1", request("newer"))
        await state.catch_up()
        await state.forget_workload("gone")
    assert [line["event"] for line in logs] == ["state could not be kept"] * 2, "once for each file"
    assert logs[0]["reason"] == "No such file or directory"
    assert state.owed == 2
    (folder / "elsewhere").rename(folder / "workloads")
    with structlog.testing.capture_logs() as logs:
        await state.catch_up()
        await state.catch_up()
    assert [line["event"] for line in logs] == ["state is kept again: everything that was owed is written"]
    assert state.owed == 0
    assert state.workloads() == {"w1": request("newer")}


async def test_what_is_written_meanwhile_is_not_undone_by_what_was_owed(state: State, tmp_path: Path) -> None:
    folder = tmp_path / "state" / "workloads"
    folder.rename(tmp_path / "elsewhere")
    await state.keep_workload("w1", request())
    (tmp_path / "elsewhere").rename(folder)
    await state.forget_workload("w1")
    await state.catch_up()
    assert state.workloads() == {}


def test_a_folder_that_cannot_be_made_is_said_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateUnusable, match="Not a directory; name another one, or do without state"):
        State.open(tmp_path / "file" / "state")


def test_two_do_not_share_one_folder(state: State, tmp_path: Path) -> None:
    with pytest.raises(StateUnusable, match=rf"in use by another nexlet \(process {os.getpid()}\)"):
        State.open(tmp_path / "state")
