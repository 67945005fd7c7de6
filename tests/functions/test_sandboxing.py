"""What the machine holds against what the operator permits: starting, refusing, degrading by name, and telling it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.errors import SettingsRefused
from nexlet_functions.functions.agent import FunctionAgent
from nexlet_functions.nexlet import Nexlet
from nexlet_functions.sandboxing import LayersMissing, Sandboxing, permitted_profiles, prove
from nexlet_functions.settings import Settings, SettingsHolder
from nexlet_sandboxes.cgroup import Cgroup
from nexlet_sandboxes.kernel import landlock
from nexlet_sandboxes.probe import LayerCheck, Standing
from nexlet_sandboxes.profiles import PROFILES
from nexlet_sandboxes.zygote import Zygote
from tests.support.agent import AgentBench, agent_bench
from tests.support.cgroups import Unavailable, delegated_folder
from tests.support.zygotes import arguments, missing, open_zygote

pytestmark = pytest.mark.skipif(landlock.abi_version() == 0, reason="this kernel has no Landlock")


def lacking(layer: str, *, permitted: tuple[str, ...] = ()) -> Sandboxing:
    """As it is found on a machine without `layer`."""
    found = {}
    for name, profile in PROFILES.items():
        checks = tuple(
            LayerCheck(name, each, "something", "it was possible", False, "get it")
            for each in profile.layers
            if each == layer
        )
        found[name] = Standing(name, tuple(each for each in profile.layers if each != layer), checks)
    return Sandboxing(found, frozenset(permitted))


async def start(server: EmbeddedServer, **settings: Any) -> Nexlet:
    made = Settings.model_validate({"servers": (server.url,), "no_state": True, **settings})
    return await Nexlet.start(SettingsHolder(made))


@pytest.fixture
def without_landlock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every zygote of this process is one of a machine without Landlock."""
    monkeypatch.setattr(Zygote, "arguments", arguments(missing("landlock")))


def test_what_is_missing_makes_its_profiles_unavailable_and_no_other() -> None:
    found = lacking("namespaces")
    assert {name for name in PROFILES if found.lacking(name)} == {"isolated"}
    assert found.without == frozenset()
    found.require("strict")
    with pytest.raises(LayersMissing, match="'isolated', the default, does not hold") as refused:
        found.require("isolated")
    assert refused.value.layers == ("namespaces",)
    assert refused.value.code == "layers-missing"
    text = str(refused.value)
    assert "namespaces: it was possible" in text
    assert "get it" in text
    assert "doctor" in text
    assert "--permit-missing-layers namespaces" in text


def test_permission_is_by_name_and_reaches_no_further_than_what_is_missing() -> None:
    found = lacking("landlock", permitted=("landlock", "seccomp"))
    assert found.without == {"landlock"}  # seccomp is there, and stays
    found.require("strict")
    assert found.facts("strict")["missing_layers"] == "landlock"
    assert "seccomp" in found.facts("strict")["layers"]
    with pytest.raises(LayersMissing):
        lacking("landlock", permitted=("seccomp",)).require("strict")


def test_a_layer_that_does_not_exist_cannot_be_permitted_away() -> None:
    with pytest.raises(SettingsRefused, match="no layer is called 'landlok'; there are cgroup, environment, "):
        Settings.read({"permit_missing_layers": "landlock,landlok"})


def test_profiles_somebody_may_use_are_those_of_all_rules_and_the_default() -> None:
    assert permitted_profiles(Settings()) == ("strict", "isolated", "oneshot")
    rules = {"default_profile": "strict", "defaults": {"profiles": ["oneshot"]}}
    narrow = Settings.model_validate({**rules, "namespaces": {"lab": {"profiles": ["unsafe-dev"]}}})
    assert permitted_profiles(narrow) == ("strict", "oneshot", "unsafe-dev")


def test_controllers_are_among_the_facts_where_workers_have_groups() -> None:
    standing = Standing("strict", ("cgroup", *PROFILES["strict"].layers))
    cgroup = Cgroup(Path("/delegated"), Path("/delegated/workers-1"), ("memory", "pids"), -1)
    facts = Sandboxing({"strict": standing}, cgroup=cgroup).facts("strict")
    assert facts == {"layers": ",".join(standing.engaged), "cgroup_controllers": "memory,pids"}
    assert cgroup.missing == ("cpu",)


async def test_a_nexlet_with_control_groups_tells_of_them_and_leaves_none(nats_server: EmbeddedServer) -> None:
    try:
        with delegated_folder() as folder, capture_logs() as logs:
            # Where no controller is to be had the layer does not hold: that alone is what the permission changes.
            async with await start(nats_server, cgroup=folder, permit_missing_layers=("cgroup",)) as nexlet:
                own = [entry.name for entry in folder.iterdir() if entry.is_dir()]
                assert nexlet.sandboxing.cgroup is not None
                said = nexlet.sandboxing.cgroup.controllers
            left = [entry.name for entry in folder.iterdir() if entry.is_dir()]
    except Unavailable as why:
        pytest.skip(str(why))
    (line,) = [one for one in logs if one["event"] == "control groups of workers"]
    assert line["folder"] == str(folder)
    assert {*line["controllers"], *line["not_delegated"]} == {"memory", "pids", "cpu"}
    assert (len(own), left) == (1, [])
    assert list(said) == line["controllers"]


async def test_a_folder_without_a_controller_limits_nothing_and_ends_the_start(nats_server: EmbeddedServer) -> None:
    try:
        with delegated_folder() as folder:
            if set((folder / "cgroup.controllers").read_text().split()) & {"memory", "pids", "cpu"}:
                pytest.skip("cgroup v2 has controllers to give here")
            with pytest.raises(LayersMissing, match="its group limits nothing") as refused:
                await start(nats_server, cgroup=folder)
            assert [entry for entry in folder.iterdir() if entry.is_dir()] == []
    except Unavailable as why:
        pytest.skip(str(why))
    assert refused.value.layers == ("cgroup",)


async def test_the_proof_is_over_every_profile() -> None:
    async with open_zygote(missing("landlock")) as zygote:
        found = await prove(zygote, Settings.model_validate({"permit_missing_layers": ("landlock",)}))
    assert set(found.standings) == set(PROFILES)
    assert found.standings["strict"].missing_names == ("landlock",)
    assert found.standings["process"].missing == ()
    assert found.without == {"landlock"}


async def test_the_nexlet_does_not_start_without_a_layer_of_its_default_profile(
    nats_server: EmbeddedServer, without_landlock: None
) -> None:
    with pytest.raises(LayersMissing, match="landlock: it could not be applied: no such thing on this machine"):
        await start(nats_server)


async def test_the_nexlet_starts_where_the_default_profile_is_not_concerned(
    nats_server: EmbeddedServer, without_landlock: None
) -> None:
    with capture_logs() as logs:
        async with await start(nats_server, default_profile="process"):
            pass
    told = {line["profile"]: line for line in logs if line["event"] == "sandbox profile"}
    assert told["process"]["available"]
    assert told["process"]["default"]
    assert told["process"]["missing"] == {}
    assert not told["strict"]["available"]
    assert set(told["strict"]["missing"]) == {"landlock"}
    assert told["strict"]["log_level"] == "warning"


async def test_the_nexlet_starts_without_a_layer_that_is_permitted_by_name(
    nats_server: EmbeddedServer, without_landlock: None
) -> None:
    with capture_logs() as logs:
        async with await start(nats_server, permit_missing_layers=("landlock",)) as nexlet:
            assert nexlet.sandboxing.without == {"landlock"}
            assert nexlet._zygote.without == {"landlock"}
    (line,) = [one for one in logs if one["event"] == "sandbox profile" and one["profile"] == "strict"]
    assert line["available"]
    assert set(line["missing"]) == {"landlock"}


async def test_unsafe_dev_is_said_on_every_start_that_permits_it(nats_server: EmbeddedServer) -> None:
    with capture_logs() as logs:
        async with await start(nats_server, defaults={"profiles": ["strict", "unsafe-dev"]}):
            pass
    assert [one for one in logs if "unsafe-dev is permitted" in one["event"] and one["log_level"] == "warning"]
    with capture_logs() as logs:
        async with await start(nats_server):
            pass
    assert not [one for one in logs if "unsafe-dev" in one["event"]]


class TestTheAgent:
    @pytest.fixture
    async def bench(self, nats_server: EmbeddedServer) -> AsyncIterator[AgentBench]:
        """An agent on a machine without namespaces."""
        async with agent_bench(nats_server) as bench:
            agent = bench.agent
            bench.agent = FunctionAgent(
                services=agent._services,
                zygote=agent._means.zygote,
                settings=agent._settings,
                key=agent._key,
                sandboxing=lacking("namespaces"),
            )
            yield bench
            await bench.agent.close()

    async def test_a_profile_that_is_not_to_be_had_is_refused_with_what_is(self, bench: AgentBench) -> None:
        refused = await bench.refusal(sandbox="isolated")
        assert "the profile 'isolated' cannot be had on this nexlet's machine, which lacks namespaces" in refused.text
        assert "profiles that can: strict, oneshot;" in refused.text

    async def test_what_holds_is_in_the_heartbeat_and_in_both_metadata(self, bench: AgentBench) -> None:
        await bench.start("W1")
        data = json.loads((await bench.agent.heartbeat()).data)
        assert data["sandboxes"]["isolated"]["missing"] == ["namespaces"]
        assert data["cgroup_controllers"] is None
        assert data["sandboxes"]["strict"] == {"engaged": list(PROFILES["strict"].layers), "missing": []}
        assert "unsafe-dev" not in data["sandboxes"]
        said = bench.agent.service_metadata()
        assert said["layers"] == ",".join(PROFILES["strict"].layers)
        assert "missing_layers" not in said
        (summary,) = await bench.agent.query_workloads("acme", [])
        metadata = summary.metadata
        assert metadata is not None
        assert (metadata["sandbox"], metadata["layers"]) == ("strict", ",".join(PROFILES["strict"].layers))
