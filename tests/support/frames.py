"""What real Nex programs said to each other: the recorded frames, scenario by scenario.

In a scenario, `answers` is the index of the request that a frame answers; a frame with `request` asks for an answer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

FRAMES = Path(__file__).parent.parent / "models" / "frames.json"


@dataclass(frozen=True)
class Frame:
    """One recorded message. `asked` is the subject of the request that it answers, "" where it answers none."""

    scenario: str
    index: int
    subject: str
    asked: str
    is_request: bool
    headers: dict[str, str]
    body: Any = field(repr=False)
    is_json: bool = True

    @property
    def failed(self) -> bool:
        return "Nats-Service-Error" in self.headers

    def __str__(self) -> str:
        return f"{self.scenario}-{self.index}"


@cache
def scenarios() -> dict[str, list[Frame]]:
    """All of them, by name."""
    found = {}
    for scenario in json.loads(FRAMES.read_text())["scenarios"]:
        frames = scenario["frames"]
        found[scenario["name"]] = [
            Frame(
                scenario=scenario["name"],
                index=index,
                subject=frame.get("subject", ""),
                asked=frames[frame["answers"]]["subject"] if "answers" in frame else "",
                is_request=frame.get("request", False),
                headers=frame.get("headers", {}),
                body=frame["json"] if "json" in frame else frame["text"],
                is_json="json" in frame,
            )
            for index, frame in enumerate(frames)
        ]
    return found


def frames() -> list[Frame]:
    """All of all."""
    return [frame for scenario in scenarios().values() for frame in scenario]
