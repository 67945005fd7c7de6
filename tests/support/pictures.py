"""The pictures of docs/architecture.md, made from the descriptions below: `python -m tests.support.pictures`.

What stands in `LAYERS` is held against the packages that there are, and against what they import, by
`tests/docs/test_pictures.py`.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from tests.support.documents import ROOT

__all__ = ["LAYERS", "PICTURES", "drawn"]

FOLDER: Final = ROOT / "docs" / "pictures"

_STYLE: Final = """\
text { font: 13px system-ui, sans-serif; fill: #1f2328; }
.name { font-weight: 600; }
.note { font-size: 11.5px; fill: #59636e; }
.step { font-weight: 600; fill: #0a58ca; }
.trusted { fill: #eef4fb; stroke: #6b8fb8; }
.inside { fill: #ffffff; stroke: #9db4cf; }
.untrusted { fill: #fdf0e6; stroke: #cf8a4d; }
.outside { fill: #f3f4f6; stroke: #9aa3ad; }
line, path { stroke: #59636e; stroke-width: 1.4; fill: none; }
.head { fill: #59636e; stroke: none; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .note { fill: #9aa5b1; }
  .step { fill: #79b8ff; }
  .trusted { fill: #16202c; stroke: #4d6b8c; }
  .inside { fill: #0d1117; stroke: #3d5470; }
  .untrusted { fill: #2b1d12; stroke: #a86c36; }
  .outside { fill: #1b2027; stroke: #545d68; }
  line, path { stroke: #9aa5b1; }
  .head { fill: #9aa5b1; }
}
"""

LAYERS: Final[Mapping[str, tuple[Mapping[str, str], ...]]] = {
    "nexlet_functions: the nexlet": (
        {"cli": "one module a command"},
        {
            "devnode": "server and node for development",
            "recording": "invocations as sample events",
            "testing": "functions in tests",
            "secrets": "their stores",
        },
        {
            "functions": "agent, function, dispatch",
            "streams": "JetStream triggers",
            "grants": "what one may touch",
            "observing": "metrics, health, spans",
        },
        {"schedules": "functions that run at times: when, and by which clone"},
        {"runner": "the contract of any nexlet; knows nothing of functions"},
        {"natsio": "connections, and the fast way in and out"},
    ),
    "nexlet_sandboxes: untrusted Python in locked processes; knows no NATS": (
        {"pool, link, zygote": "queues, deadlines, replacement; who makes workers"},
        {"worker": "what runs inside: loop, event, context"},
        {"language": "which Python, which modules", "kernel": "what the kernel denies"},
    ),
    "nexlet_models: what goes over the wire": ({"nexlet_models": "messages, subjects, the start request, problems"},),
}
"""Each package, from the top: its rows of subpackages. What is in a row imports its neighbours and what is below."""


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "middle") -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" class="{kind}">{html.escape(text, quote=False)}</text>'


def _box(x: float, y: float, width: float, height: float, kind: str) -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" class="{kind}"/>'


def _arrow(x1: float, y1: float, x2: float, y2: float, *, both: bool = False) -> str:
    start = ' marker-start="url(#head)"' if both else ""
    return f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" marker-end="url(#head)"{start}/>'


def _picture(width: int, height: int, title: str, parts: Iterator[str]) -> str:
    head = '<path d="M0 0 L8 4 L0 8 z" class="head"/>'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            'role="img">',
            f"<title>{html.escape(title)}</title>",
            f"<style>\n{_STYLE}</style>",
            '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
            f'orient="auto-start-reverse">{head}</marker></defs>',
            *parts,
            "</svg>",
            "",
        ]
    )


def _packages() -> Iterator[str]:
    top = 20.0
    for package, rows in LAYERS.items():
        yield _box(70, top, 650, 34 + 58 * len(rows), "trusted")
        yield _text(84, top + 21, package, "name", "start")
        y = top + 32
        for row in rows:
            width = (622 - 12 * (len(row) - 1)) / len(row)
            for at, (name, note) in enumerate(row.items()):
                x = 84 + at * (width + 12)
                yield _box(x, y, width, 48, "inside")
                yield _text(x + width / 2, y + 20, name, "name")
                yield _text(x + width / 2, y + 37, note, "note")
            y += 58
        top = y + 16
    yield _arrow(40, 30, 40, top - 26)
    yield f'<g transform="translate(28 {top / 2:g}) rotate(-90)">{_text(0, 0, "imports", "note")}</g>'


def _processes() -> Iterator[str]:
    def named(x: float, y: float, width: float, height: float, kind: str, name: str, *notes: str) -> Iterator[str]:
        yield _box(x, y, width, height, kind)
        yield _text(x + width / 2, y + 21, name, "name")
        for at, note in enumerate(notes):
            yield _text(x + width / 2, y + 38 + 15 * at, note, "note")

    yield from named(20, 30, 150, 52, "outside", "callers", "any NATS client")
    yield from named(20, 150, 150, 52, "outside", "NATS server", "subjects, queue groups")
    yield from named(20, 330, 150, 76, "outside", "Nex node", "tells what to start and", "stop, and remembers it")
    yield _arrow(95, 82, 95, 150, both=True)
    yield _arrow(95, 330, 95, 202, both=True)

    yield _box(240, 20, 330, 440, "trusted")
    yield _text(254, 41, "nexlet", "name", "start")
    yield _text(556, 41, "trusted; never runs an author's code", "note", "end")
    yield from named(260, 60, 290, 52, "inside", "observing", "metrics, health, Nex's metrics feed, spans")
    yield from named(260, 148, 130, 64, "inside", "natsio", "connections by", "credentials")
    yield from named(430, 148, 120, 64, "inside", "dispatch", "one call for each", "message")
    yield from named(430, 262, 120, 64, "inside", "pool", "queue, deadlines,", "replacement")
    yield from named(430, 376, 120, 64, "inside", "link", "frames, a batch", "at a time")
    yield from named(
        260, 344, 130, 96, "inside", "runner, agent", "register, heartbeat,", "start and stop", "functions, keep state"
    )
    yield _arrow(325, 344, 325, 212, both=True)
    yield _arrow(390, 362, 430, 318)

    yield from named(
        660,
        20,
        220,
        92,
        "trusted",
        "zygote",
        "trusted, no secret, no network:",
        "has everything loaded, forks",
        "workers, tells how each ended",
    )
    yield _arrow(550, 280, 660, 100, both=True)
    for top, name in ((190, "worker of function A"), (330, "worker of function B")):
        yield _box(660, top, 220, 120, "untrusted")
        yield _text(770, top + 20, name, "name")
        yield _text(770, top + 36, "untrusted; runs nothing else", "note")
        for at, (part, note) in enumerate((("kernel", "locks"), ("language", "rules"), ("worker", "loop"))):
            yield _box(670 + at * 68, top + 48, 64, 58, "inside")
            yield _text(702 + at * 68, top + 73, part, "name")
            yield _text(702 + at * 68, top + 90, note, "note")
    yield _arrow(770, 112, 770, 190)
    yield _text(778, 156, "forks", "note", "start")

    yield _arrow(170, 172, 260, 172, both=True)
    yield _arrow(390, 180, 430, 180, both=True)
    yield _arrow(490, 212, 490, 262, both=True)
    yield _arrow(490, 326, 490, 376, both=True)
    yield _arrow(550, 400, 660, 290, both=True)
    yield _arrow(550, 416, 660, 400, both=True)
    for x, y, step in ((215, 162, "1"), (410, 170, "2, 5"), (502, 242, "3"), (606, 334, "4")):
        yield _text(x, y, step, "step")


PICTURES: Final = {
    FOLDER / "packages.svg": (740, 748, "The packages and what they import", _packages),
    FOLDER / "processes.svg": (900, 480, "The processes and the way of a message", _processes),
}


def drawn(file: Path) -> str:
    """What a picture's file has to hold."""
    width, height, title, parts = PICTURES[file]
    return _picture(width, height, title, parts())


if __name__ == "__main__":
    for each in PICTURES:
        each.write_text(drawn(each))
