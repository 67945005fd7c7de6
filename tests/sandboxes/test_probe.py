"""The self-check: it finds what holds, notices what does not, and says what to do; without the layer nothing runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nexlet_sandboxes.kernel import landlock
from nexlet_sandboxes.kernel.locks import LAYERS
from nexlet_sandboxes.kernel.trials import TRIALS
from nexlet_sandboxes.outcomes import SandboxError
from nexlet_sandboxes.pool import Pool
from nexlet_sandboxes.probe import ADVICE, LayerCheck, check_layers, standings
from nexlet_sandboxes.profiles import PROFILES
from nexlet_sandboxes.program import Program
from nexlet_sandboxes.zygote import LayerUnavailable, Zygote, ZygoteError
from tests.support.polling import eventually
from tests.support.pools import KeepingSink, Sandbox, limits, open_pool, run
from tests.support.zygotes import children, doing_nothing, missing, open_zygote, user_namespaces, without_calls

ROOT = Path(__file__).parents[2]
ECHO = "def handler(event, context):\n    return event.data\n"

OF_A_MACHINE = [layer for layer in LAYERS if layer != "cgroup"]
"""What every machine is to have. Control groups take a folder that somebody delegates: see test_cgroups."""

needs_landlock = pytest.mark.skipif(landlock.abi_version() == 0, reason="this kernel has no Landlock")


def profile_with(layer: str) -> str:
    """A profile that has the layer, the weakest one first: as few other layers as can be stand in the way."""
    return next(name for name in reversed(PROFILES) if layer in PROFILES[name].layers)


def by_layer(checks: list[LayerCheck]) -> dict[str, LayerCheck]:
    return {check.layer: check for check in checks}


def test_every_layer_has_a_trial_and_advice() -> None:
    assert list(TRIALS) == list(LAYERS)
    assert set(ADVICE) == set(LAYERS)


@needs_landlock
async def test_every_layer_of_every_profile_holds_here(zygote: Zygote) -> None:
    profiles = [name for name in PROFILES if name != "isolated" or user_namespaces()]
    checks = await check_layers(zygote, profiles)
    assert [(check.profile, check.layer) for check in checks] == [
        (name, layer) for name in profiles for layer in PROFILES[name].layers
    ]
    assert [check for check in checks if not check.holds] == []
    assert {check.advice for check in checks} == {""}
    assert all(check.tried == TRIALS[check.layer].tried and check.happened for check in checks)
    for profile, standing in standings(checks).items():
        assert (standing.engaged, standing.missing) == (PROFILES[profile].layers, ())
    await eventually(lambda: children(zygote) == [])


@needs_landlock
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else; the others run this as they are")
def test_every_layer_holds_for_an_ordinary_user() -> None:
    profiles = [name for name in PROFILES if name != "isolated" or user_namespaces()]
    code = f"""
import asyncio, dataclasses, json
from nexlet_sandboxes.probe import check_layers
from nexlet_sandboxes.zygote import Zygote
async def main():
    zygote = await Zygote.start()
    checks = await check_layers(zygote, {profiles!r})
    await zygote.close()
    print(json.dumps([dataclasses.asdict(check) for check in checks]))
asyncio.run(main())
"""
    command = [sys.executable, "-m", "tests.support.unprivileged", sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    checks = json.loads(done.stdout)
    assert len(checks) == sum(len(PROFILES[name].layers) for name in profiles)
    assert [check for check in checks if not check["holds"]] == []


@needs_landlock
@pytest.mark.parametrize("layer", OF_A_MACHINE)
async def test_a_layer_that_does_nothing_is_noticed(layer: str) -> None:
    if layer == "identity" and os.geteuid() != 0:
        pytest.skip("an ordinary user has no root to give up")
    if layer == "capabilities" and os.geteuid() != 0 and not user_namespaces():
        pytest.skip("an ordinary user has no capability without a user namespace")
    # Root gives up its capabilities with its user; those of a user namespace stay until they are dropped.
    profile = "isolated" if layer == "capabilities" else profile_with(layer)
    if profile == "isolated" and not user_namespaces():
        pytest.skip("this machine gives no user namespaces")
    async with open_zygote(doing_nothing(layer)) as zygote:
        check = by_layer(await check_layers(zygote, [profile]))[layer]
    assert not check.holds, check.happened
    assert check.advice == ADVICE[layer]


@needs_landlock
@pytest.mark.parametrize("layer", OF_A_MACHINE)
async def test_a_missing_layer_fails_closed_and_the_others_are_judged_by_themselves(layer: str) -> None:
    profile = profile_with(layer)
    if profile == "isolated" and not user_namespaces():
        pytest.skip("this machine gives no user namespaces")
    async with open_zygote(missing(layer)) as zygote:
        checks = by_layer(await check_layers(zygote, [profile]))
        assert not checks[layer].holds
        assert checks[layer].happened == "it could not be applied: no such thing on this machine"
        assert checks[layer].advice == ADVICE[layer]
        # What stands on the layer goes with it; everything else is not blamed.
        expected = {layer} | ({"empty-root"} if layer == "namespaces" else set())
        assert {name for name, check in checks.items() if not check.holds} - expected <= {"not-dumpable"}
        sink = KeepingSink()
        pool = Pool(zygote, Program(ECHO), limits(), sink, profile=profile)
        with pytest.raises(SandboxError, match=f"could not be locked: {layer}: no such thing on this machine") as error:
            await pool.start()
        assert isinstance(error.value, LayerUnavailable)
        assert error.value.code == "layer-unavailable"
        assert pool.stats().workers == 0
        await eventually(lambda: children(zygote) == [])


async def test_a_kernel_without_landlock_and_namespaces_as_gvisor_is_judged_layer_by_layer() -> None:
    calls = ("landlock_create_ruleset", "landlock_restrict_self", "unshare")
    async with open_zygote(without_calls(*calls)) as zygote:
        found = standings(await check_layers(zygote, tuple(PROFILES)))
        assert found["strict"].missing_names == found["oneshot"].missing_names == ("landlock",)
        assert found["isolated"].missing_names == ("namespaces", "empty-root", "landlock")
        assert found["process"].missing == found["unsafe-dev"].missing == ()
        (landlock_, *_) = found["strict"].missing
        assert "this kernel has no Landlock" in landlock_.happened
        assert "gVisor has none" in landlock_.advice
        (namespaces, *_) = found["isolated"].missing
        assert namespaces.happened == "it could not be applied: unshare: Function not implemented"
        zygote.without = frozenset({"landlock"})
        async with open_pool(Sandbox(zygote, "strict"), ECHO, limits()) as pool:
            (result,) = await run(pool, b"on")
            assert result.body == b"on"


@needs_landlock
async def test_a_layer_that_is_left_out_by_name_is_left_out_and_no_other(zygote: Zygote) -> None:
    async with open_zygote(missing("landlock")) as lacking:
        lacking.without = frozenset({"landlock"})
        async with open_pool(Sandbox(lacking, "strict"), ECHO, limits()) as pool:
            (result,) = await run(pool, b"on")
            assert result.body == b"on"
            status = Path(f"/proc/{pool._links[0].process.pid}/status").read_text()
            assert "Seccomp:\t2" in status
            assert "NoNewPrivs:\t1" in status


async def test_without_namespaces_nobodys_files_are_taken_away(zygote: Zygote) -> None:
    zygote.without = frozenset({"namespaces"})
    pool = Pool(zygote, Program(ECHO), limits(), KeepingSink(), profile="isolated")
    with pytest.raises(LayerUnavailable, match="empty-root: without namespaces of its own"):
        await pool.start()
    assert Path("/proc/self").exists()


async def test_an_unknown_profile_is_an_error_of_the_caller(zygote: Zygote) -> None:
    with pytest.raises(KeyError):
        await check_layers(zygote, ["nosuch"])


async def test_elsewhere_than_on_linux_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(ZygoteError, match="locked by the Linux kernel, and this is darwin: run the nexlet on Linux"):
        await Zygote.start()
