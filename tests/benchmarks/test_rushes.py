"""Workers that follow their load, for real and as short as can be: that it is measured, not what."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from benchmarks import rushes
from benchmarks.kinds import Options


@pytest.mark.timeout(300)
async def test_rushes(monkeypatch: pytest.MonkeyPatch) -> None:
    steady, bursts = rushes.SITUATIONS[:2]
    assert bursts.bursts
    assert not steady.bursts
    few = (replace(steady, count=16, in_flight=8), replace(bursts, count=8, in_flight=4, workers=1))
    monkeypatch.setattr(rushes, "SITUATIONS", few)
    found = await rushes.KIND.measure(Options(rounds=2))
    assert isinstance(found, rushes.Rushes)
    assert [one.situation for one in found.rushes] == [one.name for one in few]
    for one, situation in zip(found.rushes, few, strict=True):
        assert one.rate > 0
        assert 5 <= one.p50_ms <= one.p99_ms
        assert (one.first_ms > 0) is situation.bursts
        assert len(one.workers) == 2
        assert all(1 <= workers <= situation.workers for workers in one.workers)
        assert one.errors == 0
    assert len(found.table()) == 3
    json.dumps(found.as_json())
