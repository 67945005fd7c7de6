"""`nexfn dev` from a save to the new version that answers: how long it takes, and that nothing is lost under load."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import nats
import pytest

from tests.cli.test_dev_saves import save, source, write
from tests.support.live import StartLive
from tests.support.load import Load

SAVES = 20


@pytest.mark.faults
async def test_a_save_is_deployed_within_half_a_second(live: StartLive, tmp_path: Path) -> None:
    root = tmp_path / "functions"
    root.mkdir()
    greet = write(root / "greet", "0")
    for number in range(9):  # a folder as people have it
        write(root / f"other{number}", "0", name=f"other{number}", subject=f"other.{number}")
    dev = await live("dev", root, "-p", "0")
    url = (await dev.until("ready"))["url"]
    client = await nats.connect(url)
    took: list[float] = []
    told: list[float] = []
    for version in range(1, SAVES + 1):
        began = time.perf_counter()
        save(greet / "function.py", source(str(version)))
        while (await client.request("greet.hello", b"", timeout=5)).data != b"%d" % version:
            pass  # the next question is the pause
        took.append(time.perf_counter() - began)
        told.append((await dev.until("redeployed"))["duration_ms"] / 1000)
    await client.close()
    assert await dev.end() == 0
    print(f"from a save to its answer: median {statistics.median(took) * 1000:.0f} ms, most {max(took) * 1000:.0f} ms")
    assert statistics.median(took) < 0.25, took
    assert max(took) < 0.5, took
    assert all(abs(one - other) < 0.1 for one, other in zip(took, told, strict=True)), "what it tells is what it took"


@pytest.mark.faults
async def test_no_request_of_ten_thousand_is_lost_over_saves(live: StartLive, tmp_path: Path) -> None:
    greet = write(tmp_path / "greet", "0")
    dev = await live("dev", greet, "-p", "0")
    url = (await dev.until("ready"))["url"]
    async with Load(url, "greet.hello", at_once=64) as load:
        for version in range(1, 9):
            await load.more(1_000)
            save(greet / "function.py", source(str(version)))
            await dev.until("redeployed")
        await load.more(2_000)
        assert load.answers["8"]
    assert load.answered >= 10_000
    assert await dev.end(timeout=60) == 0
