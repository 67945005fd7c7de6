"""Who begins, where several nexlets are told the same: by what they say of themselves, round by round."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from nexlet_functions.runner.neighbours import Neighbour, Standing, settle

ASKING, STARTING, SETTLED, LEAVING = Standing.ASKING, Standing.STARTING, Standing.SETTLED, Standing.LEAVING


def one(agent_id: str, standing: Standing, *workloads: str) -> Neighbour:
    return Neighbour(agent_id, standing, frozenset(workloads))


@pytest.mark.parametrize(
    ("rounds", "asked", "elsewhere"),
    [
        pytest.param([[]], 1, "", id="alone"),
        pytest.param([[one("a", SETTLED, "w"), one("c", SETTLED, "v")]], 1, "wv", id="what the others run"),
        pytest.param([[one("a", LEAVING, "w")]], 1, "", id="who leaves does not count"),
        pytest.param([[one("a", STARTING)], [one("a", SETTLED, "w")]], 2, "w", id="who starts is waited for"),
        pytest.param([[one("a", ASKING)], [one("a", ASKING)], [one("a", SETTLED, "w")]], 3, "w", id="the lower begins"),
        pytest.param([[one("c", ASKING)], [one("c", ASKING)]], 2, "", id="we are the lower one"),
        pytest.param([[one("c", ASKING)], [one("c", STARTING)], [one("c", SETTLED, "w")]], 3, "w", id="but came later"),
    ],
)
async def test_who_begins(rounds: Sequence[Sequence[Neighbour]], asked: int, elsewhere: str) -> None:
    left = list(rounds)

    async def ask() -> Sequence[Neighbour]:
        return left.pop(0)

    assert await settle("b", ask) == frozenset(elsewhere)
    assert len(rounds) - len(left) == asked


async def test_it_does_not_wait_for_ever(capsys: pytest.CaptureFixture[str]) -> None:
    async def ask() -> Sequence[Neighbour]:
        return [one("a", STARTING, "w")]

    assert await settle("b", ask, rounds=3) == frozenset("w")
    assert "do not come to rest" in capsys.readouterr().out
